"""FitNet: the student's features of one stage, through a small regressor, are those of the teacher.

A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio, "FitNets: hints for thin deep nets", ICLR 2015,
equation 3.

Departures: hint and cross-entropy together from the first step, as common benchmarks have it, where the paper trains up
to the hint first. A map smaller than the teacher's, and not half its size, is enlarged before a 1x1 convolution;
the published code has no regressor for it.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.losses import full_precision
from gnnkd.distillers.maps import MapDistiller, paired, precise, resized
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.errors import UserError
from gnnkd.types import Batch, Output


@final
class FitNet(MapDistiller):
    """`CE + weight * mean (ReLU(BN(conv(f_s))) - f_t)^2` at stage `hint`.

    Args:
        weight: of the term `fitnet`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
        hint: the stage, 0 for the stem; counted in the shorter of the two networks, deepest stages aligned.
    """

    def __init__(self, *, weight: Weight = 100.0, warmup: int = 0, hint: int = 2) -> None:
        super().__init__({"fitnet": Schedule.of("weight", weight)}, warmup)
        self.hint = int(at_least("hint", hint, 0))

    def prepare(self, lesson: Lesson) -> None:
        """Make the regressor from the two shapes.

        Raises:
            UserError: `hint` is beyond the last stage.
        """
        assert lesson.teacher is not None
        pairs = paired(lesson.student.maps, lesson.teacher.maps)
        if self.hint >= len(pairs):
            raise UserError(f"method.hint is {self.hint}; these two networks share the stages 0 to {len(pairs) - 1}")
        student, teacher = pairs[self.hint]
        self.part = Regressor(_shape(student), _shape(teacher))

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The mean squared error."""
        given, wanted = paired(student.maps, teacher.maps)[self.hint]
        return mean_square(self.prepared()(full_precision(given)), wanted)


@precise
def mean_square(student: Float[Tensor, "N K H W"], teacher: Float[Tensor, "N K H W"]) -> Float[Tensor, ""]:
    """`mean (s - t)^2`."""
    return F.mse_loss(student, teacher)


@final
class Regressor(nn.Module):
    """A convolution from one shape [K, H, W] to another, batch norm and ReLU."""

    def __init__(self, student: tuple[int, int, int], teacher: tuple[int, int, int]) -> None:
        super().__init__()
        (given, *sizes), (wanted, *targets) = student, teacher
        self.size: tuple[int, int] | None = None
        self.conv: nn.Module
        if all(s == 2 * t for s, t in zip(sizes, targets, strict=True)):
            self.conv = nn.Conv2d(given, wanted, 3, stride=2, padding=1)
        elif all(2 * s == t for s, t in zip(sizes, targets, strict=True)):
            self.conv = nn.ConvTranspose2d(given, wanted, 4, stride=2, padding=1)
        elif all(s >= t for s, t in zip(sizes, targets, strict=True)):
            self.conv = nn.Conv2d(given, wanted, (1 + sizes[0] - targets[0], 1 + sizes[1] - targets[1]))
        else:
            self.conv, self.size = nn.Conv2d(given, wanted, 1), (targets[0], targets[1])
        self.norm = nn.BatchNorm2d(wanted)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N _ _ _"]:
        """The student's map in the shape of the teacher's."""
        return F.relu(self.norm(self.conv(x if self.size is None else resized(x, self.size))))


def _shape(x: Tensor) -> tuple[int, int, int]:
    return x.shape[1], x.shape[2], x.shape[3]
