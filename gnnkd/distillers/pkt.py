"""Probabilistic knowledge transfer: the same images are each other's neighbours for both networks.

N. Passalis, A. Tefas, "Learning deep representations with probabilistic knowledge transfer", ECCV 2018, equation 7 with
the cosine kernel of equation 6.

Departures: the mean over all pairs of images and an epsilon inside the logarithm, as in the authors' code.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.maps import MapDistiller, pooled, precise
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.types import Batch, Output

EPS = 1e-7


@final
class Pkt(MapDistiller):
    """`CE + weight * mean over i, j of t_ij log(t_ij / s_ij)`, of the neighbourhoods s, t of the pooled features.

    Args:
        weight: of the term `pkt`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
    """

    def __init__(self, *, weight: Weight = 30000.0, warmup: int = 0) -> None:
        super().__init__({"pkt": Schedule.of("weight", weight)}, warmup)

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The divergence of the pooled features' neighbourhoods."""
        return neighbourhood_loss(pooled(student), pooled(teacher))


@precise
def neighbourhood_loss(student: Float[Tensor, "N K"], teacher: Float[Tensor, "N J"]) -> Float[Tensor, ""]:
    """`mean over i, j of t_ij log((t_ij + eps) / (s_ij + eps))`."""
    s, t = neighbourhood(student), neighbourhood(teacher)
    return (t * ((t + EPS) / (s + EPS)).log()).mean()


def neighbourhood(x: Float[Tensor, "N K"]) -> Float[Tensor, "N N"]:
    """Cosines between rows, mapped to [0, 1], divided by their sum in each row."""
    unit = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPS)
    kernel = (unit @ unit.mT + 1) / 2
    shares: Tensor = kernel / kernel.sum(1, keepdim=True)
    return shares
