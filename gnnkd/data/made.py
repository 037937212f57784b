"""Whether a data set's edges are made of its features, and by which rule."""

from __future__ import annotations

from torch import Tensor

from gnnkd.errors import UserError, unknown
from gnnkd.graph.build import Neighbourhood
from gnnkd.graph.structure import CSR, Graph

GRAPHS = ("given", "knn", "uem")
"""What the edges of a data set are, by name."""
NEIGHBOURS = 8
"""Neighbours of a node where nobody says."""


def rule(graph: str | None, k: int | None, *, edges: bool, where: str) -> Neighbourhood | None:
    """The rule by which edges are made, or None for those that the data has.

    Args:
        graph: `given`, `knn` or `uem`; None is `given` where there are edges, else `knn`.
        k: neighbours of a node; 8 by default.
        edges: whether the data has edges.
        where: how errors call the data.

    Raises:
        UserError: an unknown word, edges that are not there, or k of a graph that is not made.
    """
    if graph is not None and graph not in GRAPHS:
        raise unknown("value of data.graph", graph, GRAPHS)
    if graph == "given" and not edges:
        raise UserError(f"{where} has no edges of its own; use data.graph=knn or data.graph=uem, or leave it out")
    if graph == "given" or (graph is None and edges):
        if k is not None:
            raise UserError(
                f"data.k is {k}, but the edges of {where} are given; leave it out, or make the graph of the features "
                "with data.graph=knn or data.graph=uem"
            )
        return None
    return Neighbourhood("uem" if graph == "uem" else "knn", NEIGHBOURS if k is None else k)


def edges(x: Tensor | CSR, by: Neighbourhood, where: str) -> tuple[Graph, list[str]]:
    """The graph of features, and a note where nodes stay alone.

    Raises:
        UserError: too few nodes, or not a single edge.
    """
    try:
        graph = by.graph(x)
    except UserError as mistake:
        raise UserError(f"{where}: {mistake}; change data.k, or give the edges as edge_index") from None
    if not graph.n_edges:
        raise UserError(f"{where}: no two nodes are alike enough for an edge of {by.kind}; use data.graph=knn")
    alone = int((graph.adjacency.rowptr.diff() == 0).sum())
    return graph, [f"{alone} of {graph.n_nodes} nodes are like no other and have no edge"] if alone else []


def said(by: Neighbourhood, *, instead: bool) -> str:
    """What a note says of edges that were made, `instead` of given ones."""
    why = "the edges given are not used" if instead else "there are no edges given"
    nearest = "nearest" if by.kind == "knn" else "most alike"
    return f"{why}: each node is joined to the {by.k} {nearest} by its features (data.graph={by.kind})"
