"""Neighbour sampling (Hamilton, Ying, Leskovec, NeurIPS 2017): a few neighbours of each node in place of all.

A row's neighbours are drawn by Floyd's algorithm (Bentley, Communications of the ACM 1987), all rows at once: of d
places, for i = d - k, ..., d - 1 draw t from 0 .. i and take t, or i if t is taken already. Each set of k places is
equally likely, and the cost does not depend on d, which matters where hubs are met most often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from gnnkd.graph.pattern import Pattern
from gnnkd.graph.rows import Rows
from gnnkd.graph.structure import CSR, Graph


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """Seeds and what was drawn around them.

    Args:
        ids: nodes of the full graph, distinct: the seeds in their order, then those first met one hop away, ascending,
            then two, and so on; row i of `graph` is node `ids[i]`.
        sizes: number of seeds, of nodes first met one hop away, and so on; their sum is S.
        graph: the edges drawn, row = target; nodes of the last hop have none.
        whole: the rows of the full graph, which say what the edges weigh there.
    """

    ids: Int[Tensor, " S"]
    sizes: tuple[int, ...]
    graph: Graph
    whole: Rows | None = None

    def weighed(self, matrices: Iterable[Callable[[CSR], CSR] | None]) -> Graph:
        """`graph`, whose derived matrices are as right as the draws allow about those of the full graph."""
        if self.whole is None:
            return self.graph
        a = self.graph.adjacency
        return Graph(a, {matrix: self.whole.drawn(matrix, self.ids, a) for matrix in matrices if matrix is not None})

    @property
    def seeds(self) -> int:
        """Number of seeds, which are the first rows."""
        return self.sizes[0]


@final
class Sampler:
    """Draws neighbourhoods of seeds; keeps one number a node of the graph between calls.

    Each node is drawn for once, at the hop at which it is first met. A network of as many layers as there are fan-outs
    finds in a sample all that its seeds' outputs need. With all neighbours (`None`) those outputs are the full graph's.

    Args:
        graph: with weights or without; an edge that is drawn keeps its weight.
        fanouts: most neighbours of a node, for each hop from the seeds on, >= 1, or None for all.

    Raises:
        ValueError: no fan-out, or one below 1.
    """

    def __init__(self, graph: Graph, fanouts: Sequence[int | None]) -> None:
        if not fanouts or any(k is not None and k < 1 for k in fanouts):
            raise ValueError(
                f"fanouts are {list(fanouts)}; one for each hop is needed, each at least 1, or None for all"
            )
        self.graph, self.rows = graph, Rows(graph)
        self.fanouts = tuple(fanouts)
        # Where a node is in the sample at hand; -1 between calls. A new one for each would cost a pass over all nodes.
        self._place = torch.full((graph.n_nodes,), -1, dtype=torch.int32, device=graph.adjacency.device)

    def sample(self, seeds: Int[Tensor, " B"], generator: torch.Generator) -> Sample:
        """Draw around `seeds`; calls may not overlap in time, for they share one table.

        Args:
            seeds: distinct nodes, on the device of the graph.
            generator: on the same device.

        Raises:
            ValueError: a seed that is there twice.
        """
        groups, drawn, place = [seeds.long()], [], self._place
        try:
            place[groups[0]] = _count(seeds, place.dtype)
            if bool((place[groups[0]] != _count(seeds, place.dtype)).any()):
                raise ValueError("a seed is there twice; give each node once")
            for k in self.fanouts:
                drawn.append(drawn_rows(self.graph.adjacency, groups[-1], k, generator))
                groups.append(self._met(drawn[-1].col, sum(g.numel() for g in groups)))
            ids = torch.cat(groups)
            square = Graph(_square(drawn, place, ids.numel()))
            return Sample(ids, tuple(g.numel() for g in groups), square, self.rows)
        finally:
            for group in groups:
                place[group] = -1

    def _met(self, col: Int[Tensor, " E"], start: int) -> Int[Tensor, " _"]:
        """The nodes of `col` that have no place yet, ascending; they get the places from `start` on."""
        new = col[self._place[col] < 0].long()
        # Of equal nodes one stays: the one whose mark is found there, whichever was written last.
        mark = _count(new, self._place.dtype)
        self._place[new] = mark
        new = new[self._place[new] == mark].sort().values
        self._place[new] = _count(new, self._place.dtype) + start
        return new


def drawn_rows(a: CSR, rows: Int[Tensor, " B"], k: int | None, generator: torch.Generator) -> CSR:
    """The rows `rows` of `a` with k entries each: drawn without replacement, every set of k equally likely.

    Rows of at most k entries keep all of them, as all rows do if k is None.

    Args:
        rows: in any order, repeats (drawn for anew) allowed.
        k: >= 1.
        generator: on the device of `a`.
    """
    if k is None:
        return a.select_rows(rows)
    start, degree = a.rowptr[rows].long(), (a.rowptr[rows + 1] - a.rowptr[rows]).long()
    counts = degree.clamp(max=k)
    rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    n_entries = int(rowptr[-1])
    entry = (start - rowptr[:-1]).repeat_interleave(counts, output_size=n_entries)
    entry += torch.arange(n_entries, device=a.device)
    large = (degree > k).nonzero().flatten()
    slots = rowptr[large][:, None] + torch.arange(k, device=a.device)
    entry[slots] = start[large][:, None] + subsets(degree[large], k, generator)
    value = None if a.value is None else a.value[entry]
    return CSR.on(Pattern(rowptr, a.col[entry], (rows.numel(), a.shape[1])), value)


def subsets(sizes: Int[Tensor, " B"], k: int, generator: torch.Generator) -> Int[Tensor, "B {k}"]:
    """k distinct numbers of 0 .. size - 1 for each size, ascending; every set of k equally likely.

    Args:
        sizes: each at least k and below 2^53.
        k: >= 1.
        generator: on the device of `sizes`.
    """
    first = sizes - k
    # Doubles: the steps of a float are wider than one place of a hub.
    luck = torch.rand(k, sizes.numel(), dtype=torch.float64, device=sizes.device, generator=generator)
    taken = torch.empty(k, sizes.numel(), dtype=torch.int64, device=sizes.device)
    for i in range(k):
        last = first + i
        place = torch.minimum((luck[i] * (last + 1)).long(), last)  # the product may be rounded up to last + 1
        repeated = (taken[:i] == place).any(0)
        taken[i] = torch.where(repeated, last, place)
    return taken.t().sort(1).values


def batches(ids: Int[Tensor, " B"], batch_size: int, generator: torch.Generator | None) -> Iterator[Int[Tensor, " _"]]:
    """The ids in batches: each once, in an order that is drawn anew at each call, or as they are without a generator.

    Args:
        ids: the last batch is smaller where `batch_size` does not divide their number.
        batch_size: >= 1.
        generator: on the device of `ids`.

    Raises:
        ValueError: a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    if generator is not None:
        ids = ids[torch.randperm(ids.numel(), device=ids.device, generator=generator)]
    return iter(torch.split(ids, batch_size))


def _square(drawn: list[CSR], place: Int[Tensor, " N"], n: int) -> CSR:
    """The rows drawn for, one hop after another, and a row without entries for each other node of the sample."""
    col = place[torch.cat([part.col for part in drawn])]
    counts = torch.cat([part.rowptr.diff() for part in drawn])
    row = _count(counts, torch.int32).repeat_interleave(counts, output_size=col.numel())
    values = [part.value for part in drawn if part.value is not None]
    return CSR.from_coo(row, col, torch.cat(values) if values else None, (n, n))


def _count(like: Tensor, dtype: torch.dtype) -> Int[Tensor, " _"]:
    return torch.arange(like.numel(), dtype=dtype, device=like.device)
