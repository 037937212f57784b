"""Some rows of the matrices that a graph derives, in memory of their own size: for graphs too large for a whole one.

The rows are those of `Graph.derived`, weights of the whole graph included, but the matrix is not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.graph import normalise
from gnnkd.graph.pattern import Pattern
from gnnkd.graph.structure import CSR, Graph


def some_rows(a: CSR, ids: Int[Tensor, " Q"]) -> CSR:
    """The rows `ids` (in that order, repeats allowed), in time and memory of their own size; copied only where needed.

    Rows that lie side by side are a view of those of `a`, also where they are on disk.
    """
    first = int(ids[0]) if ids.numel() else 0
    shape = (ids.numel(), a.shape[1])
    # The ends tell most lists apart at once, before all of it is compared.
    if ids.numel() and int(ids[-1]) - first + 1 == ids.numel() and bool((ids.diff() == 1).all()):
        start, stop = int(a.rowptr[first]), int(a.rowptr[first + ids.numel()])
        value = None if a.value is None else a.value[start:stop]
        return CSR.on(Pattern(a.rowptr[first : first + ids.numel() + 1] - start, a.col[start:stop], shape), value)
    begin = a.rowptr[ids].long()
    counts = a.rowptr[ids + 1] - begin
    rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    entry = (begin - rowptr[:-1]).repeat_interleave(counts, output_size=int(rowptr[-1]))
    entry += torch.arange(entry.numel(), device=a.device)
    return CSR.on(Pattern(rowptr, a.col[entry], shape), None if a.value is None else a.value[entry])


@final
class Rows:
    """Rows of what a graph derives.

    Args:
        graph: with weights or without; it may be mapped from disk.
        nodes: most rows of a piece, >= 1.
        entries: most entries of a piece of more than one row, >= 1; a row of more is a piece of its own.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, graph: Graph, *, nodes: int, entries: int) -> None:
        check_sizes(nodes, entries)
        self.graph, self.nodes, self.entries = graph, nodes, entries
        self._scales: dict[Callable[[CSR], CSR], Tensor] = {}

    def of(self, matrix: Callable[[CSR], CSR], ids: Int[Tensor, " Q"]) -> CSR:
        """The rows `ids` of `graph.derived(matrix)`; that is computed as a whole if it is none of `gnnkd.graph`."""
        if matrix in (normalise.gcn, normalise.symmetric):
            plain, scale = self._unscaled(matrix, ids), self._scale(matrix)
            return plain.with_value(scale[ids][plain.row] * plain.values() * scale[plain.col])
        plain = some_rows(self.graph.adjacency, ids)
        if matrix is normalise.looped:
            return with_loops(plain, ids, replace=True).with_value(None)
        if matrix is normalise.mean:
            return normalise.mean(plain)
        if matrix is normalise.mean_with_self:
            return normalise.mean(with_loops(plain, ids, replace=False))
        return some_rows(self.graph.derived(matrix), ids)

    def pieces(self, ids: Int[Tensor, " Q"]) -> Iterator[Int[Tensor, " _"]]:
        """The ids, one piece after another, none of them larger than allowed."""
        a = self.graph.adjacency
        for part in torch.split(ids, self.nodes):
            ends = (a.rowptr[part + 1] - a.rowptr[part]).long().cumsum(0)
            start, before = 0, 0
            while start < part.numel():
                stop = int(torch.searchsorted(ends, before + self.entries, right=True))
                stop = max(stop, start + 1)
                yield part[start:stop]
                start, before = stop, int(ends[stop - 1])

    def sources(self, ids: Int[Tensor, " Q"]) -> Int[Tensor, " _"]:
        """The nodes `ids`, distinct and ascending, and all that they have an edge from, ascending."""
        a = self.graph.adjacency
        if ids.numel() == self.graph.n_nodes:
            return ids
        met = torch.zeros(self.graph.n_nodes, dtype=torch.bool, device=a.device)
        met[ids] = True
        for part in self.pieces(ids):
            met[some_rows(a, part).col.long()] = True
        return met.nonzero().flatten()

    def _unscaled(self, matrix: Callable[[CSR], CSR], ids: Int[Tensor, " Q"]) -> CSR:
        rows = some_rows(self.graph.adjacency, ids)
        return with_loops(rows, ids, replace=True) if matrix is normalise.gcn else rows

    def _scale(self, matrix: Callable[[CSR], CSR]) -> Float[Tensor, " N"]:
        """The inverse root of each node's degree, computed on the first call; 0 where the degree is 0."""
        if matrix not in self._scales:
            a = self.graph.adjacency
            degree = torch.zeros(self.graph.n_nodes, dtype=a.dtype, device=a.device)
            for part in self.pieces(torch.arange(self.graph.n_nodes, device=a.device)):
                rows = self._unscaled(matrix, part)
                degree[part] = degree.new_zeros(part.numel()).index_add(0, rows.row, rows.values())
            self._scales[matrix] = degree.pow(-0.5).masked_fill(degree == 0, 0.0)
        return self._scales[matrix]


def check_sizes(nodes: int, entries: int) -> None:
    """Raise `ValueError` unless both sizes of a piece are at least 1."""
    if nodes < 1 or entries < 1:
        raise ValueError(f"a piece of {nodes} rows and {entries} entries is none; both must be at least 1")


def with_loops(rows: CSR, ids: Int[Tensor, " Q"], *, replace: bool) -> CSR:
    """The rows `ids` of a square matrix, each with an entry for the node itself.

    Args:
        rows: [Q, N].
        ids: which rows those are.
        replace: a loop that is there stays the only one (of several, the last one's weight); else one of weight 1 is
            added to those that are there.
    """
    target = ids.to(rows.col.dtype)
    values = rows.values()
    loop = values.new_ones(ids.numel())
    kept = torch.ones_like(rows.col, dtype=torch.bool)
    if replace:
        kept = rows.col != target[rows.row]
        loop = _last_of_row(rows, ~kept, loop)
    places = torch.arange(ids.numel(), device=rows.device, dtype=rows.col.dtype)
    row, col = torch.cat([rows.row[kept], places]), torch.cat([rows.col[kept], target])
    return CSR.from_coo(row, col, torch.cat([values[kept], loop]), rows.shape)


def _last_of_row(rows: CSR, chosen: Bool[Tensor, " E"], otherwise: Float[Tensor, " Q"]) -> Float[Tensor, " Q"]:
    entry = chosen.nonzero().flatten()
    row = rows.row[entry]
    last = torch.cat([row[1:] != row[:-1], row.new_ones(min(1, row.numel()), dtype=torch.bool)])
    return otherwise.index_put((row[last],), rows.values()[entry[last]])
