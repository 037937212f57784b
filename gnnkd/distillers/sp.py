"""Similarity-preserving distillation: images that are alike for the teacher are alike for the student.

F. Tung, G. Mori, "Similarity-preserving knowledge distillation", ICCV 2019, equations 1 to 4, at the last stage.

Departures: none.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.maps import Map, MapDistiller, paired, precise
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.types import Batch, Output


@final
class Sp(MapDistiller):
    """`CE + weight * ||G_t - G_s||^2 / N^2`, G the Gram matrix of flattened maps, each row of G l2 normalised.

    Args:
        weight: of the term `sp`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
    """

    def __init__(self, *, weight: Weight = 3000.0, warmup: int = 0) -> None:
        super().__init__({"sp": Schedule.of("weight", weight)}, warmup)

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The difference of similarities at the last stage."""
        return similarity_loss(*paired(student.maps, teacher.maps)[-1])


@precise
def similarity_loss(student: Map, teacher: Map) -> Float[Tensor, ""]:
    """`mean over i, j of (G_t - G_s)_ij^2`; the two maps need not have one size."""
    return (similarity(teacher) - similarity(student)).square().mean()


def similarity(f: Map) -> Float[Tensor, "N N"]:
    """`F F^T` of the flattened map, each row of the product l2 normalised."""
    rows = f.flatten(1)
    gram = rows @ rows.mT
    squares = gram.square().sum(1, keepdim=True)
    # No length of an empty row, where its second derivative, which a fusion of gradients reads, is none.
    return gram * torch.where(squares > 0, squares, 1).rsqrt()
