"""A training on images, ready to run: the method hears what it teaches, the teacher stands still."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from gnnkd import processes
from gnnkd.data.image_task import ImageTask
from gnnkd.distillers.base import Distiller, Lesson, Norm
from gnnkd.errors import UserError
from gnnkd.train import minibatches
from gnnkd.train.fit import Fit
from gnnkd.train.lessons import Cached, Live, Teacher
from gnnkd.train.minibatches import Minibatches
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.types import UNKNOWN, Output

PROBE = 4
"""Images that both networks are shown before the first step."""


def image_fit(
    model: nn.Module,
    task: ImageTask,
    distiller: Distiller,
    teacher: nn.Module | None,
    settings: ImageTrainSettings,
    *,
    seed: int,
    file: Path | None = None,
    key: str = "",
    track_test: bool = False,
) -> Fit:
    """The training of `model` by `distiller`, to be run or restored.

    Args:
        teacher: a trained network, frozen here; None for a method that needs none.
        seed: of the run, for what a method draws.
        file: where checkpoints go; None keeps none.
        key: what this run is, compared on resume.
        track_test: score the test images after each epoch too.

    Raises:
        UserError: two networks or options that do not fit the method.
    """
    if settings.nesterov and distiller.own_momentum:
        raise UserError("nesterov is true, and this method has momenta of its own, without Nesterov's; leave it out")
    teacher = teacher if distiller.needs_teacher else None
    distiller.prepare(_lesson(model, task, teacher, settings, seed))
    if distiller.part is not None:
        distiller.part.to(task.y.device)
        processes.same(distiller.part.state_dict().values())
    processes.same(model.state_dict().values())
    course = Minibatches(
        model,
        task,
        distiller,
        _taught(teacher, task, distiller, settings),
        settings,
        track_test=track_test,
    )
    return Fit(course, settings, file=file, key=key)


def image_accuracy(model: nn.Module, task: ImageTask, mask: Bool[Tensor, " N"], settings: ImageTrainSettings) -> float:
    """Share of the masked rows whose largest logit is their label, in [0, 1]; NaN for an empty mask."""
    if not bool(mask.any()):
        return float("nan")
    return minibatches.accuracy(model, model, task, mask, settings)


def _taught(
    teacher: nn.Module | None, task: ImageTask, distiller: Distiller, settings: ImageTrainSettings
) -> Teacher | None:
    if teacher is None:
        return None
    live = Live(teacher, settings, maps=distiller.reads_maps)
    if not settings.cache_teacher:
        return live
    if distiller.reads_maps:
        raise UserError("cache_teacher keeps logits, and this method reads the teacher's features too; leave it out")
    return Cached(live, task.y.numel(), task.augment.views, task.n_classes, task.y.device)


@torch.no_grad()
def _lesson(
    model: nn.Module, task: ImageTask, teacher: nn.Module | None, settings: ImageTrainSettings, seed: int
) -> Lesson:
    (batch,) = islice(task.scan(task.split.train, PROBE), 1)
    shown: Output = model.eval()(batch.x, None)
    taught: Output | None = None if teacher is None else teacher.eval()(batch.x, None)
    return Lesson(
        student=shown,
        teacher=taught,
        norms=() if teacher is None else norms(teacher),
        y=torch.where(task.split.train, task.y, UNKNOWN),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        seed=seed,
    )


def norms(teacher: nn.Module) -> tuple[Norm | None, ...]:
    """Scale and shift of the batch norm before each map's activation."""
    found: Sequence[nn.BatchNorm2d | None] = teacher.norms() if hasattr(teacher, "norms") else ()  # type: ignore[operator]
    return tuple(None if norm is None else (norm.weight.detach(), norm.bias.detach()) for norm in found)
