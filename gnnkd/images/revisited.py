"""A finished distillation set up again, as it began and as it ended, and what its method saw of one batch there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import UInt8
from torch import Tensor

from gnnkd import distillers, options
from gnnkd.claims import differences, said
from gnnkd.data.augment import Augment
from gnnkd.data.image_task import ImageTask
from gnnkd.distillers.base import Distiller
from gnnkd.distillers.gkdfd import Gkdfd, Seen
from gnnkd.errors import UserError
from gnnkd.images import networks
from gnnkd.images.finished import Finished
from gnnkd.images.predictor import load
from gnnkd.nn.images import ImageNetwork
from gnnkd.places import Place, read_result
from gnnkd.train import checkpoint
from gnnkd.train.images import image_fit
from gnnkd.train.lessons import Live, in_float32
from gnnkd.train.seeding import seeded
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.types import Batch, Step


@final
@dataclass(frozen=True)
class Views:
    """What GK-DFD saw of one batch with the weights of its first step, and with those after the last epoch.

    Args:
        pixels: of the batch, not varied.
        epoch: whose first batch this is, from 0.
        before: with the teacher as it is, and student and embeddings at the start that the run's seed gives them.
        after: with all of them at the end.
    """

    pixels: UInt8[Tensor, "N K S S"]
    epoch: int
    before: Seen
    after: Seen


def views(student: Finished, teacher: Finished, task: ImageTask) -> Views:
    """Both views of the first whole batch of the last epoch, as a step sees it: the student in training mode.

    Images are not varied, and all is in float32.

    Args:
        student: of a run by GK-DFD, or by a method that wraps it.
        teacher: whom it learned from.
        task: the run's, on the device to compute on.

    Raises:
        UserError: the run is of another method, its part is not there or does not fit, or another teacher is given.
    """
    _check(student, teacher)
    settings = _settings(student.config["student"])
    part, _ = checkpoint.load(Place(student.folder).method)
    last = read_result(Place(student.folder).result)["epochs"] - 1
    taught = Live(teacher.predictor.network.to(task.y.device), settings, maps=True)
    batch, pixels = _batch(task, settings, last)
    with seeded(task):
        network = _fresh(student).to(task.y.device)
        distiller = _distiller(student.config)
        image_fit(network, task, distiller, taught.network, settings, seed=task.seed)
    method = _gkdfd(distiller)
    before = _seen(method, network, taught, batch, Step(0, settings.epochs))
    assert method.part is not None
    _load(method.part, part, Place(student.folder).method)
    network.load_state_dict(_at_the_end(student).state_dict())
    return Views(pixels, last, before, _seen(method, network, taught, batch, Step(last, settings.epochs)))


def _check(student: Finished, teacher: Finished) -> None:
    method, base = student.config.get("method", "no method"), student.config.get("base")
    if "gkdfd" not in (method, base):
        name = f"{method}({base})" if base else method
        raise UserError(f"{student.folder} is of {name}; this picture is of a student that gkdfd has taught")
    if not Place(student.folder).method.exists():
        raise UserError(f"{student.folder} holds no method.safetensors; run the student again with --overwrite")
    wanted = student.config.get("teacher")
    changed = differences(teacher.config, wanted) if isinstance(wanted, Mapping) else []
    if changed:
        raise UserError(
            f"{teacher.folder} is not the teacher of {student.folder}: {said(changed)}; give the student's own, or "
            "leave it out where it lies beside the student"
        )


def _load(part: torch.nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    try:
        part.load_state_dict(dict(tensors))
    except RuntimeError:
        raise UserError(
            f"{file} does not fit the networks and options of its run; run the student again with --overwrite"
        ) from None


def _settings(said: Mapping[str, Any]) -> ImageTrainSettings:
    """The run's, but in float32 and asking the teacher anew."""
    known = options.of(ImageTrainSettings)
    mine = {name: value for name, value in said.items() if name in known}
    found = ImageTrainSettings(**options.checked("student", mine, known))
    return replace(found, precision="float32", compile=False, cache_teacher=False)


def _fresh(student: Finished) -> ImageNetwork:
    p = student.predictor
    return networks.built(p.name, p.size, p.in_channels, len(p.classes), dict(p.options))


def _at_the_end(student: Finished) -> ImageNetwork:
    """The weights after the last epoch, which are the kept ones where no other file is."""
    last = Place(student.folder).last
    return load(last).network if last.exists() else student.predictor.network


def _distiller(config: Mapping[str, Any]) -> Distiller:
    base = config["base"]
    kinds = [distillers.methods()[name] for name in (base, config["method"]) if name]
    known = {name: option for kind in kinds for name, option in options.of(kind).items()}
    said = {name: value for name, value in config["options"].items() if name in known}
    chosen = options.checked("method", said, known)
    return distillers.build(config["method"], base=base or "auto", student_needs_graph=True, **chosen)


def _gkdfd(distiller: Distiller) -> Gkdfd:
    found = distiller if isinstance(distiller, Gkdfd) else getattr(distiller, "base", None)
    assert isinstance(found, Gkdfd)
    return found


def _batch(task: ImageTask, settings: ImageTrainSettings, epoch: int) -> tuple[Batch, UInt8[Tensor, "N K S S"]]:
    """The first batch of an epoch, or the second where the first is what is left over."""
    still = replace(task, augment=Augment("none"))
    given = still.epoch(epoch, settings.batch_size, per_class=settings.per_class)
    batch = max(islice(given, 2), key=lambda b: b.y.numel())
    assert isinstance(batch.x, Tensor)
    mean, std = (torch.tensor(values, device=batch.x.device).view(-1, 1, 1) for values in (task.mean, task.std))
    return batch, ((batch.x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).cpu()


@torch.no_grad()
def _seen(method: Gkdfd, network: ImageNetwork, teacher: Live, batch: Batch, step: Step) -> Seen:
    # A fresh network's batch norms know nothing of the data yet: in evaluation mode it would not be what a step sees.
    said = in_float32(network.train()(batch.x, None), maps=True)
    return method.seen(batch, said, teacher.teach(batch), step)
