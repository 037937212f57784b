"""Graphs made from features."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
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
    _check(k, x.shape[0])
    return _joined(_nearest(x.double(), torch.arange(x.shape[0], device=x.device), k), x.shape[0])


def attached(x: Float[Tensor, "N D"], observed: Bool[Tensor, " N"], k: int) -> Int[Tensor, "2 E"]:
    """Join observed nodes among themselves, as `knn` does on them alone, then each other node to its k nearest of all.

    So no edge between observed nodes depends on the others. Order and ties are those of `knn`.

    Args:
        x: finite features.
        observed: the nodes that are there first.
        k: neighbours of a node, 1 .. observed nodes - 1.

    Raises:
        UserError: k out of range.
    """
    first = observed.nonzero().flatten()
    among = first[knn(x[first], k)]
    later = _nearest(x.double(), (~observed).nonzero().flatten(), k)
    return _joined(torch.cat([among, later], 1), x.shape[0])


def _check(k: int, n: int) -> None:
    if not 1 <= k < n:
        raise UserError(f"k is {k}; the {n} nodes allow 1 to {n - 1} neighbours each")


def _nearest(points: Float[Tensor, "N D"], rows: Int[Tensor, " R"], k: int) -> Int[Tensor, "2 P"]:
    """Pairs of each of `rows` and its k nearest others among all points."""
    squares, blocks = points.square().sum(1), [rows.new_empty(2, 0)]
    for some in torch.split(rows, max(1, _ENTRIES_AT_ONCE // points.shape[0])):
        distance = squares[some, None] + squares - 2 * points[some] @ points.T
        distance[torch.arange(some.numel(), device=rows.device), some] = torch.inf
        row, neighbour = _smallest(distance, k).nonzero(as_tuple=True)
        blocks.append(torch.stack([some[row], neighbour]))
    return torch.cat(blocks, 1)


def _joined(pairs: Int[Tensor, "2 P"], n: int) -> Int[Tensor, "2 E"]:
    """The pairs in both directions, each once, sorted by target and then source."""
    key = torch.cat([pairs[0] * n + pairs[1], pairs[1] * n + pairs[0]]).sort().values
    edge = key[key.diff(prepend=key.new_tensor([-1])) > 0]
    return torch.stack([edge % n, edge // n])


def _smallest(distance: Float[Tensor, "R N"], k: int) -> Tensor:
    """Mask of the k smallest entries of each row, of equal ones those of the lower column."""
    kth = distance.kthvalue(k, dim=1, keepdim=True).values
    nearer, tied = distance < kth, distance == kth
    return nearer | (tied & (tied.cumsum(1) <= k - nearer.sum(1, keepdim=True)))
