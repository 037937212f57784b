"""A graph: an adjacency, and the matrices derived from it, each computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.graph.csr import CSR, SPARSE_BELOW, as_ids

__all__ = ["CSR", "SPARSE_BELOW", "Graph"]


@final
class Graph:
    """Nodes and directed edges; matrices derived from the adjacency are computed once per graph.

    Args:
        adjacency: [N, N], row = target, column = source.
        derived: matrices that are known, by what would compute them.
    """

    def __init__(self, adjacency: CSR, derived: Mapping[Callable[[CSR], CSR], CSR] | None = None) -> None:
        if adjacency.shape[0] != adjacency.shape[1]:
            raise ValueError(f"adjacency has shape {adjacency.shape}; it must be square")
        self.adjacency = adjacency
        self._derived = dict(derived or {})

    @staticmethod
    def from_edge_index(
        edge_index: Int[Tensor, "2 E"], n_nodes: int, weight: Float[Tensor, " E"] | None = None
    ) -> Graph:
        """The graph of a PyG edge list (messages go from `edge_index[0]` to `edge_index[1]`)."""
        return Graph(CSR.from_edge_index(edge_index, n_nodes, weight))

    @staticmethod
    def of(graph: Graph | Int[Tensor, "2 E"] | None, n_nodes: int, weight: Float[Tensor, " E"] | None = None) -> Graph:
        """A graph as it is, or the graph of an edge list.

        Raises:
            ValueError: neither is there, or weights are given beside a graph.
        """
        if graph is None:
            raise ValueError("this network passes messages along edges; give it a Graph or an edge list [2, E]")
        if isinstance(graph, Tensor):
            return Graph.from_edge_index(graph, n_nodes, weight)
        if weight is not None:
            raise ValueError("a Graph holds its own weights; give them to Graph.from_edge_index, or pass an edge list")
        return graph

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.adjacency.shape[0]

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return self.adjacency.n_entries

    @property
    def edge_index(self) -> Int[Tensor, "2 E"]:
        """PyG's edge list, sorted by target, then source."""
        return torch.stack([self.adjacency.col, self.adjacency.row]).long()

    def derived(self, fn: Callable[[CSR], CSR]) -> CSR:
        """`fn(adjacency)`, computed on the first call with `fn` and kept."""
        if fn in self._derived:
            return self._derived[fn]
        out = fn(self.adjacency)
        if out.value is None or not out.value.requires_grad:
            self._derived[fn] = out
        return out

    def with_derived(self, adjacency: CSR, change: Callable[[CSR], CSR]) -> Graph:
        """A graph of another adjacency, whose derived matrices are those kept here, each as `change` makes it.

        Of a piece of the graph, so, with weights that the whole graph gave: `derived` does not compute them anew.
        """
        return Graph(adjacency, {fn: change(matrix) for fn, matrix in self._derived.items()})

    def subgraph(self, ids: Int[Tensor, " S"] | Bool[Tensor, " N"]) -> Graph:
        """The nodes `ids` (distinct, in that order) or those that a mask keeps, and the edges among them."""
        a = self.adjacency
        ids = as_ids(ids, a.device)
        place = torch.full((self.n_nodes,), -1, device=a.device)
        place[ids] = torch.arange(ids.numel(), device=a.device)
        rows = a.select_rows(ids)
        col = place[rows.col]
        kept = col >= 0
        value = None if rows.value is None else rows.value[kept]
        return Graph(CSR.from_coo(rows.row[kept], col[kept], value, (ids.numel(), ids.numel())))

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on `device`; itself if it is already there."""
        adjacency = self.adjacency.to(device)
        return self if adjacency is self.adjacency else Graph(adjacency)

    def __repr__(self) -> str:
        return f"Graph(n_nodes={self.n_nodes}, n_edges={self.n_edges}, device='{self.adjacency.device}')"
