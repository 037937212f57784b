"""A student and its method, made and prepared for a task: what it learns on, and what an epoch of that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd import batching, distillers, models, nn
from gnnkd.data.augment import generator
from gnnkd.data.row_arrays import Array, array, shared
from gnnkd.data.row_store import RowStore
from gnnkd.data.task import NodeTask
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd.bank import Bank
from gnnkd.distillers.losses import full_precision
from gnnkd.errors import UserError
from gnnkd.nn.around import ask
from gnnkd.nn.own import Own
from gnnkd.run import Config
from gnnkd.train.course import Course
from gnnkd.train.probe import NODES, some
from gnnkd.train.rows import Rows
from gnnkd.train.sampled import Sampled
from gnnkd.train.shown import few, on
from gnnkd.train.teacher import imitable, unread
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Operand, Output

Heard = Float[Tensor, "N C"] | Array
"""Logits of a teacher, in memory or mapped."""


def course(
    task: NodeTask,
    config: Config,
    distiller: Distiller,
    teacher: Heard,
    asked: torch.nn.Module | None,
    folder: Path | None = None,
) -> tuple[Course, tuple[str, ...]]:
    """The student's training, ready to run, and notes on weights that the method cannot reach.

    Args:
        asked: the trained teacher, for a method that reads its features too.
        folder: of the results, for files that inference needs.

    Raises:
        UserError: a module that cannot learn.
    """
    batch = task.batch(task.split.train)
    network = _learner(distiller, config, task, batch)
    notes = unreachable(network, batch, config, "student") if config.wants_generators else ()
    settings, validation = config.student_train, (task.y, task.split.val)
    kind = batching.of_student(config)
    if kind == "rows" and isinstance(task.x, Tensor):
        return _on_rows(network, task, config, distiller, teacher), notes
    lesson = None
    if distiller.needs_teacher:
        logits = teacher if isinstance(teacher, Tensor) else shared(teacher).to(task.y.device)
        logits = full_precision(logits) if kind == "whole" else logits
        lesson = _featured(logits, asked, batch) if distiller.reads_maps else Output(logits)
    fanouts = settings.fanouts or ()
    _prepare(distiller, network, batch, lesson, task, config, asked, None if kind == "whole" else fanouts)
    if kind == "whole":
        return WholeBatch(network, batch, distiller, lesson, validation, settings, seed=task.seed), notes
    # Sparse rows are few bytes, and have no file of their own.
    sampled = Sampled(
        network,
        batch,
        distiller,
        lesson,
        validation,
        settings,
        fanouts=() if kind == "rows" else fanouts,
        batch_size=settings.batch_size or 1,
        seed=task.seed,
        inference=batching.layerwise(settings, folder),
    )
    return sampled, notes


def _on_rows(network: torch.nn.Module, task: NodeTask, config: Config, distiller: Distiller, teacher: Heard) -> Rows:
    """A course of rows; where they lie in mapped files, they are read from there."""
    assert isinstance(task.x, Tensor)
    labelled = task.split.train.cpu().numpy()
    logits = teacher.cpu().numpy() if isinstance(teacher, Tensor) else teacher
    store = RowStore(
        x=array(task.x),
        y=task.y.cpu().numpy(),
        learn=labelled | True if distiller.needs_teacher else labelled,
        labelled=labelled,
        logits=logits if distiller.needs_teacher else None,
        seed=task.seed,
        device=task.y.device,
        index=task.index.cpu().numpy(),
    )
    nothing = Output(torch.zeros(0, task.n_classes))
    distiller.prepare(_lesson(nothing, None, task, config, None))
    settings = config.student_train
    validation = task.split.val.cpu().numpy()
    return Rows(network, store, distiller, validation, settings, batch_size=settings.batch_size or 1)


def made(config: Config, bank: Bank | None, seed: int) -> Distiller:
    """The configured method.

    Raises:
        UserError: it lacks something, as generators.
    """
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
    fanouts: Sequence[int | None] | None,
) -> None:
    """Let a method see both networks in eval mode; the random state stays.

    Args:
        fanouts: how the few nodes are drawn that the student is asked about; None asks it about all.
    """
    nothing = Output(batch.y.new_zeros(0, task.n_classes, dtype=torch.float32))
    says = partial(_answer, asked, batch) if distiller.asks_teacher and asked is not None else None
    lesson = _lesson(nothing, teacher, task, config, batch)
    lesson = dataclasses.replace(lesson, ask=says)
    with torch.random.fork_rng(devices=[batch.y.device] if batch.y.device.type == "cuda" else []):
        if type(distiller).prepare is not Distiller.prepare:
            part = batch if fanouts is None else few(batch, fanouts, task.seed)
            shown = ask(network.eval(), part.x, part.graph, part.index)
            lesson = dataclasses.replace(lesson, student=shown)
        with torch.enable_grad():  # a method may train something of its own here
            distiller.prepare(lesson)


def _lesson(student: Output, teacher: Output | None, task: NodeTask, config: Config, batch: Batch | None) -> Lesson:
    train = task.split.train
    return Lesson(
        student=student,
        teacher=teacher,
        norms=(),
        y=task.batch(train).y if batch is None else batch.y,
        momentum=0,
        weight_decay=config.student_train.weight_decay,
        seed=task.seed,
        batch=batch,
        index=task.index,
        probe=_standing(task, config.student_train.batch_size),
    )


def _standing(task: NodeTask, batch_size: int | None) -> Int[Tensor, " P"] | None:
    """Ids of rows that stand for all on batches, as many as a batch at least; no label is read, so they need none."""
    if batch_size is None:
        return None
    draws = on(task.index.device, generator("standing", task.seed))
    return some(task.index, draws, max(NODES, batch_size))


@torch.no_grad()
def _answer(asked: torch.nn.Module, batch: Batch, x: Operand) -> Output:
    """What the trained teacher says about other features of the rows of a batch."""
    return ask(asked.eval(), x, batch.graph, batch.index)


def unreachable(network: torch.nn.Module, batch: Batch, config: Config, role: str) -> tuple[str, ...]:
    """Notes on the matrices of a user's module that DGD cannot read; those of the house are known to it.

    Raises:
        UserError: it can read none.
    """
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
