"""A codebook of unit vectors: who is nearest by cosine, and how codes follow their rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 2048
"""Rows compared with all codes at once."""


def unit(x: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
    """Rows of length 1; zeros stay zeros."""
    return F.normalize(x, dim=1)


@torch.no_grad()
def nearest(u: Float[Tensor, "N F"], codes: Float[Tensor, "K F"]) -> Int[Tensor, " N"]:
    """The code of largest inner product with each row, the first of several, in memory of 2048 rows by K."""
    return torch.cat([(rows @ codes.t()).argmax(1) for rows in torch.split(u, _BLOCK)])


@torch.no_grad()
def followed(
    codes: Float[Tensor, "K F"], u: Float[Tensor, "N F"], at: Int[Tensor, " N"], decay: float
) -> Float[Tensor, "K F"]:
    """`unit(decay e_k + (1 - decay) unit(sum of the unit rows at k))`; a code without rows stays.

    Args:
        codes: unit vectors e.
        u: unit rows.
        at: the code of each row.
        decay: in [0, 1); 0 forgets the old codes at once.
    """
    sums = torch.zeros_like(codes).index_add_(0, at, u)
    used = torch.bincount(at, minlength=codes.shape[0]) > 0
    return torch.where(used[:, None], unit(decay * codes + (1 - decay) * unit(sums)), codes)


def perplexity(at: Int[Tensor, " N"], count: int) -> Float[Tensor, ""]:
    """Exponential of the entropy of how often each of `count` codes is used: 1 for one code, `count` for all alike."""
    share = torch.bincount(at, minlength=count) / max(1, at.numel())
    found: Tensor = torch.special.entr(share).sum().exp()
    return found


def distances(z: Float[Tensor, "N F"], codes: Float[Tensor, "K F"]) -> Float[Tensor, "N K"]:
    """Euclidean distances; differentiable twice, also where a row is a code."""
    squared = z.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * z @ codes.t()
    return squared.clamp(min=1e-12).sqrt()
