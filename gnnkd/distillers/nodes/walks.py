"""Random walks along the edges of a graph."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from gnnkd.graph.structure import CSR

ENDED = -1
"""What stands where a walk has ended, at a node without neighbours."""


def walks(a: CSR, start: Int[Tensor, " S"], length: int, draws: torch.Generator) -> Int[Tensor, "S {length}"]:
    """Walks of `length` nodes, the first of which is given and each next one a neighbour of the one before.

    Neighbours are the columns of a row, each entry as probable as any other, whatever its value. Memory is S x length.

    Args:
        a: square, row = where a walk is, column = where it may go.
        start: first node of each walk.
        length: nodes of a walk, at least 1; `ENDED` stands behind a node that has no neighbour.
        draws: on the CPU, whatever the device of `a`.
    """
    degree, first = a.rowptr.diff().long(), a.rowptr[:-1].long()
    found = [start]
    for _ in range(length - 1):
        # In 64 bits a share below 1 of d entries is never the whole of them.
        share = torch.rand(start.numel(), generator=draws, dtype=torch.float64).to(a.device)
        here = found[-1]
        there = here.clamp(min=0)
        goes = (here != ENDED) & (degree[there] > 0)
        entry = first[there] + (share * degree[there]).long()
        found.append(torch.full_like(here, ENDED).masked_scatter(goes, a.col[entry[goes]].to(here.dtype)))
    return torch.stack(found, 1)
