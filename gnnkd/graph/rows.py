"""Some rows of the matrices that a graph derives, in memory of their own size: for graphs too large for a whole one.

The rows are those of `Graph.derived`, weights of the whole graph included, but the matrix is not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.graph import normalise
from gnnkd.graph.normalise import row_sums
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
    return a.select_rows(ids)


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

    def __init__(self, graph: Graph, *, nodes: int = 1 << 16, entries: int = 1 << 21) -> None:
        check_sizes(nodes, entries)
        self.graph, self.nodes, self.entries = graph, nodes, entries
        self._scales: dict[Callable[[CSR], CSR], Tensor] = {}
        self._loops: Tensor | None = None

    def of(self, matrix: Callable[[CSR], CSR], ids: Int[Tensor, " Q"]) -> CSR:
        """The rows `ids` of `graph.derived(matrix)`; that is computed as a whole if it is none of `gnnkd.graph`."""
        plain = some_rows(self.graph.adjacency, ids)
        if matrix in _SYMMETRIC:
            plain, scale = _unscaled(matrix, plain, ids), self._scale(matrix)
            return plain.with_value(scale[ids][plain.row] * plain.values() * scale[plain.col])
        if matrix is normalise.looped:
            return with_loops(plain, ids, replace=True).with_value(None)
        if matrix in (normalise.mean, normalise.mean_with_self):
            return normalise.mean(_unscaled(matrix, plain, ids))
        return some_rows(self.graph.derived(matrix), ids)

    def drawn(self, matrix: Callable[[CSR], CSR], ids: Int[Tensor, " S"], a: CSR) -> CSR:
        """The matrix `graph.derived(matrix)` as far as some of its entries were drawn: right on average over the draws.

        Of a row's d neighbours k were drawn, so each weighs d / k times what it does in the whole graph; a node itself
        weighs there what it does here. Weights that are shares among those drawn, as a plain mean's and an attention's,
        are `matrix(a)`.

        Args:
            ids: rows and columns of `a` in the whole graph.
            a: the entries of its adjacency that were drawn, without replacement, each of a row equally likely.
        """
        if matrix not in (*_SYMMETRIC, normalise.mean_with_self):
            return matrix(a)
        whole, counts = self.graph.adjacency, a.rowptr.diff().clamp(min=1)
        more = (whole.rowptr[ids + 1] - whole.rowptr[ids]).to(a.dtype) / counts
        places = torch.arange(ids.numel(), device=a.device)
        found = _unscaled(matrix, a.with_value(a.values() * more[a.row]), places)
        values = found.values()
        if matrix is normalise.gcn:
            values = torch.where(found.row == found.col, self._loop()[ids][found.row], values)
        scale = self._scale(matrix)[ids]
        values = scale[found.row] * values
        return found.with_value(values * scale[found.col] if matrix in _SYMMETRIC else values)

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

    def _scale(self, matrix: Callable[[CSR], CSR]) -> Float[Tensor, " N"]:
        """The inverse of each row's sum, of its root for a symmetric matrix, computed on the first call; 0 of 0."""
        if matrix not in self._scales:
            total = self._of_all(lambda rows, ids: row_sums(_unscaled(matrix, rows, ids)))
            power = -0.5 if matrix in _SYMMETRIC else -1.0
            self._scales[matrix] = total.pow(power).masked_fill(total == 0, 0.0)
        return self._scales[matrix]

    def _loop(self) -> Float[Tensor, " N"]:
        """The weight of each node's loop in A + I."""
        if self._loops is None:
            self._loops = self._of_all(lambda rows, ids: _last_of_row(rows, ids.to(rows.col.dtype)))
        return self._loops

    def _of_all(self, number: Callable[[CSR, Tensor], Tensor]) -> Float[Tensor, " N"]:
        a = self.graph.adjacency
        found = torch.zeros(self.graph.n_nodes, dtype=a.dtype, device=a.device)
        for part in self.pieces(torch.arange(self.graph.n_nodes, device=a.device)):
            found[part] = number(some_rows(a, part), part)
        return found


_SYMMETRIC = (normalise.gcn, normalise.symmetric)


def _unscaled(matrix: Callable[[CSR], CSR], rows: CSR, ids: Int[Tensor, " Q"]) -> CSR:
    """Rows `ids` of the adjacency with the loops that a matrix has."""
    if matrix not in (normalise.gcn, normalise.mean_with_self):
        return rows
    return with_loops(rows, ids, replace=matrix is normalise.gcn)


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
    kept = rows.col != target[rows.row] if replace else torch.ones_like(rows.col, dtype=torch.bool)
    loop = _last_of_row(rows, target) if replace else values.new_ones(ids.numel())
    places = torch.arange(ids.numel(), device=rows.device, dtype=rows.col.dtype)
    row, col = torch.cat([rows.row[kept], places]), torch.cat([rows.col[kept], target])
    return CSR.from_coo(row, col, torch.cat([values[kept], loop]), rows.shape)


def _last_of_row(rows: CSR, target: Int[Tensor, " Q"]) -> Float[Tensor, " Q"]:
    """The value of the last entry in the column `target` of each row, 1 where there is none."""
    entry = (rows.col == target[rows.row]).nonzero().flatten()
    row = rows.row[entry]
    last = torch.cat([row[1:] != row[:-1], row.new_ones(min(1, row.numel()), dtype=torch.bool)])
    return rows.values().new_ones(target.numel()).index_put((row[last],), rows.values()[entry[last]])
