"""Attention among the neighbours of each node, before a network that passes messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import Self

from gnnkd.graph import normalise
from gnnkd.graph.attention import edge_dot, edge_softmax, weighted_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import Around, Make, ask, inside
from gnnkd.nn.linear import linear
from gnnkd.types import Output


@final
class Peers(Around):
    """A network that reads, of each node, its own projected features and what its peers add to them.

        h = W x + c        z_i = relu(h_i + sum over j of softmax_j(h_i . h_j / sqrt(F)) h_j)

    The peers j of a node i are its neighbours and itself. One projection makes what asks, what answers, and what is
    summed. Memory is linear in edges and nodes.

    Args:
        make: gives the network inside.
        n_features: of a row, D.
        dim: width F of the projection, at least 1; the network inside reads rows of this width.
    """

    needs_graph: ClassVar[bool] = True

    def __init__(self, make: Make, n_features: int, *, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.Linear(n_features, dim)
        self.inner = make(dim)

    @property
    def options(self) -> dict[str, Any]:
        """The width."""
        return {"dim": self.dim}

    @classmethod
    def restored(cls, make: Make, n_features: int, n_classes: int, options: Mapping[str, Any]) -> Self:
        """One of the same width."""
        return cls(make, n_features, dim=options["dim"])

    def forward(self, x: Tensor | CSR, graph: Graph | Tensor | None = None, index: Tensor | None = None) -> Output:
        """Logits of the network inside.

        Raises:
            ValueError: no graph.
        """
        there = Graph.of(graph, x.shape[0])
        own = linear(x, self.project.weight, self.project.bias)
        z = F.relu(own + attended(there.derived(normalise.looped), own))
        found = inside(ask(self.inner, z, there, index))
        hidden = {"project.weight": x, **found.hidden}
        return Output(found.logits, hidden, found.raw, found.averaged)


def attended(a: CSR, h: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
    """Of each row of `a` the sum of `softmax_j(h_i . h_j / sqrt(F)) h_j` over its entries j; 0 where it has none."""
    heads = h[:, None]
    weight = edge_softmax(a, edge_dot(a, heads, heads) * h.shape[1] ** -0.5)
    return weighted_sum(a, weight, heads)[:, 0]
