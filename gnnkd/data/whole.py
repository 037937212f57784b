"""What an inductive task keeps from training: the graph with its unseen nodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gnnkd.graph.structure import CSR, Graph


@final
@dataclass(frozen=True)
class Whole:
    """All nodes of an inductive task, for evaluation only.

    Rows are those of the transductive task of the same seed; the rows that `observed` keeps are the inductive task's
    own, in the same order, and the others are test nodes. `index` holds the ids of the rows in the full data.
    """

    x: Tensor | CSR
    y: Int[Tensor, " N"]
    graph: Graph
    observed: Bool[Tensor, " N"]
    index: Int[Tensor, " N"]

    @property
    def unseen(self) -> Bool[Tensor, " N"]:
        """The test nodes that training does not see."""
        return ~self.observed

    @cached_property
    def cold(self) -> Graph:
        """The graph in which unseen nodes have no edges; edges among observed nodes are all there."""
        a = self.graph.adjacency
        kept = self.observed[a.row] & self.observed[a.col]
        value = None if a.value is None else a.value[kept]
        return Graph(CSR.from_coo(a.row[kept], a.col[kept], value, a.shape))

    def to(self, device: torch.device | str) -> Whole:
        """The same on `device`."""
        y, observed, index = (part.to(device) for part in (self.y, self.observed, self.index))
        return Whole(self.x.to(device), y, self.graph.to(device), observed, index)
