"""What stands behind a backbone while it learns without labels: projectors and predictors of a few linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def mlp(widths: Sequence[int], *, norm: bool = False, last_norm: bool = False, last_bias: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between them.

    Args:
        widths: of the input, of each layer in between, of the output.
        norm: batch norm before each ReLU; layers before it have no bias.
        last_norm: batch norm without scale and shift after the last layer, which then has no bias.
        last_bias: whether the last layer has a bias.
    """
    layers: list[nn.Module] = []
    *inner, last = pairwise(widths)
    for width, following in inner:
        layers += [nn.Linear(width, following, bias=not norm)]
        layers += [nn.BatchNorm1d(following)] if norm else []
        layers += [nn.ReLU(inplace=True)]
    layers += [nn.Linear(*last, bias=last_bias and not last_norm)]
    layers += [nn.BatchNorm1d(last[1], affine=False)] if last_norm else []
    return nn.Sequential(*layers)


def width(said: int | None, features: int, published: int) -> int:
    """A hidden layer's width: what is said, else four times the features, at most the published width."""
    return min(published, 4 * features) if said is None else said


class Prototypes(nn.Module):
    """Cosines of rows with learnt directions: both are brought to length 1.

    Args:
        dim: of the rows.
        count: of directions.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, dim) / dim**0.5)

    def forward(self, rows: Float[Tensor, "N K"]) -> Float[Tensor, "N P"]:
        """Cosine of each row with each direction."""
        return cosines(rows, self.weight)


def cosines(rows: Float[Tensor, "N K"], others: Float[Tensor, "P K"]) -> Float[Tensor, "N P"]:
    """Cosine of each row with each of the others."""
    return F.normalize(rows, dim=1) @ F.normalize(others, dim=1).mT
