"""Accuracy of a saved image network: `python -m gnnkd.evaluate -m resnet8x4 -c CHECKPOINT -d cifar100`.

CHECKPOINT is a published one (`gnnkd.images.weights` says which can be read), the folder of a run, or a file in it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gnnkd.arguments import Parser, answered, whole
from gnnkd.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from gnnkd.data.image_task import ImageTask
    from gnnkd.images.finished import Finished
    from gnnkd.nn.images import ImageNetwork

PARTS = ("test", "val", "train")
TOP = 5
"""Of the second accuracy, where there are more classes than that."""
LEAST_SIZE = 8
"""Pixels a side of the smallest images that a folder is read at."""


@final
@dataclass(frozen=True)
class Evaluation:
    """What a network does on some images: counts of its hits, and the sum of its losses in nats.

    `top` counts the images whose class is among the `TOP` largest logits.
    """

    n_images: int
    n_classes: int
    hits: int
    top: int
    loss: float

    def __str__(self) -> str:
        """Accuracies in percent, the mean loss, the number of images."""
        top = f", top-{TOP} {self.top / self.n_images:.2%}" if self.n_classes > TOP else ""
        first, loss = self.hits / self.n_images, self.loss / self.n_images
        return f"top-1 {first:.2%}{top}, loss {loss:.4f}, {self.n_images:,} images"


def evaluate(network: ImageNetwork, task: ImageTask, mask: Bool[Tensor, " N"], batch_size: int) -> Evaluation:
    """Ask `network`, in eval mode, about the masked images as they are.

    Raises:
        UserError: no image, or logits that are not finite.
    """
    import torch
    from torch.nn.functional import cross_entropy

    n, hits, top, loss = int(mask.sum()), 0, 0, 0.0
    if n == 0:
        raise UserError(f"{task.name} has no such images; choose another --split, or a --val_fraction above 0")
    network.eval()
    with torch.no_grad():
        for batch in task.scan(mask, batch_size):
            logits, y = network(batch.x).logits.float(), task.y.index_select(0, batch.index)
            best = logits.topk(min(TOP, task.n_classes)).indices == y[:, None]
            hits, top = hits + int(best[:, 0].sum()), top + int(best.sum())
            loss += float(cross_entropy(logits.double(), y, reduction="sum"))
    if not loss < float("inf"):
        raise UserError("the network's logits are not finite; its weights, or the data, are not what they should be")
    return Evaluation(n, task.n_classes, hits, top, loss)


# -- what is asked for -----------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(
        prog="python -m gnnkd.evaluate",
        usage="python -m gnnkd.evaluate [-m NAME] -c CHECKPOINT [-d NAME] [flags]",
        description="Accuracy of a saved image network.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-m", "--model", metavar="NAME", help="the network, as resnet8x4; a run of gnnkd's knows it")
    add("-c", "--checkpoint", metavar="PATH", help="a published checkpoint, a run's folder, or a file in it")
    add("-d", "--dataset", metavar="NAME", help="digits, cifar10, cifar100, tiny-imagenet, or a folder; a run knows it")
    add("--data_root", metavar="DIR", help="folder of the raw data ($GNNKD_DATA, or a cache folder of yours)")
    add("--split", metavar="NAME", default="test", help="test, val or train (test)")
    add("--seed", metavar="K", type=whole(0), help="of the split, where one is drawn (the run's, else 0)")
    add("--val_fraction", metavar="X", type=float, help="share that validates, 0 to 0.5 (the run's, else 0.1)")
    add("--size", metavar="N", type=whole(LEAST_SIZE), help="pixels a side that images of a folder get (224)")
    add("--workers", metavar="N", type=whole(0), help="processes that read images of a folder")
    add("--batch_size", metavar="N", type=whole(1), default=256, help="images at a time (256)")
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda (auto)")
    add("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="options of the model: shortcut=a")
    return parser


def run(said: argparse.Namespace) -> str:
    """Do what is asked for; the line to print.

    Raises:
        UserError: anything wrong with names, files or data.
    """
    from gnnkd import options
    from gnnkd.images import finished

    if said.checkpoint is None:
        raise UserError("give a checkpoint: python -m gnnkd.evaluate -m resnet8x4 -c CHECKPOINT -d cifar100")
    if not os.path.exists(said.checkpoint):  # noqa: PTH110, a name too long is none
        raise UserError(f"{said.checkpoint} does not exist; give a published checkpoint, or the folder of a run")
    part, device = options.word("split", said.split, PARTS), options.device(said.device)
    path = Path(said.checkpoint)
    own = finished.read(path) if finished.is_own(path) else None
    config: Mapping[str, Any] = own.config if own else {}
    task = _task(said, config, own)
    if own is not None:
        name, network, task = own.predictor.name, own.predictor.network, _normalised(said, own, task)
    else:
        name, network = _published(said, path, task)
    task = task.to(device)
    found = evaluate(network.to(device), task, getattr(task.split, part), said.batch_size)
    n_parameters = sum(p.numel() for p in network.parameters())
    where = f"{task.name} {task.protocol}-{task.setting} {name}, {part}"
    return f"{where}: {found}, {n_parameters:,} parameters ({path})"


def _task(said: argparse.Namespace, config: Mapping[str, Any], own: Finished | None) -> ImageTask:
    """The images, split as in the run unless the user says otherwise."""
    from gnnkd.data import images
    from gnnkd.images import finished

    name = said.dataset or config.get("dataset")
    if name is None or (said.dataset is None and not finished.is_known(name)):
        raise UserError("say which images: -d cifar100, or -d DIR for a folder of class folders")
    size = own.predictor.size if own and said.size is None and not finished.is_known(name) else said.size
    found = finished.load(name, said.data_root, size, said.workers)
    same = config if config.get("dataset", "").removesuffix("-images") == found.name.removesuffix("-images") else {}
    fraction = same.get("data", {}).get("val_fraction", 0.1) if said.val_fraction is None else said.val_fraction
    seed = same.get("seed", 0) if said.seed is None else said.seed
    task = images.task(found, protocol=same.get("protocol"), seed=seed, val_fraction=fraction)
    if same and same["fingerprint"] != task.fingerprint and (task.protocol == "random" or said.split != "test"):
        print("gnnkd: note: the run had another split; some of these images may have trained it", file=sys.stderr)
    return replace(task, name="digits") if name.lower() == "digits" else task


def _normalised(said: argparse.Namespace, own: Finished, task: ImageTask) -> ImageTask:
    """The task as the saved network reads it."""
    from gnnkd.images.networks import known

    saved = own.predictor
    if said.model is not None and known(said.model) != saved.name:
        raise UserError(f"{own.file} holds a {saved.name}, not a {said.model}; leave -m out")
    if said.set:
        raise UserError(f"{own.file} knows its own options; leave --set out")
    here = (task.in_channels, task.size, task.size)
    if here != (saved.in_channels, saved.size, saved.size):
        raise UserError(
            f"{own.file} reads images of {saved.in_channels} x {saved.size} x {saved.size} values, and {task.name} has "
            f"{' x '.join(map(str, here))}; choose the data that it was trained for"
        )
    if saved.classes != task.classes:
        raise UserError(
            f"{own.file} knows {len(saved.classes)} classes ({', '.join(map(str, saved.classes[:3]))}, ...), and "
            f"{task.name} has {task.n_classes} others; choose the data that it was trained for"
            if len(saved.classes) != task.n_classes
            else f"{own.file} knows other classes than {task.name} has; choose the data that it was trained for"
        )
    return replace(task, mean=saved.mean, std=saved.std)


def _published(said: argparse.Namespace, path: Path, task: ImageTask) -> tuple[str, ImageNetwork]:
    """A network with the weights of a published checkpoint."""
    from gnnkd import options, yaml_file
    from gnnkd.images import finished, networks, weights

    if said.model is None:
        raise UserError("a published checkpoint does not say which network it is of; give -m, as in -m resnet8x4")
    way = "" if finished.is_known(said.dataset) else ", or bring the images to such a size with --size N"
    name = networks.chosen("model", said.model, task.size, way=way)
    given = {}
    for pair in said.set:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--set {pair}: it must be option=value, as in --set shortcut=a")
        given[key.lower().replace("-", "_").removeprefix("model.")] = yaml_file.value(text, f"--set {pair}")
    checked = options.checked("model", given, networks.options_of(name, task.size))
    network = networks.built(name, task.size, task.in_channels, task.n_classes, checked)
    network.load_state_dict(weights.fit(weights.read(path), network, path))
    return name, network


def main(argv: Sequence[str] | None = None) -> int:
    """Print a network's accuracy; returns the exit code."""
    return answered(lambda: print(run(_parser().understood(argv))))


if __name__ == "__main__":
    sys.exit(main())
