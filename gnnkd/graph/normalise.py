"""Weights of the edges: an adjacency in, the matrix that a layer multiplies by out. Use with `Graph.derived`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gnnkd.graph.structure import CSR


def gcn(a: CSR) -> CSR:
    """D^-1/2 (A + I) D^-1/2 with D the row sums of A + I, as in Kipf and Welling.

    A node that has a self loop keeps that loop's weight (of several, the last one's) and gets no second one. A node
    whose sum is 0 passes nothing on.
    """
    loops = a.row == a.col
    entry = loops.nonzero().flatten()
    row = a.row[entry]
    last = torch.cat([row[1:] != row[:-1], row.new_ones(min(1, row.numel()), dtype=torch.bool)])
    loop = a.values().new_ones(a.shape[0]).index_put((row[last],), a.values()[entry[last]])
    return symmetric(_with_loops(a, ~loops, loop))


def symmetric(a: CSR) -> CSR:
    """D^-1/2 A D^-1/2 with D the row sums of A: no loops added, those that are there kept.

    A node whose sum is 0 passes nothing on.
    """
    degree = row_sums(a)
    # Never a power of zero, whose gradient is infinite.
    scale = torch.where(degree == 0, 1.0, degree).pow(-0.5).masked_fill(degree == 0, 0.0)
    return a.with_value(scale[a.row] * a.values() * scale[a.col])


def mean(a: CSR) -> CSR:
    """D^-1 A with D the row sums of A: the (weighted) mean over neighbours; a row with sum 0 becomes 0."""
    total = row_sums(a)
    return a.with_value(a.values() * total.reciprocal().masked_fill(total == 0, 0.0)[a.row])


def mean_with_self(a: CSR) -> CSR:
    """(D + I)^-1 (A + I) with D the row sums of A: the (weighted) mean over a node, weighing 1, and its neighbours."""
    return mean(_with_loops(a, torch.ones_like(a.col, dtype=torch.bool), a.values().new_ones(a.shape[0])))


def looped(a: CSR) -> CSR:
    """The places of A + I without weights: every edge as often as it is there, every self loop once."""
    return _with_loops(a, a.row != a.col, a.values().new_ones(a.shape[0])).with_value(None)


def _with_loops(a: CSR, kept: Bool[Tensor, " E"], loop: Float[Tensor, " N"]) -> CSR:
    """The kept entries of `a` and a self loop on each node."""
    if a.shape[0] != a.shape[1]:
        raise ValueError(f"self loops need a square matrix; this one has shape {a.shape}")
    nodes = torch.arange(a.shape[0], device=a.device, dtype=a.col.dtype)
    row, col = torch.cat([a.row[kept], nodes]), torch.cat([a.col[kept], nodes])
    return CSR.from_coo(row, col, torch.cat([a.values()[kept], loop]), a.shape)


def row_sums(a: CSR) -> Float[Tensor, " R"]:
    """The sum of each row's values."""
    return a.values().new_zeros(a.shape[0]).index_add(0, a.row, a.values())
