"""The two stages of a run: a teacher is trained, then a student on its outputs; files are checkpoints and outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd import batching, learning, models, processes, stage_room
from gnnkd.data.row_arrays import shared
from gnnkd.data.task import NodeTask
from gnnkd.distillers.dgd.bank import Bank
from gnnkd.learning import Heard, unreachable
from gnnkd.logits import Logits
from gnnkd.nn.own import Own
from gnnkd.places import Place, read_json
from gnnkd.predictor import Predictor
from gnnkd.run import Config
from gnnkd.train.fit import Fit
from gnnkd.train.fit import Progress as Reached
from gnnkd.train.outputs import TYPES, opened, writing
from gnnkd.train.progress import Progress
from gnnkd.train.seeding import seeded
from gnnkd.train.teacher import outputs, teaching


@final
@dataclass(frozen=True)
class Taught:
    """A trained teacher: the network, its logits on all rows, its generators if there are any.

    `notes` say what the generators could not read.
    """

    predictor: Predictor
    logits: Float[Tensor, "N C"]
    bank: Bank | None
    reached: Reached
    notes: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Learnt:
    """A trained student; `notes` say which of its weights the method could not reach."""

    predictor: Predictor
    reached: Reached
    notes: tuple[str, ...] = ()


def _predictor(
    network: torch.nn.Module, name: str, options: Mapping[str, Any], task: NodeTask, *, undirected: bool
) -> Predictor:
    return Predictor(network, name, options, task.classes, task.features, task.n_features, undirected, task.made)


def train_teacher(
    task: NodeTask, config: Config, progress: Progress, *, place: Place | None = None, resume: bool = False
) -> Taught:
    """Train a teacher on the training labels, with generators beside it unless they are switched off.

    On batches its logits are written to `place.outputs` as they are computed, and are mapped from there.

    Raises:
        UserError: a module that cannot teach, or whose weights the generators cannot read; no room.
    """
    assert not isinstance(config.teacher_network, Logits), "ready logits are not trained"
    stage_room.check(task, config, place.folder if place else None, teacher=True, student=False)
    with seeded(task):
        network = models.built(config.teacher_network, config.teacher, task, "teacher")
        batch = task.batch(task.split.train)
        notes = unreachable(network, batch, config, "teacher") if config.generators else ()
        fit, watcher = teaching(
            network,
            batch,
            (task.y, task.split.val),
            config.teacher_train,
            config.generators,
            seed=task.seed,
            file=place.checkpoint if place else None,
            key=_key(place),
            inference=batching.layerwise(config.teacher_train, place.folder if place else None),
        )
        reached = _run(fit, progress, f"teacher {config.teacher_model}, seed {task.seed}", resume=resume)
        logits = _said(network, task, config, place)
    predictor = _predictor(network, config.teacher_model, config.teacher, task, undirected=config.data.undirected)
    return Taught(predictor, logits, watcher.bank if watcher else None, reached, notes)


def _said(network: torch.nn.Module, task: NodeTask, config: Config, place: Place | None) -> Float[Tensor, "N C"]:
    """A teacher's logits on all rows, as they are kept."""
    storage = config.data.storage
    layerwise = batching.layerwise(config.teacher_train, place.folder if place else None)
    if layerwise is None:
        return outputs(network, task.batch(task.split.train)).to(TYPES[storage][2])
    if place is None:
        into = torch.empty(task.n_nodes, task.n_classes, dtype=TYPES[storage][2], device=task.y.device)
        return layerwise.logits(network, task.x, task.graph, into=into)
    parts = layerwise.parts(network, task.x, task.graph, together=True)
    if processes.rank() == 0:
        with writing(place.outputs, task.index, task.n_classes, storage, {"fingerprint": task.fingerprint}) as into:
            for part, found in parts:
                into[int(part[0]) : int(part[-1]) + 1] = found
    else:
        for _ in parts:
            pass
    processes.wait()
    return shared(opened(place.outputs).logits).to(task.y.device)


def check_student(task: NodeTask, config: Config) -> None:
    """Refuse a module that cannot be the student before a teacher is trained for it.

    Raises:
        UserError: as `train_student` does on modules.
    """
    if isinstance(config.student_network, Own):
        with seeded(task):
            network = models.built(config.student_network, config.student, task, "student")
            if config.wants_generators:
                unreachable(network, task.batch(task.split.train), config, "student")


def train_student(
    task: NodeTask,
    config: Config,
    teacher: Heard,
    bank: Bank | None,
    progress: Progress,
    *,
    asked: torch.nn.Module | None = None,
    place: Place | None = None,
    resume: bool = False,
) -> Learnt:
    """Train a student by the configured method on cached teacher logits [N, C], in memory or mapped.

    Args:
        asked: the trained teacher, for a method that reads its features too.

    Raises:
        UserError: the method lacks something, as generators, or a module cannot learn; no room.
    """
    stage_room.check(task, config, place.folder if place else None, teacher=False, student=True)
    distiller = learning.made(config, bank, task.seed)
    with seeded(task):
        course, notes = learning.course(task, config, distiller, teacher, asked, place.folder if place else None)
        fit = Fit(course, config.student_train, file=place.checkpoint if place else None, key=_key(place))
        title = f"student {config.student_model} by {config.method}, seed {task.seed}"
        reached = _run(fit, progress, title, resume=resume)
    network = course.model.eval()
    predictor = _predictor(network, config.student_model, config.student, task, undirected=config.data.undirected)
    return Learnt(predictor, reached, notes)


def _key(place: Place | None) -> str:
    """What a checkpoint is compared by on resume."""
    return json.dumps(read_json(place.config), sort_keys=True) if place else ""


def _run(fit: Fit, progress: Progress, title: str, *, resume: bool) -> Reached:
    if resume and fit.file is not None and fit.file.exists():
        fit.restore()
    with progress.stage(title, fit.settings.epochs) as bar:
        return fit.run(bar)
