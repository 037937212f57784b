"""The two stages on images: a teacher is trained or read, then a student beside it; no files but checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.data.image_task import ImageTask
from gnnkd.distillers.base import Distiller
from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError
from gnnkd.images import networks, weights
from gnnkd.images.config import ImageConfig, Published
from gnnkd.images.predictor import ImagePredictor
from gnnkd.nn.images import ImageNetwork
from gnnkd.places import Place, read_json
from gnnkd.train.fit import Fit
from gnnkd.train.fit import Progress as Reached
from gnnkd.train.images import image_fit
from gnnkd.train.progress import Progress
from gnnkd.train.seeding import seeded


@final
@dataclass(frozen=True)
class Trained:
    """A network of either stage with its kept weights; `reached` is None where it was not trained here.

    `part` are the tensors of the method's own part after the last epoch, where the method keeps it.
    """

    predictor: ImagePredictor
    reached: Reached | None
    part: Mapping[str, Tensor] | None = None


def check(task: ImageTask, config: ImageConfig, *, student: bool) -> None:
    """Refuse, before a teacher is trained, what would fail later: what both stages need is made, and shown images.

    Args:
        student: whether a student will be trained, too.

    Raises:
        UserError: there is no such network at this size, the method does not fit the two of them, or a setting of
            training would do nothing.
    """
    _check_idle(task, config, student=student)
    with seeded(task):
        teacher = _built("teacher", config.teacher_model, config.teacher, task).to(task.y.device)
        with torch.no_grad():
            teacher.eval()(torch.zeros(2, task.in_channels, task.size, task.size, device=task.y.device))
        if config.published is not None:
            _read(config.published, teacher)
        if student:
            network = _built("student", config.student_model, config.student, task).to(task.y.device)
            _fit(network, task, config, _distiller(config), teacher, "student", None)


def _check_idle(task: ImageTask, config: ImageConfig, *, student: bool) -> None:
    trained = ({} if config.published else {"teacher": config.teacher_train}) | (
        {"student": config.student_train} if student else {}
    )
    for role, settings in trained.items():
        if settings.patience and not bool(task.split.val.any()):
            raise UserError(
                f"{role}.patience is {settings.patience}, and no image validates, so that training would never stop "
                "early; leave it out, or let images validate with --val_fraction"
            )
    if student and config.student_train.cache_teacher and not _distiller(config).needs_teacher:
        raise UserError(f"cache_teacher keeps a teacher's logits, and {config.method} asks no teacher; leave it out")


def _built(role: str, name: str, given: Mapping[str, Any], task: ImageTask) -> ImageNetwork:
    try:
        return networks.built(name, task.size, task.in_channels, task.n_classes, dict(given))
    except UserError as mistake:
        raise UserError(f"{role}: {mistake}") from None


def train_teacher(
    task: ImageTask, config: ImageConfig, progress: Progress, *, place: Place | None = None, resume: bool = False
) -> Trained:
    """Train a teacher on the training labels, or read its published weights.

    Raises:
        UserError: the published file is of another network.
    """
    with seeded(task):
        network = _built("teacher", config.teacher_model, config.teacher, task).to(task.y.device)
        if config.published is not None:
            _read(config.published, network)
            return Trained(_predictor(network.eval(), config.teacher_model, config.teacher, task), None)
        fit = _fit(network, task, config, Supervised(), None, "teacher", place)
        title = f"teacher {config.teacher_model}, seed {task.seed}"
        reached = _run(fit, progress, title, resume=resume)
    return Trained(_predictor(network.eval(), config.teacher_model, config.teacher, task), reached)


def _read(published: Published, network: ImageNetwork) -> None:
    network.load_state_dict(weights.fit(weights.read(published.file), network, published.file))


def train_student(
    task: ImageTask,
    config: ImageConfig,
    teacher: ImageNetwork,
    progress: Progress,
    *,
    place: Place | None = None,
    resume: bool = False,
) -> Trained:
    """Train a student by the configured method beside a frozen teacher.

    Raises:
        UserError: two networks or options that do not fit the method.
    """
    distiller = _distiller(config)
    with seeded(task):
        network = _built("student", config.student_model, config.student, task).to(task.y.device)
        fit = _fit(network, task, config, distiller, teacher.to(task.y.device), "student", place)
        title = f"student {config.student_model} by {config.method}, seed {task.seed}"
        reached = _run(fit, progress, title, resume=resume)
    predictor = _predictor(network.eval(), config.student_model, config.student, task)
    return Trained(predictor, reached, _kept(config, distiller))


def _kept(config: ImageConfig, distiller: Distiller) -> dict[str, Tensor] | None:
    """The part is a wrapper's base's; whether it is worth keeping is for the method to say that made it."""
    names = [name for name in (config.method, config.base) if name is not None]
    keeps = any(distillers.methods()[name].keeps_part for name in names)
    return dict(distiller.part.state_dict()) if keeps and distiller.part is not None else None


def _distiller(config: ImageConfig) -> Distiller:
    chosen = {name: value for name, value in config.options.items() if name != "base"}
    return distillers.build(config.method, base=config.base or "auto", student_needs_graph=True, **chosen)


def _fit(
    network: ImageNetwork,
    task: ImageTask,
    config: ImageConfig,
    distiller: Distiller,
    teacher: ImageNetwork | None,
    role: str,
    place: Place | None,
) -> Fit:
    return image_fit(
        network,
        task,
        distiller,
        teacher,
        config.teacher_train if role == "teacher" else config.student_train,
        seed=task.seed,
        file=place.checkpoint if place else None,
        key=json.dumps(read_json(place.config), sort_keys=True) if place else "",
        track_test=config.best_on_test,
    )


def _predictor(network: ImageNetwork, name: str, given: Mapping[str, Any], task: ImageTask) -> ImagePredictor:
    return ImagePredictor(network, name, given, task.classes, task.mean, task.std, task.size, task.in_channels)


def _run(fit: Fit, progress: Progress, title: str, *, resume: bool) -> Reached:
    if resume and fit.file is not None and fit.file.exists():
        fit.restore()
    with progress.stage(title, fit.settings.epochs) as bar:
        return fit.run(bar)
