"""The trainable part of GK-DFD: for each network a node embedding and a convolution, edges on demand, and a probe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.gkdfd.relations import Relations
from gnnkd.nn.gcn import GCNConv
from gnnkd.nn.sage import SAGEConv
from gnnkd.nn.tag import TAGConv

Conv: TypeAlias = Literal["tag", "gcn", "sage"]
Head: TypeAlias = Literal["ce", "fixed", "joint"]
CONVS: dict[str, Callable[[int, int], nn.Module]] = {
    "tag": partial(TAGConv, k=1),
    "gcn": partial(GCNConv, add_self_loops=False),  # the diagonal is in the graph; to look for it waits for the device
    "sage": SAGEConv,
}
EDGE = 16
"""Width R of an edge embedding that is a vector."""


class Embedded(NamedTuple):
    """A batch as one network's side sees it.

    Args:
        node: h, rows on the unit sphere.
        graph: g, h after message passing, on the unit sphere.
        edge: A itself, or a vector for each pair.
    """

    node: Float[Tensor, "N K"]
    graph: Float[Tensor, "N K"]
    edge: Float[Tensor, "N N"] | Float[Tensor, "N N R"]

    def detached(self) -> Embedded:
        """The same without what leads back to the side's weights."""
        return Embedded(*(x.detach() for x in self))


@final
class Side(nn.Module):
    """`h = l2norm(W f + b)` and `g = l2norm(conv(h, A))` of one network's features f.

    Args:
        features: width of f.
        dim: width K of the embeddings.
        conv: the convolution, of one step.
        vectors: whether edges are embedded, `e_ij = MLP([|h_i - h_j|, h_i h_j, u_ij])`; they are `A_ij` otherwise.
    """

    def __init__(self, features: int, dim: int, conv: Conv, *, vectors: bool) -> None:
        super().__init__()
        self.node = nn.Linear(features, dim)
        self.conv = CONVS[conv](dim, dim)
        self.edge = nn.Sequential(nn.Linear(2 * dim + 1, dim), nn.ReLU(), nn.Linear(dim, EDGE)) if vectors else None

    def forward(self, features: Float[Tensor, "N _"], relations: Relations) -> Embedded:
        """Embed rows that are joined by a graph."""
        h = F.normalize(self.node(features), dim=1)
        g = F.normalize(self.conv(h, relations.graph), dim=1)
        return Embedded(h, g, relations.adjacency if self.edge is None else self._edges(h, relations.strength))

    def _edges(self, h: Float[Tensor, "N K"], strength: Float[Tensor, "N N"]) -> Float[Tensor, "N N R"]:
        assert self.edge is not None
        pairs = torch.cat([(h[:, None] - h).abs(), h[:, None] * h, strength[:, :, None]], dim=2)
        found: Tensor = self.edge(pairs)
        return found


@final
class Embedding(nn.Module):
    """A side for each network and, if the teacher's learns from classes, a linear probe on its `g`.

    Args:
        student: width of the student's features.
        teacher: width of the teacher's features.
        classes: number of classes C.
        dim: width K of the embeddings.
        conv: the convolution of both sides.
        vectors: whether edges are embedded.
        head: how the teacher's side learns: by the probe ("ce"), not at all ("fixed"), or from the terms that compare
            the two sides ("joint").
    """

    def __init__(
        self, student: int, teacher: int, classes: int, *, dim: int, conv: Conv, vectors: bool, head: Head
    ) -> None:
        super().__init__()
        self.student = Side(student, dim, conv, vectors=vectors)
        self.teacher = Side(teacher, dim, conv, vectors=vectors)
        self.probe = nn.Linear(dim, classes) if head == "ce" else None
        if head == "fixed":
            self.teacher.requires_grad_(False)
        elif head == "ce" and self.teacher.edge is not None:
            # No class is read off an edge: what nothing teaches stays at its random start.
            self.teacher.edge.requires_grad_(False)
