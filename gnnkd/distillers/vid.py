"""Variational information distillation: the student's features tell much about the teacher's.

S. Ahn, S. X. Hu, A. Damianou, N. D. Lawrence, Z. Dai, "Variational information distillation for knowledge transfer",
CVPR 2019, equations 4 to 6.

Departures: the variances are learnt, as in the paper; a widespread code leaves them out of the optimizer. Stages are
paired from the deepest where two networks have different numbers of them.
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.losses import full_precision
from gnnkd.distillers.maps import MapDistiller, one_size, precise, stages
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.types import Batch, Output

EPS = 1e-5
"""Smallest variance."""


@final
class Vid(MapDistiller):
    """`CE + weight * sum over stages of mean ((mu(f_s) - f_t)^2 / v + log v) / 2`, v a variance for each channel.

    Args:
        weight: of the term `vid`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
        variance: of all channels before the first step, at least 1e-4.
    """

    def __init__(self, *, weight: Weight = 1.0, warmup: int = 0, variance: float = 5.0) -> None:
        super().__init__({"vid": Schedule.of("weight", weight)}, warmup)
        self.variance = at_least("variance", variance, 1e-4)

    def prepare(self, lesson: Lesson) -> None:
        """Make a regressor with variances for every pair of stages."""
        assert lesson.teacher is not None
        pairs = stages(lesson.student, lesson.teacher)
        self.part = nn.ModuleList(Gaussian(s.shape[1], t.shape[1], self.variance) for s, t in pairs)

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The sum over all stages after the stem."""
        part = self.prepared()
        assert isinstance(part, nn.ModuleList)
        losses = []
        for gaussian, pair in zip(part, stages(student, teacher), strict=True):
            assert isinstance(gaussian, Gaussian)
            given, wanted = one_size(*pair)
            losses.append(negative_log_likelihood(gaussian(full_precision(given)), wanted, gaussian.raw_variance))
        return torch.stack(losses).sum()


@precise
def negative_log_likelihood(
    mean: Float[Tensor, "N K H W"], value: Float[Tensor, "N K H W"], raw_variance: Float[Tensor, " K"]
) -> Float[Tensor, ""]:
    """`mean ((mean - value)^2 / v + log v) / 2` with `v = softplus(raw_variance) + 1e-5` of each channel."""
    v = (F.softplus(raw_variance) + EPS)[:, None, None]
    return 0.5 * ((mean - value).square() / v + v.log()).mean()


@final
class Gaussian(nn.Module):
    """The teacher's map given the student's: mean from three 1x1 convolutions, one variance for each channel."""

    def __init__(self, given: int, wanted: int, variance: float) -> None:
        super().__init__()
        widths = ((given, wanted), (wanted, wanted), (wanted, wanted))
        convs = [nn.Conv2d(i, o, 1, bias=False) for i, o in widths]
        self.mean = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        soft = variance - EPS  # the inverse of softplus, in a form that does not overflow
        self.raw_variance = nn.Parameter(torch.full((wanted,), soft + math.log(-math.expm1(-soft))))

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N _ H W"]:
        """The mean."""
        return self.mean(x)  # type: ignore[no-any-return]
