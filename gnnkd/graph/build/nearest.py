"""Which nodes are nearest to which, found in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.errors import UserError
from gnnkd.graph.csr import CSR
from gnnkd.graph.kernels import neighbour_sum

_ENTRIES_AT_ONCE = 1 << 24

Measure: TypeAlias = Callable[[Float[Tensor, "R 1"], Float[Tensor, " N"], Float[Tensor, "R N"]], Float[Tensor, "R N"]]
"""How far R points are from N, by the squared lengths of these and of those and the inner products between them."""


def squared(rows: Float[Tensor, "R 1"], columns: Float[Tensor, " N"], products: Float[Tensor, "R N"]) -> Tensor:
    """Squared Euclidean distance."""
    return rows + columns - 2 * products


def knn(x: Float[Tensor, "N D"] | CSR, k: int, *, by: Measure = squared) -> Int[Tensor, "2 E"]:
    """Join each node to its k nearest others by Euclidean distance, in both directions.

    An edge (i, j) is there if j is among the k nearest of i, or i among those of j: the union, each edge once, without
    self loops, sorted by target and then source. Equal distances are broken by the lower id, so the graph depends on
    no thread count and no library. Distances are taken in float64 by blocks of rows: O(N^2 D) time, O(N) memory.

    Args:
        x: finite features.
        k: neighbours of a node, 1 .. N - 1.
        by: what is small for near nodes.

    Raises:
        UserError: k out of range.
    """
    _check(k, x.shape[0])
    points = _exact(x)
    return _joined(_nearest(points, torch.arange(x.shape[0], device=x.device), k, by), x.shape[0])


def attached(
    x: Float[Tensor, "N D"] | CSR, observed: Bool[Tensor, " N"], k: int, *, by: Measure = squared
) -> Int[Tensor, "2 E"]:
    """Join observed nodes among themselves, as `knn` does on them alone, then each other node to its k nearest of all.

    So no edge between observed nodes depends on the others. Order and ties are those of `knn`.

    Args:
        x: finite features.
        observed: the nodes that are there first.
        k: neighbours of a node, 1 .. observed nodes - 1.
        by: what is small for near nodes.

    Raises:
        UserError: k out of range.
    """
    first = observed.nonzero().flatten()
    among = first[knn(_rows(x, first), k, by=by)]
    later = _nearest(_exact(x), (~observed).nonzero().flatten(), k, by)
    return _joined(torch.cat([among, later], 1), x.shape[0])


def _check(k: int, n: int) -> None:
    if not 1 <= k < n:
        raise UserError(f"k is {k}; the {n} nodes allow 1 to {n - 1} neighbours each")


def _exact(x: Tensor | CSR) -> Tensor | CSR:
    return x.with_value(x.values(torch.double)) if isinstance(x, CSR) else x.double()


def _rows(x: Tensor | CSR, ids: Int[Tensor, " R"]) -> Tensor | CSR:
    return x.select_rows(ids) if isinstance(x, CSR) else x[ids]


def _nearest(points: Float[Tensor, "N D"] | CSR, rows: Int[Tensor, " R"], k: int, by: Measure) -> Int[Tensor, "2 P"]:
    """Pairs of each of `rows` and its k nearest others among all points."""
    squares, blocks = _squares(points), [rows.new_empty(2, 0)]
    for some in torch.split(rows, max(1, _ENTRIES_AT_ONCE // points.shape[0])):
        distance = by(squares[some, None], squares, _products(points, some))
        distance[torch.arange(some.numel(), device=rows.device), some] = torch.inf
        row, neighbour = _smallest(distance, k).nonzero(as_tuple=True)
        blocks.append(torch.stack([some[row], neighbour]))
    return torch.cat(blocks, 1)


def _squares(points: Float[Tensor, "N D"] | CSR) -> Float[Tensor, " N"]:
    """The squared length of each point."""
    if isinstance(points, CSR):
        values = points.values()
        return values.new_zeros(points.shape[0]).index_add(0, points.row, values.square())
    return points.square().sum(1)


def _products(points: Float[Tensor, "N D"] | CSR, some: Int[Tensor, " R"]) -> Float[Tensor, "R N"]:
    """Inner products of some points with all."""
    if isinstance(points, CSR):
        return neighbour_sum(points, points.select_rows(some).dense().t().contiguous()).t()
    return points[some] @ points.T


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
