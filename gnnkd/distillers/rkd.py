"""Relational knowledge distillation: distances between two images and angles among three are those of the teacher.

W. Park, D. Kim, Y. Lu, M. Cho, "Relational knowledge distillation", CVPR 2019, equations 4 to 9.

Departures: three images of which two have one place have no angle; the published code divides by a norm of zero there.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.maps import MapDistiller, pooled, precise
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.types import Batch, Output

EPS = 1e-12
"""Smallest squared distance."""


@final
class Rkd(MapDistiller):
    """`CE + distance_weight * L_D + angle_weight * L_A`, Huber losses of distances and cosines of the pooled features.

    Angles of a batch take `N^2 max(K, N)` numbers.

    Args:
        distance_weight: of the term `distance`, at least 0, or pairs [epoch, weight].
        angle_weight: of the term `angle`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which both terms grow to their weights, at least 0; 0 is none.
    """

    def __init__(self, *, distance_weight: Weight = 25.0, angle_weight: Weight = 50.0, warmup: int = 0) -> None:
        weights = {"distance": Schedule.of("distance_weight", distance_weight)}
        super().__init__(weights | {"angle": Schedule.of("angle_weight", angle_weight)}, warmup)

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The loss of distances or of angles."""
        of = {"distance": distance_loss, "angle": angle_loss}[name]
        return of(pooled(student), pooled(teacher))


@precise
def distance_loss(student: Float[Tensor, "N K"], teacher: Float[Tensor, "N J"]) -> Float[Tensor, ""]:
    """Mean over pairs of the Huber loss of distances, in units of the mean distance."""
    return F.smooth_l1_loss(distances(student), distances(teacher))


@precise
def angle_loss(student: Float[Tensor, "N K"], teacher: Float[Tensor, "N J"]) -> Float[Tensor, ""]:
    """Mean over triples of the Huber loss of the cosine of the angle at the first of three rows."""
    return F.smooth_l1_loss(angles(student), angles(teacher))


def distances(x: Float[Tensor, "N K"]) -> Float[Tensor, "N N"]:
    """Euclidean distances between rows over their mean between two different rows."""
    x = x - x.mean(0)  # distances stay and the squares below lose fewer digits
    squares = x.square().sum(1)
    found = (squares[:, None] + squares - 2 * x @ x.mT).clamp(min=EPS).sqrt()
    found = found.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), 0)
    return found * (len(x) * (len(x) - 1)) / found.sum()


def angles(x: Float[Tensor, "N K"]) -> Float[Tensor, "N N N"]:
    """`[i, j, k]`: cosine of the angle at row i between rows j and k, 0 where one of them is row i."""
    apart = x[None] - x[:, None]
    squares = apart.square().sum(2, keepdim=True)
    there = squares > EPS
    # No length at 0, where its second derivative, which a fusion of gradients reads, is none.
    unit = apart * torch.where(there, squares, 1).rsqrt() * there
    return unit @ unit.mT
