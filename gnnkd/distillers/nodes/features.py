"""What methods of hidden features on graphs share: the terms beside their own, and projectors into one space."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, final

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gnnkd.distillers.base import SAMPLED, TASK, Distiller, Lesson
from gnnkd.distillers.losses import cross_entropy, full_precision, soft_kl
from gnnkd.distillers.maps import pooled
from gnnkd.distillers.ranges import above_zero, at_least, fraction
from gnnkd.errors import UserError
from gnnkd.nn.kept import Kept
from gnnkd.types import Batch, Output, Step


class FeatureDistiller(Distiller):
    """`label_weight CE + kd_weight T^2 KL + weight * term` of the rows that the last weight matrices multiply.

    CE is of labelled rows, KL of all. A term of weight zero is not computed.

    Args:
        name: of the method's term.
        weight: of it, at least 0.
        label_weight: of the cross-entropy, in [0, 1].
        kd_weight: of the divergence of soft labels, at least 0.
        temperature: of that divergence, above 0, in units of logits.
    """

    batches = SAMPLED
    reads_maps = True
    graphs: ClassVar[bool] = True
    least_layers: ClassVar[int] = 2
    dim: int | None = None
    """Units of the space into which a projector each takes both networks' features; None for no projectors."""

    def __init__(self, name: str, *, weight: float, label_weight: float, kd_weight: float, temperature: float) -> None:
        self.name = name
        self.weight = at_least("weight", weight, 0)
        self.label_weight = fraction("label_weight", label_weight)
        self.kd_weight = at_least("kd_weight", kd_weight, 0)
        self.temperature = above_zero("temperature", temperature)
        self._taught: Kept[Tensor] = Kept()
        if not (self.weight or self.label_weight or self.kd_weight):
            raise ValueError("method.weight, method.label_weight and method.kd_weight are 0; one must be above 0")

    def prepare(self, lesson: Lesson) -> None:
        """Check that there are features that the student learns, and make the projectors.

        Raises:
            UserError: the student has one weight matrix, and what that multiplies does not learn.
        """
        if len(lesson.student.hidden) < 2:
            raise UserError(
                "this method compares hidden rows, and the student has one weight matrix alone; give it two layers or "
                "more, or choose a method of logits such as glnn"
            )
        super().prepare(lesson)
        if self.dim is not None:
            self.part = Projectors.of(lesson, self.dim)

    @abstractmethod
    def term(
        self, batch: Batch, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], step: Step
    ) -> Float[Tensor, ""]:
        """The method's own term before its weight, of both networks' features; the teacher's have no gradient.

        As long as the teacher shows the same features, they are the same object.
        """

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce`, `kd` and the method's own."""
        assert teacher is not None
        terms = {}
        if self.label_weight:
            terms[TASK] = self.label_weight * cross_entropy(student.logits, batch.y)
        if self.kd_weight:
            pair = full_precision(student.logits), full_precision(teacher.logits.detach())
            terms["kd"] = self.kd_weight * soft_kl(*pair, self.temperature)
        if self.weight:
            shown = pooled(teacher)
            taught = self._taught.of(lambda: full_precision(shown.detach()), shown)
            terms[self.name] = self.weight * self.term(batch, full_precision(pooled(student)), taught, step)
        return terms


def compared(batch: Batch, *, labelled: bool) -> Bool[Tensor, " N"]:
    """The rows that a method compares: the labelled ones alone, or all."""
    return batch.labelled if labelled else batch.labelled.new_ones(batch.labelled.shape)


def projector(inputs: int, outputs: int) -> nn.Sequential:
    """Linear, batch norm, ReLU."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())


@final
class Projectors(nn.Module):
    """Linear, batch norm and ReLU for each network, into one space; both train with the student.

    Args:
        given: features of the student.
        wanted: features of the teacher.
        dim: of the space.
    """

    def __init__(self, given: int, wanted: int, dim: int) -> None:
        super().__init__()
        self.student, self.teacher = projector(given, dim), projector(wanted, dim)

    @staticmethod
    def of(lesson: Lesson, dim: int) -> Projectors:
        """Projectors for the features that a lesson shows."""
        assert lesson.teacher is not None
        return Projectors(pooled(lesson.student).shape[1], pooled(lesson.teacher).shape[1], dim)

    def forward(
        self, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], *, sphere: bool
    ) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N K"]]:
        """Both networks' features, each row of length 1 (or 0) if `sphere`; two rows at least, as batch norm needs."""
        both = self.student(student), self.teacher(teacher)
        return (F.normalize(both[0], dim=1), F.normalize(both[1], dim=1)) if sphere else both
