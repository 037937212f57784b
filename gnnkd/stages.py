"""The two stages of a run, teacher and student: train, score, write the files."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

import gnnkd
from gnnkd import distillers, nn
from gnnkd.curves import draw
from gnnkd.data.task import NodeTask
from gnnkd.distillers.dgd.bank import Bank
from gnnkd.errors import UserError
from gnnkd.metrics import accuracy
from gnnkd.places import Place, read_json, read_result
from gnnkd.predictor import Predictor
from gnnkd.run import Config
from gnnkd.train import checkpoint
from gnnkd.train.fit import Fit
from gnnkd.train.fit import Progress as Reached
from gnnkd.train.progress import Progress
from gnnkd.train.teacher import outputs, teaching
from gnnkd.types import Output


@final
@dataclass(frozen=True)
class Taught:
    """A trained teacher: the network, its logits on all rows, its generators if there are any."""

    predictor: Predictor
    logits: Float[Tensor, "N C"]
    bank: Bank | None
    reached: Reached


@contextmanager
def _seeded(task: NodeTask) -> Iterator[None]:
    """Initialisation and dropout follow the task's seed; the caller's random state is put back."""
    devices = [task.y.device] if task.y.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(task.seed)
        yield


def _predictor(
    network: nn.Network, name: str, options: Mapping[str, Any], task: NodeTask, *, undirected: bool
) -> Predictor:
    return Predictor(network, name, options, task.classes, task.features, task.n_features, undirected)


def train_teacher(
    task: NodeTask, config: Config, progress: Progress, *, place: Place | None = None, resume: bool = False
) -> Taught:
    """Train a teacher on the training labels, with generators beside it unless they are switched off."""
    with _seeded(task):
        network = _network(config.teacher_model, config.teacher, task)
        batch = task.batch(task.split.train)
        fit, watcher = teaching(
            network,
            batch,
            (task.y, task.split.val),
            config.teacher_train,
            config.generators,
            seed=task.seed,
            file=place.checkpoint if place else None,
            key=_key(place),
        )
        reached = _run(fit, progress, f"teacher {config.teacher_model}, seed {task.seed}", resume=resume)
        logits = outputs(network, batch)
    predictor = _predictor(network, config.teacher_model, config.teacher, task, undirected=config.data.undirected)
    return Taught(predictor, logits, watcher.bank if watcher else None, reached)


def train_student(
    task: NodeTask,
    config: Config,
    teacher: Float[Tensor, "N C"],
    bank: Bank | None,
    progress: Progress,
    *,
    place: Place | None = None,
    resume: bool = False,
) -> tuple[Predictor, Reached]:
    """Train a student by the configured method on cached teacher logits.

    Raises:
        UserError: the method lacks something, as generators.
    """
    on_graph = nn.needs_graph(config.student_model)
    wraps = distillers.methods()[config.method].wraps
    options = {name: value for name, value in config.options.items() if name != "base"}
    context = (bank, task.seed) if wraps else ()
    distiller = distillers.build(
        config.method, *context, base=config.base or "auto", student_needs_graph=on_graph, **options
    )
    lack = distiller.missing()
    if lack:
        raise UserError(lack)
    with _seeded(task):
        network = _network(config.student_model, config.student, task)
        fit = Fit(
            network,
            task.batch(task.split.train),
            distiller,
            Output(teacher) if distiller.needs_teacher else None,
            (task.y, task.split.val),
            config.student_train,
            seed=task.seed,
            file=place.checkpoint if place else None,
            key=_key(place),
        )
        title = f"student {config.student_model} by {config.method}, seed {task.seed}"
        reached = _run(fit, progress, title, resume=resume)
    network.eval()
    predictor = _predictor(network, config.student_model, config.student, task, undirected=config.data.undirected)
    return predictor, reached


def _network(name: str, options: Mapping[str, Any], task: NodeTask) -> nn.Network:
    return nn.MODELS[name](task.n_features, task.n_classes, **options).to(task.y.device)


def _key(place: Place | None) -> str:
    """What a checkpoint is compared by on resume."""
    return json.dumps(read_json(place.config), sort_keys=True) if place else ""


def _run(fit: Fit, progress: Progress, title: str, *, resume: bool) -> Reached:
    if resume and fit.file is not None and fit.file.exists():
        fit.restore()
    with progress.stage(title, fit.settings.epochs) as bar:
        return fit.run(bar)


# -- with files --------------------------------------------------------------------------------------------------


def run_teacher(task: NodeTask, config: Config, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
    """Train a teacher, write its files to `place` and return the content of `result.json`."""
    taught = train_teacher(task, config, progress, place=place, resume=resume)
    checkpoint.save(
        place.outputs, {"logits": taught.logits, "index": task.index}, {"fingerprint": task.fingerprint}
    )  # fmt: skip
    if taught.bank is not None:
        checkpoint.save(place.generators, taught.bank.tensors(), taught.bank.meta())
    test = accuracy(taught.logits, task.y, task.split.test)
    names = {"student_model": None, "method": "teacher", "base": None}
    more = {"teacher_test_acc": test, "generator_seconds": round(taught.reached.watcher_seconds, 3)}
    return _finish(task, config, place, taught.predictor, taught.reached, test, names | more)


def run_student(task: NodeTask, config: Config, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
    """Train a student from the files of its teacher, write its own to `place` and return `result.json`'s content.

    Raises:
        UserError: the teacher's outputs are of other rows, or files are damaged.
    """
    assert place.teacher is not None
    teacher = cached_outputs(place.teacher.outputs, task)
    bank = None
    if distillers.methods()[config.method].wraps and place.teacher.generators.exists():
        bank = stored_bank(place.teacher.generators)
    predictor, reached = train_student(task, config, teacher, bank, progress, place=place, resume=resume)
    test = accuracy(outputs(predictor.network, task.batch(task.split.train)), task.y, task.split.test)
    names = {"student_model": config.student_model, "method": config.method, "base": config.base}
    more = {"teacher_test_acc": read_result(place.teacher.result)["test_acc"]}
    return _finish(task, config, place, predictor, reached, test, names | more)


def cached_outputs(file: Path, task: NodeTask) -> Float[Tensor, "N C"]:
    """A teacher's logits on the rows of `task`.

    Raises:
        UserError: they were computed on other rows, another graph or another split.
    """
    tensors, meta = checkpoint.load(file)
    if not {"logits", "index"} <= tensors.keys():
        raise UserError(f"{file} holds no teacher's outputs; train the teacher again with --mode tea --overwrite")
    if meta.get("fingerprint") != task.fingerprint or not torch.equal(tensors["index"], task.index.cpu()):
        raise UserError(f"{file} holds outputs on other nodes, another graph or split; train the teacher again")
    return tensors["logits"].to(task.y.device)


def stored_bank(file: Path) -> Bank:
    """The generators of a teacher.

    Raises:
        UserError: the file holds something else.
    """
    try:
        return Bank.restored(*checkpoint.load(file))
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{file} holds no generators; train the teacher again with --mode tea --overwrite") from None


def _finish(
    task: NodeTask,
    config: Config,
    place: Place,
    predictor: Predictor,
    reached: Reached,
    test: float,
    named: dict[str, Any],
) -> dict[str, Any]:
    """Write model, metrics, curves and, last, the result."""
    predictor.save(place.folder)
    checkpoint.write_lines(place.metrics, reached.history)
    who = named["method"] if named["student_model"] is None else f"{named['student_model']} by {named['method']}"
    title = f"{task.name} ({task.protocol}, {task.setting}), {config.teacher_model}: {who}, seed {task.seed}"
    draw(reached.history, place.curves, title=title, best_epoch=reached.best_epoch)
    result = {
        "dataset": task.name,
        "protocol": task.protocol,
        "setting": task.setting,
        "teacher_model": config.teacher_model,
        **named,
        "seed": task.seed,
        "test_acc": test,
        "val_acc": reached.best_score,
        "best_epoch": reached.best_epoch,
        "epochs": reached.epoch,
        "seconds": round(reached.seconds, 3),
        "n_parameters": predictor.n_parameters,
        "config": read_json(place.config),
        "versions": versions(),
        "commit": commit(),
    }
    checkpoint.write_json(place.result, result)
    place.checkpoint.unlink(missing_ok=True)
    return result


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    packages = ("torch", "torch_geometric", "numpy", "scipy", "scikit-learn")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "gnnkd": gnnkd.__version__, **found}


def commit() -> str | None:
    """The git commit of this source tree; None when it is not in a repository of its own."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return asked.stdout.strip() or None
