"""Rules by which the features of a data set's nodes become its edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.errors import UserError, unknown
from gnnkd.graph.build.nearest import attached, knn
from gnnkd.graph.csr import SPARSE_BELOW
from gnnkd.graph.structure import CSR, Graph

KINDS = ("knn", "uem")
"""Rules, by name."""
_VALUES_AT_ONCE = 1 << 19
_DIGITS = 12
"""Decimals of a strength that decide which of two is the larger: the rest is rounding, which differs by machine."""


@final
@dataclass(frozen=True)
class Neighbourhood:
    """Each node is joined to its k nearest others, in both directions, without self loops.

    `knn` takes the k nearest by Euclidean distance; its edges have no weights. `uem` takes the k strongest by unified
    edge measurement `u_ij` (`graph.build.uem`) of the rows divided by their length, which makes `u` a function of their
    cosine alone. An edge weighs `u_ij`; edges with `u_ij <= 0`, at cosines below about 0.36, are left out, so a node
    that is like no other has none. Class-aware connection is left out as well: it reads classes, and a graph is made
    before anyone knows whose class may be read.

    Features are taken in float64 by blocks of rows: O(N^2 D) time, sparse features by their entries, O(N D) memory.

    Args:
        kind: `knn` or `uem`.
        k: neighbours of a node, at least 1.

    Raises:
        UserError: another word, or k below 1.
    """

    kind: Literal["knn", "uem"]
    k: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("rule of a graph", str(self.kind), KINDS)
        if self.k < 1:
            raise UserError(f"k is {self.k}; a node needs at least 1 neighbour")

    def graph(self, x: Float[Tensor, "N D"] | CSR) -> Graph:
        """The graph of nodes with features `x`.

        Raises:
            UserError: N is not above k.
        """
        points = _points(x, torch.ones(x.shape[0], dtype=torch.bool, device=x.device))
        if self.kind == "knn":
            return Graph.from_edge_index(knn(points, self.k), x.shape[0])
        points = _unit(points)
        return _weighted(points, knn(points, self.k, by=_unlike), x.dtype)

    def attached(self, x: Float[Tensor, "N D"] | CSR, observed: Bool[Tensor, " N"]) -> Graph:
        """The graph of the observed nodes alone, to which the other nodes are attached by their nearest of all.

        No edge between observed nodes, and no weight of one, depends on the others.

        Raises:
            UserError: the number of observed nodes is not above k.
        """
        points = _points(x, observed)
        if self.kind == "knn":
            return Graph.from_edge_index(attached(points, observed, self.k), x.shape[0])
        points = _unit(points)
        return _weighted(points, attached(points, observed, self.k, by=_unlike), x.dtype)


def _points(x: Float[Tensor, "N D"] | CSR, observed: Bool[Tensor, " N"]) -> Float[Tensor, "N D"] | CSR:
    """`x` in float64, sparse or dense as suits the observed rows: either form rounds in its own way."""
    seen = x.select_rows(observed) if isinstance(x, CSR) else x[observed]
    entries = seen.n_entries if isinstance(seen, CSR) else int(seen.count_nonzero())
    sparse = 0 < entries < SPARSE_BELOW * (seen.shape[0] * seen.shape[1])
    if isinstance(x, CSR):
        return x.with_value(x.values(torch.double)) if sparse else x.dense().double()
    return CSR.from_dense(x.double()) if sparse else x.double()


def _unit(points: Float[Tensor, "N D"] | CSR) -> Float[Tensor, "N D"] | CSR:
    """Rows divided by their length; rows of zeros stay."""
    if isinstance(points, CSR):
        values = points.values()
        length = values.new_zeros(points.shape[0]).index_add(0, points.row, values.square()).sqrt()
        return points.with_value(values / length.where(length > 0, 1)[points.row])
    length = points.square().sum(1, keepdim=True).sqrt()
    return points / length.where(length > 0, 1)


def _unlike(rows: Float[Tensor, "R 1"], columns: Float[Tensor, " N"], products: Float[Tensor, "R N"]) -> Tensor:
    """`-u` of rows of length 1 or 0, without its constant."""
    square = rows + columns - 2 * products
    near = torch.exp(-square.where(square > 10**-_DIGITS, 0).sqrt())
    return (-products / 2 - near).round(decimals=_DIGITS)


def _weighted(points: Float[Tensor, "N D"] | CSR, edges: Int[Tensor, "2 E"], dtype: torch.dtype) -> Graph:
    """The edges with their strengths, those above 0."""
    blocks = torch.split(edges, max(1, _VALUES_AT_ONCE // points.shape[1]), dim=1)
    u = torch.cat([_strength(points, *block) for block in blocks])
    return Graph.from_edge_index(edges[:, u > 0], points.shape[0], u[u > 0].to(dtype))


def _strength(
    points: Float[Tensor, "N D"] | CSR, source: Int[Tensor, " E"], target: Int[Tensor, " E"]
) -> Float[Tensor, " E"]:
    """`u` of pairs of rows, by their differences as in `uem`."""
    if isinstance(points, CSR):
        a, b = (points.select_rows(ids).dense() for ids in (source, target))
    else:
        a, b = points[source], points[target]
    return (1 + (a * b).sum(1)) / 2 + torch.exp(-(a - b).square().sum(1).sqrt()) - 1
