"""Labels that propagate along edges with learnt strengths, mixed at each step with what a network says of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import Self

from gnnkd.graph import normalise
from gnnkd.graph.attention import edge_softmax, gather, weighted_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import Around, Make, ask, inside
from gnnkd.nn.dropout import dropout
from gnnkd.nn.linear import linear
from gnnkd.types import Output

WEIGHTS = ("tra", "ind")
"""Where a node's two scalars come from: they are free parameters of each node, or linear maps of its features."""


@final
class LabelPropagation(Around):
    """`f <- sigmoid(b_v) sum over u of softmax_u(c_u) f_u + sigmoid(-b_v) s_v`, repeated; logits are the last f.

    u are the neighbours of v and v itself, `s_v` are the logits of the network inside. f starts at one-hot labels where
    the label is known and at 1 / C elsewhere; where it is known it is set back to them after every step. Both scalars
    start at 0, those of a node without parameters of its own are 0.

    Args:
        make: gives the network inside.
        n_features: of a row, D.
        n_classes: C.
        steps: number of steps, at least 1.
        weights: one of `WEIGHTS`.
        attention_dropout: share of the weights of the sum that a step of training leaves out, in [0, 1).
        labelled: ids of the nodes whose label is known, in any order.
        y: their labels.
        nodes: ids of the nodes of the training, which with "tra" have parameters of their own.
    """

    needs_graph: ClassVar[bool] = True
    reads_index: ClassVar[bool] = True
    labelled: Tensor
    y: Tensor
    nodes: Tensor

    def __init__(
        self,
        make: Make,
        n_features: int,
        n_classes: int,
        *,
        steps: int,
        weights: str,
        attention_dropout: float,
        labelled: Int[Tensor, " S"],
        y: Int[Tensor, " S"],
        nodes: Int[Tensor, " R"],
    ) -> None:
        super().__init__()
        self.n_classes, self.steps, self.weights, self.attention_dropout = n_classes, steps, weights, attention_dropout
        ids, order = labelled.sort()
        self.register_buffer("labelled", ids)
        self.register_buffer("y", y[order])
        self.n_nodes, own = nodes.numel(), weights == "tra"
        self.register_buffer("nodes", nodes.sort().values if own else nodes[:0])
        self.scalars = nn.Parameter(torch.zeros(2, self.n_nodes if own else n_features, device=nodes.device))
        self.bias = None if own else nn.Parameter(torch.zeros(2, device=nodes.device))
        self.inner = make(n_features)

    @property
    def options(self) -> dict[str, Any]:
        """Those of the constructor, with how many labels and nodes there were."""
        names = ("steps", "weights", "attention_dropout")
        sizes = {"n_labelled": self.labelled.numel(), "n_nodes": self.n_nodes}
        return {name: getattr(self, name) for name in names} | sizes

    @property
    def n_known(self) -> int:
        """Nodes of the training."""
        return self.n_nodes

    @classmethod
    def restored(cls, make: Make, n_features: int, n_classes: int, options: Mapping[str, Any]) -> Self:
        """One that knows as many nodes."""
        given = {name: options[name] for name in ("steps", "weights", "attention_dropout")}
        known = torch.zeros(options["n_labelled"], dtype=torch.long)
        nodes = torch.zeros(options["n_nodes"], dtype=torch.long)
        return cls(make, n_features, n_classes, **given, labelled=known, y=known, nodes=nodes)

    def forward(self, x: Tensor | CSR, graph: Graph | Tensor | None = None, index: Tensor | None = None) -> Output:
        """Logits after the last step; without `index` no label is known.

        Scalars that are made of features are shown as a weight that multiplies them, free ones multiply nothing.

        Raises:
            ValueError: no graph.
        """
        there = Graph.of(graph, x.shape[0])
        a = there.derived(normalise.looped)
        alone = ask(self.inner, x, there, index)
        strength, mixing = self._scalars(x, index, alone.logits)
        weight = edge_softmax(a, gather(a, strength[:, None]))
        weight = dropout(weight, self.attention_dropout, self.training)
        share = mixing.sigmoid()[:, None]
        own = (-mixing).sigmoid()[:, None] * alone.logits
        known, labels = self._labels(alone.logits, index)
        f = labels
        for _ in range(self.steps):
            f = share * weighted_sum(a, weight, f[:, None])[:, 0] + own
            f = torch.where(known[:, None], labels, f)
        found = inside(alone)
        read = {} if self.bias is None else {"scalars": x}
        return replace(found, logits=f, hidden={**read, **found.hidden})

    def _scalars(
        self, x: Tensor | CSR, index: Int[Tensor, " N"] | None, like: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """c and b of each row."""
        if self.bias is not None:
            strength, mixing = linear(x, self.scalars, self.bias).unbind(1)
            return strength, mixing
        known, place = _places(self.nodes, index, like)
        strength, mixing = torch.where(known, F.pad(self.scalars, (0, 1))[:, place], 0.0).unbind(0)
        return strength, mixing

    def _labels(
        self, like: Float[Tensor, "N C"], index: Int[Tensor, " N"] | None
    ) -> tuple[Bool[Tensor, " N"], Float[Tensor, "N C"]]:
        """Whose label is known, and where the propagation starts."""
        known, place = _places(self.labelled, index, like)
        one_hot = F.one_hot(F.pad(self.y, (0, 1))[place], self.n_classes).to(like.dtype)
        return known, torch.where(known[:, None], one_hot, 1 / self.n_classes)


def _places(
    ids: Int[Tensor, " S"], index: Int[Tensor, " N"] | None, like: Float[Tensor, "N C"]
) -> tuple[Bool[Tensor, " N"], Int[Tensor, " N"]]:
    """Which rows are among the sorted `ids`, and where, in [0, S]; without `index` none is."""
    if index is None or ids.numel() == 0:
        nowhere = torch.zeros(like.shape[0], dtype=torch.long, device=like.device)
        return nowhere.bool(), nowhere
    place = torch.searchsorted(ids, index)
    return ids[place.clamp(max=ids.numel() - 1)] == index, place
