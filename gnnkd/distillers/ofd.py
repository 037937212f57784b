"""Overhaul of feature distillation: features before the ReLU, of which only what passes it is the teacher's to say.

B. Heo, J. Kim, S. Yun, H. Park, N. Kwak, J. Y. Choi, "A comprehensive overhaul of feature distillation", ICCV 2019,
equations 2 to 5.

Departures: the teacher's map is pooled to the student's where sizes differ; stages are paired from the deepest where
two networks have different numbers of them.
"""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.losses import full_precision
from gnnkd.distillers.maps import MapDistiller, paired, precise, resized
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.errors import UserError
from gnnkd.types import Batch, Output

RARE = 1e-3
"""Below this probability of a negative value the margin is three standard deviations below zero."""


@final
class Ofd(MapDistiller):
    """`CE + weight * sum over stages i of d(BN(conv(f_s)), f_t) / 2^(n - 1 - i)`, of features before the ReLU.

    Args:
        weight: of the term `ofd`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
    """

    def __init__(self, *, weight: Weight = 1e-3, warmup: int = 0) -> None:
        super().__init__({"ofd": Schedule.of("weight", weight)}, warmup)

    def prepare(self, lesson: Lesson) -> None:
        """Make a connector for every pair of stages, and its margins from the teacher's batch norms.

        Raises:
            UserError: a stage of the teacher has no batch norm before its activation, or no activation.
        """
        assert lesson.teacher is not None
        pairs = paired(lesson.student.raw_maps[1:], lesson.teacher.raw_maps[1:])
        first = len(lesson.norms) - len(pairs)
        connectors = []
        for stage, (student, _) in enumerate(pairs, start=first):
            norm = lesson.norms[stage]
            if norm is None:
                raise UserError(
                    f"method ofd needs a batch norm before the activation of each of the teacher's stages and stage "
                    f"{stage} has none; choose another teacher, or a method without margins such as fitnet"
                )
            if torch.equal(lesson.teacher.raw_maps[stage], lesson.teacher.maps[stage]):
                raise UserError(
                    f"method ofd reads what each of the teacher's stages shows before its activation and stage {stage} "
                    "ends without one; choose another teacher, or a method without margins such as fitnet"
                )
            connectors.append(Connector(student.shape[1], margins(*norm)))
        self.part = nn.ModuleList(connectors)

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The sum over all stages after the stem, a stage counting half of the one after it."""
        part = self.prepared()
        assert isinstance(part, nn.ModuleList)
        pairs = paired(student.raw_maps[1:], teacher.raw_maps[1:])
        losses = []
        for connector, (given, wanted) in zip(part, pairs, strict=True):
            assert isinstance(connector, Connector)
            found = connector(full_precision(given))
            wanted = resized(full_precision(wanted), (given.shape[2], given.shape[3]))
            losses.append(partial_square(found, wanted, connector.margin))
        return torch.stack([loss / 2**depth for depth, loss in enumerate(reversed(losses))]).sum()


@precise
def partial_square(
    student: Float[Tensor, "N K H W"], teacher: Float[Tensor, "N K H W"], margin: Float[Tensor, " K"]
) -> Float[Tensor, ""]:
    """`mean over images of the sum of (s - max(t, m))^2`, where `t > 0` or `s > max(t, m)`, and 0 elsewhere.

    A teacher's value above zero is to be met. One below, which the ReLU cuts, is to be met from above only, and one
    below the margin `m < 0` counts as the margin.
    """
    target = torch.maximum(teacher, margin[:, None, None])
    counts = (teacher > 0) | (student > target)
    return torch.where(counts, (student - target).square(), 0).mean(0).sum()


def margins(scale: Float[Tensor, " K"], shift: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    """`E[x | x < 0]` of `x ~ Normal(b, g^2)`, `b` the shift and `g` the scale of a batch norm.

    It is `b - |g| phi(b / |g|) / Phi(-b / |g|)`, with phi, Phi the density and distribution of Normal(0, 1);
    `-3 |g|` where negative values are rarer than 0.001.
    """
    g, b = scale.double().abs(), shift.double()
    z = b / g.clamp(min=1e-30)
    negative = torch.special.ndtr(-z)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return torch.where(negative > RARE, b - g * density / negative.clamp(min=RARE), -3 * g).float()


@final
class Connector(nn.Module):
    """A 1x1 convolution and batch norm from the student's channels to the teacher's, with the teacher's margins."""

    margin: Tensor

    def __init__(self, given: int, margin: Float[Tensor, " K"]) -> None:
        super().__init__()
        wanted = margin.numel()
        self.conv = nn.Conv2d(given, wanted, 1, bias=False)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / wanted))
        self.norm = nn.BatchNorm2d(wanted)
        self.register_buffer("margin", margin)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N _ H W"]:
        """The student's map with the channels of the teacher's."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]
