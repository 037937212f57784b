"""What a network needs of a graph to answer about some of its nodes: their neighbourhood, cut out whole.

A network of k sums along edges asks of a node its k-hop neighbourhood: every node within k edges, and every edge into
those within k - 1. The outermost nodes only lend their features, so their own edges stay behind. Weights that depend on
degrees are those of the whole graph, which a service keeps ready: the matrices that the whole graph has derived are cut
out too, and not derived anew from the piece, where degrees are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gnnkd.graph.pattern import Pattern
from gnnkd.graph.structure import CSR, Graph


@final
@dataclass(frozen=True)
class Piece:
    """A part of a graph.

    `nodes` are its nodes' numbers in the whole, ascending, and `rows` the places of those asked about among them.
    """

    graph: Graph
    nodes: Int[Tensor, " S"]
    rows: Int[Tensor, " Q"]


def cut(graph: Graph, asked: Int[Tensor, " Q"], hops: int, *, margin: int = 0) -> Piece:
    """The neighbourhood of the nodes `asked`, in time and memory that depend on its own size alone.

    Args:
        graph: the whole; what it has derived so far is cut out too.
        asked: nodes, repeats allowed.
        hops: how far the network looks, >= 0.
        margin: more hops whose nodes come along with their edges, for a network that reads the degrees of its outermost
            nodes from the edges themselves.
    """
    nodes, inner = _within(graph.adjacency, torch.unique(asked), hops + margin)
    here = partial(_restricted, nodes=nodes, inner=inner)
    found = graph.with_derived(here(graph.adjacency), here)
    return Piece(found, nodes, torch.searchsorted(nodes, asked))


def same(graph: Graph) -> Graph:
    """The whole graph as another object, with all that it has derived: what a network keeps by graph it makes again."""
    return graph.with_derived(graph.adjacency, lambda matrix: matrix)


def _within(a: CSR, start: Int[Tensor, " Q"], hops: int) -> tuple[Int[Tensor, " S"], Bool[Tensor, " S"]]:
    """Nodes within `hops` edges, ascending, and which of them are nearer than that; no work on the other nodes."""
    nodes = frontier = start
    near = nodes[:0]
    for _ in range(hops):
        near = nodes
        reached = torch.unique(a.select_rows(frontier).col.to(nodes.dtype))
        frontier = reached[~_found(near, reached)]
        nodes = torch.cat([near, frontier]).sort().values
    return nodes, _found(near, nodes)


def _found(table: Int[Tensor, " K"], ids: Int[Tensor, " S"]) -> Bool[Tensor, " S"]:
    """Which of `ids` are in the ascending `table`."""
    if table.numel() == 0:
        return torch.zeros_like(ids, dtype=torch.bool)
    place = torch.searchsorted(table, ids).clamp(max=table.numel() - 1)
    return table[place] == ids


def _restricted(a: CSR, nodes: Int[Tensor, " S"], inner: Bool[Tensor, " S"]) -> CSR:
    """The rows of the `inner` ones of `nodes`, in new numbers; the other rows are empty.

    Entries outside `nodes`, of a matrix that reaches further than one edge, are left out.
    """
    rows = a.select_rows(nodes[inner])
    col = rows.col.to(nodes.dtype)
    kept = _found(nodes, col)
    counts = torch.zeros(nodes.numel(), dtype=torch.long)
    counts[inner] = rows.rowptr.diff().long()
    if not bool(kept.all()):
        counts[inner] = torch.zeros_like(counts[inner]).index_add(0, rows.row.long(), kept.long())
    rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    value = None if rows.value is None else rows.value[kept]
    size = nodes.numel()
    # New numbers rise with the old ones, so columns stay ascending within a row.
    return CSR.on(Pattern(rowptr, torch.searchsorted(nodes, col[kept]), (size, size)), value)
