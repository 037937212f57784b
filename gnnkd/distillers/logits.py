"""What methods that read nothing of a teacher but its logits have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.distillers.base import TASK, Distiller
from gnnkd.distillers.losses import cross_entropy, full_precision
from gnnkd.distillers.ranges import above_zero, at_least
from gnnkd.distillers.schedule import Schedule, Weight, ramp
from gnnkd.types import Batch, Output, Step


class LogitDistiller(Distiller):
    """`ce_weight CE + ramp kd_weight distill(student logits, teacher logits)`, the ramp rising over the warm-up.

    Terms whose weight is 0 at every epoch are not computed; so the names of the terms never change within a training.
    """

    graphs: ClassVar[bool] = False
    images: ClassVar[bool] = True

    shares: Mapping[str, object] = MappingProxyType({})
    """Options that the user has given and that say `kd_weight` in other words, by name."""

    def __init__(self, *, ce_weight: Weight, temperature: float, warmup: int, kd_weight: Weight = 1.0) -> None:
        self.ce_weight = Schedule.of("ce_weight", ce_weight)
        self.kd_weight = Schedule.of("kd_weight", kd_weight)
        self.temperature = above_zero("temperature", temperature)
        self.warmup = int(at_least("warmup", warmup, 0))

    @abstractmethod
    def distill(
        self, student: Float[Tensor, "N C"], teacher: Float[Tensor, "N C"], y: Int[Tensor, " N"], step: Step
    ) -> dict[str, Tensor]:
        """The teacher's terms by name, before `kd_weight` and warm-up; logits come in float32 at least."""

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `ce` and those of `distill`."""
        assert teacher is not None
        logits = full_precision(student.logits)
        taught = self.taught(logits, full_precision(teacher.logits), batch.y, step)
        return self.task(logits, batch.y, step) | taught

    def task(self, logits: Float[Tensor, "N C"], y: Int[Tensor, " N"], step: Step) -> dict[str, Tensor]:
        """The weighted cross-entropy."""
        return {} if self.ce_weight.never else {TASK: self.ce_weight.at(step) * cross_entropy(logits, y)}

    def taught(
        self, student: Float[Tensor, "N C"], teacher: Float[Tensor, "N C"], y: Int[Tensor, " N"], step: Step
    ) -> dict[str, Tensor]:
        """The weighted terms of `distill`."""
        if self.kd_weight.never:
            return {}
        weight = self.kd_weight.at(step) * ramp(self.warmup, step)
        return {name: weight * term for name, term in self.distill(student, teacher, y, step).items()}
