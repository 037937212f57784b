"""The weighted graph among the rows of a batch: who is how near to whom by what a network says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, final

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.distillers.ranges import above_zero, at_least, fraction
from gnnkd.graph.build import class_aware, complete, sparse, strongest, uem
from gnnkd.graph.structure import Graph

Input: TypeAlias = Literal["softmax", "logits", "l2"]
Parts: TypeAlias = Literal["both", "cosine", "euclidean"]


class Relations(NamedTuple):
    """A graph among N rows, dense and as layers read it.

    Args:
        strength: `u_ij` of each pair, in [-1, 1].
        adjacency: `A_ij`, at least 0, the diagonal kept.
        graph: the same entries for message passing.
    """

    strength: Float[Tensor, "N N"]
    adjacency: Float[Tensor, "N N"]
    graph: Graph


@final
@dataclass(frozen=True)
class Connection:
    """How rows are joined: `u` by the unified edge measurement of `p`, `A_ij = relu(u_ij (1 or factor))` by class.

    Args:
        given: what `p` is made of: "softmax" of the logits at `tau`, "logits" as they are, or "l2" of unit length.
        tau: temperature of the softmax, above 0.
        parts: of the measurement, "both", "cosine" or "euclidean".
        factor: of a pair of two classes, in [0, 1].
        topk: strongest others that each row keeps, at least 0; 0 keeps all.

    Raises:
        ValueError: a value out of range.
    """

    given: Input
    tau: float
    parts: Parts
    factor: float
    topk: int

    def __post_init__(self) -> None:
        above_zero("tau", self.tau)
        fraction("cac", self.factor)
        at_least("topk", self.topk, 0)

    def among(self, logits: Float[Tensor, "N C"], y: Int[Tensor, " N"]) -> Relations:
        """The graph of rows with these logits and classes, differentiable by the logits."""
        strength = uem(self._compared(logits), parts=self.parts)
        adjacency = class_aware(strength, y, self.factor)
        if not self.topk:
            return Relations(strength, adjacency, complete(adjacency))
        adjacency = strongest(adjacency, self.topk)
        return Relations(strength, adjacency, sparse(adjacency))

    def _compared(self, logits: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        if self.given == "softmax":
            return (logits / self.tau).softmax(1)
        return logits if self.given == "logits" else F.normalize(logits, dim=1)
