"""Attention transfer: where the student's stages are active is where the teacher's are.

S. Zagoruyko, N. Komodakis, "Paying more attention to attention", ICLR 2017, equation 2.

Departures: the mean square of the differences, as the authors' code has it, where the equation has the norm; stages are
paired from the deepest where two networks have different numbers of them.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.maps import Map, MapDistiller, Pairs, one_size, precise, stages
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.types import Batch, Output


@final
class At(MapDistiller):
    """`CE + weight * sum over stages of mean (a(f_s) - a(f_t))^2`, `a(f) = l2 normalised mean over channels of |f|^p`.

    Args:
        weight: of the term `at`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
        p: the power, at least 1.
    """

    def __init__(self, *, weight: Weight = 1000.0, warmup: int = 0, p: int = 2) -> None:
        super().__init__({"at": Schedule.of("weight", weight)}, warmup)
        self.p = int(at_least("p", p, 1))

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The sum over all stages after the stem."""
        return attention_loss(stages(student, teacher), self.p)


@precise
def attention_loss(pairs: Pairs, p: int) -> Float[Tensor, ""]:
    """`sum over pairs of mean (a(f_s) - a(f_t))^2`, the larger map of a pair pooled first."""
    losses = []
    for pair in pairs:
        student, teacher = one_size(*pair)
        losses.append((attention(student, p) - attention(teacher, p)).square().mean())
    return sum(losses[1:], start=losses[0])


def attention(f: Map, p: int) -> Float[Tensor, "N _"]:
    """`mean over channels of |f|^p` at every pixel, l2 normalised in each image."""
    return F.normalize(f.abs().pow(p).mean(1).flatten(1), dim=1)
