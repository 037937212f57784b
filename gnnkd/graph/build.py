"""Graphs made from features."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.errors import UserError

_ENTRIES_AT_ONCE = 1 << 24


def knn(x: Float[Tensor, "N D"], k: int) -> Int[Tensor, "2 E"]:
    """Join each node to its k nearest others by Euclidean distance, in both directions.

    An edge (i, j) is there if j is among the k nearest of i, or i among those of j: the union, each edge once, without
    self loops, sorted by target and then source. Equal distances are broken by the lower id, so the graph depends on
    no thread count and no library. Distances are taken in float64 by blocks of rows: O(N^2 D) time, O(N) memory.

    Args:
        x: finite features.
        k: neighbours of a node, 1 .. N - 1.

    Raises:
        UserError: k out of range.
    """
    n = x.shape[0]
    if not 1 <= k < n:
        raise UserError(f"k is {k}; the {n} nodes allow 1 to {n - 1} neighbours each")
    points = x.double()
    squares = points.square().sum(1)
    blocks = []
    for start in range(0, n, max(1, _ENTRIES_AT_ONCE // n)):
        rows = torch.arange(start, min(n, start + max(1, _ENTRIES_AT_ONCE // n)), device=x.device)
        distance = squares[rows, None] + squares - 2 * points[rows] @ points.T
        distance[torch.arange(rows.numel(), device=x.device), rows] = torch.inf
        row, neighbour = _smallest(distance, k).nonzero(as_tuple=True)
        blocks.append(torch.stack([rows[row], neighbour]))
    near = torch.cat(blocks, 1)
    key = torch.cat([near[0] * n + near[1], near[1] * n + near[0]]).sort().values
    edge = key[key.diff(prepend=key.new_tensor([-1])) > 0]
    return torch.stack([edge % n, edge // n])


def _smallest(distance: Float[Tensor, "R N"], k: int) -> Tensor:
    """Mask of the k smallest entries of each row, of equal ones those of the lower column."""
    kth = distance.kthvalue(k, dim=1, keepdim=True).values
    nearer, tied = distance < kth, distance == kth
    return nearer | (tied & (tied.cumsum(1) <= k - nearer.sum(1, keepdim=True)))
