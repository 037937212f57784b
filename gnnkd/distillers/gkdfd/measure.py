"""Signs of a collapse: how far rows are spread, how alike the means of classes are. Nothing waits for the device."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def spread(x: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
    """Standard deviation over rows, mean over columns; 0 where all rows are one. On the unit sphere below K^-1/2."""
    return x.std(0, correction=0).mean()


def between(x: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean cosine between the means of two classes, over all pairs of those in `y`, in [-1, 1]; 0 for one class."""
    same = (y[:, None] == y).to(x.dtype)
    size = same.sum(1, keepdim=True)
    means = F.normalize(same @ x / size, dim=1)
    pairs = (1 - same) / (size * size.mT)  # a pair of classes once, whatever their sizes
    # Never below the weight of one pair, but for one class, where it is 0.
    return (pairs * (means @ means.mT)).sum() / pairs.sum().clamp(min=1)


def edges(adjacency: Float[Tensor, "N N"]) -> Bool[Tensor, "N N"]:
    """Pairs of two rows that are joined."""
    return (adjacency > 0).fill_diagonal_(False)


def share(pairs: Bool[Tensor, "N N"]) -> Float[Tensor, ""]:
    """Part of all pairs of two rows, in [0, 1]."""
    n = len(pairs)
    return pairs.sum().float() / max(1, n * (n - 1))
