"""The graph of a sample layer by layer: a layer looks at those nodes alone that the seeds need of it.

Nodes of a sample lie hop by hop, so the rows that a layer makes are the first of those that it reads, and its matrix is
a corner of that of the sample, whose weights are those of the full graph as far as the draws tell them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.graph.pattern import Pattern
from gnnkd.graph.sampling import Sample
from gnnkd.graph.structure import CSR, Graph


@final
class Layered:
    """A graph for each layer of a network, in forward order.

    Args:
        graphs: their nodes are the rows that a layer reads; a matrix that one derives has fewer rows where the next
            layer reads fewer.
    """

    def __init__(self, graphs: tuple[Graph, ...]) -> None:
        self.graphs = graphs

    @staticmethod
    def of(sample: Sample, matrices: Sequence[Callable[[CSR], CSR] | None]) -> Layered:
        """The graph of a sample, for layers that derive `matrices` of it, None for one that looks at no edges.

        Raises:
            ValueError: more layers that look at edges than hops.
        """
        left = sum(matrix is not None for matrix in matrices)
        if left >= len(sample.sizes):
            raise ValueError(f"{left} layers look at edges, and {len(sample.sizes) - 1} hops have been drawn")
        whole, graphs = sample.weighed(matrices), []
        for matrix in matrices:
            before, left = sum(sample.sizes[: left + 1]), left - (matrix is not None)
            graphs.append(_corner(whole, sum(sample.sizes[: left + 1]), before))
        return Layered(tuple(graphs))

    @property
    def n_nodes(self) -> int:
        """Nodes that the first layer reads."""
        return self.graphs[0].n_nodes

    def to(self, device: torch.device | str) -> Layered:
        """The same on `device`."""
        return Layered(tuple(graph.to(device) for graph in self.graphs))


def first(x: Tensor | CSR, n: int) -> Tensor | CSR:
    """The first `n` rows; `x` itself where it has no more."""
    if x.shape[0] == n:
        return x
    return x[:n] if isinstance(x, Tensor) else cut(x, n, x.shape[1])


def cut(a: CSR, rows: int, columns: int) -> CSR:
    """The first rows of `a`, whose entries lie in the first columns."""
    end = int(a.rowptr[rows])
    value: Float[Tensor, " E"] | None = None if a.value is None else a.value[:end]
    return CSR.on(Pattern(a.rowptr[: rows + 1], a.col[:end], (rows, columns)), value)


def _corner(graph: Graph, rows: int, nodes: int) -> Graph:
    """The first `nodes` of a graph, of which the first `rows` are looked at."""
    if rows == nodes == graph.n_nodes:
        return graph
    kept = cut(graph.adjacency, rows, nodes)
    more = kept.rowptr[-1:].expand(nodes - rows)
    square = CSR.on(Pattern(torch.cat([kept.rowptr, more]), kept.col, (nodes, nodes)), kept.value)
    return graph.with_derived(square, lambda matrix: cut(matrix, rows, nodes))
