"""Knowledge review: all deeper stages of the student together, fused one by one, learn from a stage of the teacher.

P. Chen, S. Liu, H. Zhao, J. Jia, "Distilling knowledge via knowledge review", CVPR 2021, equations 7 and 8, figure 3.

Departures: widths and sizes of all levels come from the networks' own shapes; levels are paired from the deepest where
two networks have different numbers of them.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.losses import full_precision
from gnnkd.distillers.maps import Map, MapDistiller, Pairs, paired, pooled, precise
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.types import Batch, Output

WIDEST = 512
"""Channels of the fused features at most."""


@final
class ReviewKd(MapDistiller):
    """`CE + weight * sum over levels of HCL(fused f_s, f_t)`; levels are the stages after the stem and the pooled row.

    The teacher's stages are those before their activation. Published weights of pairs of networks: 0.6 to 8.

    Args:
        weight: of the term `reviewkd`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
        preact: read the student's stages before their activation too.
    """

    def __init__(self, *, weight: Weight = 1.0, warmup: int = 20, preact: bool = False) -> None:
        super().__init__({"reviewkd": Schedule.of("weight", weight)}, warmup)
        self.preact = preact

    def prepare(self, lesson: Lesson) -> None:
        """Make the fusions from the shapes of all levels."""
        assert lesson.teacher is not None
        pairs = self._levels(lesson.student, lesson.teacher)
        width = min(WIDEST, pairs[-1][0].shape[1])
        last = len(pairs) - 1
        self.part = nn.ModuleList(Fusion(s.shape[1], width, t.shape[1], i < last) for i, (s, t) in enumerate(pairs))

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The sum over all levels, from the deepest to the first."""
        part = self.prepared()
        assert isinstance(part, nn.ModuleList)
        losses = []
        fused: Tensor | None = None
        for fusion, (given, wanted) in reversed(list(zip(part, self._levels(student, teacher), strict=True))):
            found, fused = fusion(full_precision(given), fused, wanted.shape[2:])
            losses.append(hierarchical_loss(found, wanted))
        return torch.stack(losses).sum()

    def _levels(self, student: Output, teacher: Output) -> Pairs:
        maps = student.raw_maps if self.preact else student.maps
        return paired(
            (*maps[1:], pooled(student)[:, :, None, None]),
            (*teacher.raw_maps[1:], pooled(teacher)[:, :, None, None]),
            least=2,
        )


@precise
def hierarchical_loss(student: Float[Tensor, "N K H W"], teacher: Float[Tensor, "N K H W"]) -> Float[Tensor, ""]:
    """Mean squared errors of the maps and of their means over 4x4, 2x2 and 1x1 windows of the image.

    Weights 1, 1/2, 1/4, 1/8 over their sum; a number of windows that is not below the height is left out.
    """
    total, losses = 1.0, [F.mse_loss(student, teacher)]
    for n in (4, 2, 1):
        if n < student.shape[2]:
            weight = 0.5 ** len(losses)
            losses.append(weight * F.mse_loss(_means(student, n), _means(teacher, n)))
            total += weight
    return torch.stack(losses).sum() / total


def _means(x: Map, n: int) -> Map:
    return F.adaptive_avg_pool2d(x, (n, n))


@final
class Fusion(nn.Module):
    """Attention-based fusion of a level with the fused features of the one below it in the image's size.

    Args:
        given: channels of the student's level.
        width: channels of the fused features.
        wanted: channels of the teacher's level.
        fuse: False for the deepest level, which has nothing to be fused with.
    """

    def __init__(self, given: int, width: int, wanted: int, fuse: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(given, width, 1, bias=False), nn.BatchNorm2d(width))
        self.attention = nn.Conv2d(2 * width, 2, 1) if fuse else None
        self.output = nn.Sequential(nn.Conv2d(width, wanted, 3, padding=1, bias=False), nn.BatchNorm2d(wanted))
        for layers in (self.narrow, self.output):
            nn.init.kaiming_uniform_(layers.get_parameter("0.weight"), a=1)

    def forward(self, x: Map, deeper: Map | None, size: torch.Size) -> tuple[Map, Map]:
        """The level as the teacher's [N, wanted, *size], and the fused features for the level above."""
        x = self.narrow(x)
        if self.attention is not None:
            assert deeper is not None
            deeper = F.interpolate(deeper, x.shape[2:], mode="nearest")
            gates = torch.sigmoid(self.attention(torch.cat([x, deeper], dim=1)))
            x = x * gates[:, :1] + deeper * gates[:, 1:]
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="nearest")
        return self.output(x), x
