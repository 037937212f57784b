"""Edges of a batch, as methods of neighbours read them; memory is linear in edges throughout."""

from __future__ import annotations

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import Batch


def edges(batch: Batch) -> CSR:
    """The adjacency among the rows of a batch: row = the node that learns, column = its neighbour.

    Raises:
        UserError: the batch shows no edges.
    """
    if not isinstance(batch.graph, Graph):
        raise UserError("this method compares neighbours, and these rows come without edges; choose glnn or kd")
    return batch.graph.adjacency
