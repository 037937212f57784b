"""Neuron selectivity transfer: the channels of both networks are alike as sets of patterns over the image.

Z. Huang, N. Wang, "Like what you like: knowledge distill via neuron selectivity transfer", 2017, equation 6 with the
polynomial kernel of degree 2.

Departures: stages are paired from the deepest where two networks have different numbers of them. The kernel's mean over
pairs of channels is found from [HW, HW] matrices where those are smaller: the value is the same.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.maps import MapDistiller, Pairs, one_size, precise, stages
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.types import Batch, Output


@final
class Nst(MapDistiller):
    """`CE + weight * sum over stages of mean k(t, t) + mean k(s, s) - 2 mean k(s, t)`, `k(x, y) = (x . y)^2`.

    The means run over images and pairs of channels, a channel being its l2 normalised row of pixels.

    Args:
        weight: of the term `nst`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
    """

    def __init__(self, *, weight: Weight = 50.0, warmup: int = 0) -> None:
        super().__init__({"nst": Schedule.of("weight", weight)}, warmup)

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The sum over all stages after the stem."""
        return selectivity_loss(stages(student, teacher))


@precise
def selectivity_loss(pairs: Pairs) -> Float[Tensor, ""]:
    """`sum over pairs of mean k(t, t) + mean k(s, s) - 2 mean k(s, t)`, the larger map of a pair pooled first."""
    losses = []
    for pair in pairs:
        s, t = (F.normalize(f.flatten(2), dim=2) for f in one_size(*pair))
        losses.append(over_pixels(s, t) if s.shape[2] < max(s.shape[1], t.shape[1]) else over_channels(s, t))
    return sum(losses[1:], start=losses[0])


def over_channels(s: Float[Tensor, "N K P"], t: Float[Tensor, "N J P"]) -> Float[Tensor, ""]:
    """The discrepancy from the kernel matrices of channels; memory `N max(K, J)^2`."""
    tt, ss, st = (a @ b.mT for a, b in ((t, t), (s, s), (s, t)))
    return tt.square().mean() + ss.square().mean() - 2 * st.square().mean()


def over_pixels(s: Float[Tensor, "N K P"], t: Float[Tensor, "N J P"]) -> Float[Tensor, ""]:
    """The same from the Gram matrices of pixels; memory `N P^2`.

    `sum_ij (x_i . y_j)^2 = ||X Y^T||^2 = <X^T X, Y^T Y>`, so the three means are `||T^T T / J - S^T S / K||^2 / N`.
    """
    difference = t.mT @ t / t.shape[1] - s.mT @ s / s.shape[1]
    return difference.square().sum() / s.shape[0]
