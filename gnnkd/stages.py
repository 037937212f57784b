"""The two stages of a run: a teacher is trained, then a student on its outputs; no files but checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd import distillers, models, nn
from gnnkd.data.task import NodeTask
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd.bank import Bank
from gnnkd.errors import UserError
from gnnkd.logits import Logits
from gnnkd.nn.around import ask
from gnnkd.nn.own import Own
from gnnkd.places import Place, read_json
from gnnkd.predictor import Predictor
from gnnkd.run import Config
from gnnkd.train.fit import Fit
from gnnkd.train.fit import Progress as Reached
from gnnkd.train.progress import Progress
from gnnkd.train.seeding import seeded
from gnnkd.train.teacher import imitable, outputs, teaching, unread
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Operand, Output


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

    Raises:
        UserError: a module that cannot teach, or whose weights the generators cannot read.
    """
    assert not isinstance(config.teacher_network, Logits), "ready logits are not trained"
    with seeded(task):
        network = models.built(config.teacher_network, config.teacher, task, "teacher")
        batch = task.batch(task.split.train)
        notes = _unread(network, batch, config, "teacher") if config.generators else ()
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
    return Taught(predictor, logits, watcher.bank if watcher else None, reached, notes)


def check_student(task: NodeTask, config: Config) -> None:
    """Refuse a module that cannot be the student before a teacher is trained for it.

    Raises:
        UserError: as `train_student` does on modules.
    """
    if isinstance(config.student_network, Own):
        with seeded(task):
            network = models.built(config.student_network, config.student, task, "student")
            if config.wants_generators:
                _unread(network, task.batch(task.split.train), config, "student")


def train_student(
    task: NodeTask,
    config: Config,
    teacher: Float[Tensor, "N C"],
    bank: Bank | None,
    progress: Progress,
    *,
    asked: torch.nn.Module | None = None,
    place: Place | None = None,
    resume: bool = False,
) -> Learnt:
    """Train a student by the configured method on cached teacher logits.

    Args:
        asked: the trained teacher, for a method that reads its features too.

    Raises:
        UserError: the method lacks something, as generators, or a module cannot learn.
    """
    distiller = _distiller(config, bank, task.seed)
    with seeded(task):
        batch = task.batch(task.split.train)
        network = _learner(distiller, config, task, batch)
        notes = _unread(network, batch, config, "student") if config.wants_generators else ()
        lesson = None
        if distiller.needs_teacher:
            lesson = _featured(teacher, asked, batch) if distiller.reads_maps else Output(teacher)
        _prepare(distiller, network, batch, lesson, task, config, asked)
        course = WholeBatch(
            network,
            batch,
            distiller,
            lesson,
            (task.y, task.split.val),
            config.student_train,
            seed=task.seed,
        )
        fit = Fit(course, config.student_train, file=place.checkpoint if place else None, key=_key(place))
        title = f"student {config.student_model} by {config.method}, seed {task.seed}"
        reached = _run(fit, progress, title, resume=resume)
    network.eval()
    predictor = _predictor(network, config.student_model, config.student, task, undirected=config.data.undirected)
    return Learnt(predictor, reached, notes)


def _distiller(config: Config, bank: Bank | None, seed: int) -> Distiller:
    on_graph = models.needs_graph(config.student_network)
    options = {name: value for name, value in config.options.items() if name != "base"}
    context = (bank, seed) if distillers.graph_methods()[config.method].wraps else ()
    base = config.base or "auto"
    distiller = distillers.build(
        config.method, *context, base=base, student_needs_graph=on_graph, on_graphs=True, **options
    )
    lack = distiller.missing()
    if lack:
        raise UserError(lack)
    return distiller


def _learner(distiller: Distiller, config: Config, task: NodeTask, batch: Batch) -> torch.nn.Module:
    """The student: as the user asked for it, perhaps with something of the method's around it."""
    model = config.student_network
    if not isinstance(model, str):
        return models.built(model, config.student, task, "student")

    def make(inputs: int) -> torch.nn.Module:
        network: torch.nn.Module = nn.MODELS[model](inputs, task.n_classes, **config.student)
        return network.to(task.y.device)

    return distiller.learner(make, batch, task.n_classes, task.seed).to(task.y.device)


@torch.no_grad()
def _featured(logits: Float[Tensor, "N C"], asked: torch.nn.Module | None, batch: Batch) -> Output:
    """The teacher's kept logits, and what its layers multiply in a forward pass in eval mode."""
    assert asked is not None, "configurations of ready logits refuse a method that reads features"
    shown = ask(asked.eval(), batch.x, batch.graph, batch.index)
    return dataclasses.replace(shown, logits=logits)


@torch.no_grad()
def _prepare(
    distiller: Distiller,
    network: torch.nn.Module,
    batch: Batch,
    teacher: Output | None,
    task: NodeTask,
    config: Config,
    asked: torch.nn.Module | None,
) -> None:
    """Let a method see both networks in eval mode; the random state stays."""
    lesson = Lesson(
        student=Output(batch.y.new_zeros(0, task.n_classes, dtype=torch.float32)),
        teacher=teacher,
        norms=(),
        y=batch.y,
        momentum=0,
        weight_decay=config.student_train.weight_decay,
        seed=task.seed,
        batch=batch,
        ask=partial(_answer, asked, batch) if distiller.asks_teacher and asked is not None else None,
    )
    with torch.random.fork_rng(devices=[batch.y.device] if batch.y.device.type == "cuda" else []):
        if type(distiller).prepare is not Distiller.prepare:
            shown = ask(network.eval(), batch.x, batch.graph, batch.index)
            lesson = dataclasses.replace(lesson, student=shown)
        with torch.enable_grad():  # a method may train something of its own here
            distiller.prepare(lesson)


@torch.no_grad()
def _answer(asked: torch.nn.Module, batch: Batch, x: Operand) -> Output:
    """What the trained teacher says about other features of the rows of a batch."""
    return ask(asked.eval(), x, batch.graph, batch.index)


def _unread(network: torch.nn.Module, batch: Batch, config: Config, role: str) -> tuple[str, ...]:
    """Notes on the matrices of a user's module that DGD cannot read; those of the house are known to it."""
    if not isinstance(network, Own):
        return ()
    shown = imitable(network, batch)
    if not shown.hidden:
        why = "TorchScript shows none" if network.scripted else "the map of a layer called as layer(h), in float32"
        raise UserError(
            f"{config.method} found no weight matrix in the {role} {network.name} whose input it can read ({why}); "
            f'use method="{distillers.default_base(models.needs_graph(config.student_network))}"'
        )
    does = ": it keeps its own gradient" if role == "student" else " of the teacher: its gradient is not imitated"
    return tuple(
        f"{config.method.upper()} found no operand of {weight.removeprefix('module.')}{does}"
        for weight in unread(network, shown)
    )


def _key(place: Place | None) -> str:
    """What a checkpoint is compared by on resume."""
    return json.dumps(read_json(place.config), sort_keys=True) if place else ""


def _run(fit: Fit, progress: Progress, title: str, *, resume: bool) -> Reached:
    if resume and fit.file is not None and fit.file.exists():
        fit.restore()
    with progress.stage(title, fit.settings.epochs) as bar:
        return fit.run(bar)
