"""Barlow Twins: each feature of one view agrees with itself in the other view, and with no other feature.

J. Zbontar, L. Jing, I. Misra, Y. LeCun, S. Deny, "Barlow Twins: self-supervised learning via redundancy reduction",
ICML 2021, equations 1 and 2.

Departures: layers of the paper's width only behind as many features (see `heads.width`).
"""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.ranges import above_zero, at_least
from gnnkd.selfsup.heads import mlp, width
from gnnkd.selfsup.objectives.base import Objective, halves
from gnnkd.types import Batch, Output, Step

PUBLISHED_WIDTH = 8192
_LEAST_VARIANCE = 1e-5


def correlations(first: Float[Tensor, "N K"], second: Float[Tensor, "N K"]) -> Float[Tensor, "K K"]:
    """Pearson correlation of each column of `first` with each of `second` over the batch."""
    return _standardised(first).mT @ _standardised(second) / len(first)


def _standardised(z: Tensor) -> Tensor:
    return (z - z.mean(0)) * (z.var(0, correction=0) + _LEAST_VARIANCE).rsqrt()


def redundancy(c: Float[Tensor, "K K"], weight: float) -> Float[Tensor, ""]:
    """`sum_i (1 - c_ii)^2 + weight sum_{i != j} c_ij^2`."""
    own = c.diagonal()
    return (1 - own).square().sum() + weight * (c - own.diag()).square().sum()


@final
class BarlowTwins(Objective):
    """Invariance and redundancy of features.

    Args:
        weight: of the redundancy, >= 0.
        scale: of the whole, above 0. LARS gives a bias of length 0 its plain gradient as first step: that of a sum over
            so many features would be large enough to leave no unit alive.
        hidden: width of the projector's hidden layers and of the projections, >= 1; None is four times the features, at
            most 8192.
    """

    def __init__(self, *, weight: float = 0.005, scale: float = 0.024, hidden: int | None = None) -> None:
        self.weight, self.scale = at_least("weight", weight, 0), above_zero("scale", scale)
        self.hidden = None if hidden is None else int(at_least("hidden", hidden, 1))

    def projector(self, features: int) -> nn.Module:
        """Three linear layers, batch norms between them."""
        wide = width(self.hidden, features, PUBLISHED_WIDTH)
        return mlp([features, wide, wide, wide], norm=True, last_bias=False)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `barlow`, at least 0."""
        return {"barlow": self.scale * redundancy(correlations(*halves(student)), self.weight)}
