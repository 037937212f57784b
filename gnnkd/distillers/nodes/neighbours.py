"""Edges of a batch, as methods of neighbours read them; memory is linear in edges throughout."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

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


def with_loops(a: CSR) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Rows and columns of the entries of `a` that are no self loops, followed by one self pair for each row."""
    apart = a.row != a.col
    every = torch.arange(a.shape[0], device=a.device)
    return torch.cat([a.row[apart].long(), every]), torch.cat([a.col[apart].long(), every])
