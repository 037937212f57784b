"""Several networks of one kind, and the mixture of what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import Self

from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import Around, Make, ask, inside
from gnnkd.types import Output

T = TypeVar("T")


@final
class Ensemble(Around):
    """The probability of a class is the mean of the networks', weighted by their votes.

    Args:
        make: gives a network.
        n_features: of a row, D.
        count: number of networks K, at least 1. Their weights `votes` [K], at least 0 and not all of them 0, are set
            by whoever trains them, and are kept with the parameters; all are 1 at first.
    """

    votes: Tensor

    def __init__(self, make: Make, n_features: int, *, count: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(make(n_features) for _ in range(count))
        self.register_buffer("votes", torch.ones(count, device=next(self.members.parameters()).device))

    @property
    def options(self) -> dict[str, Any]:
        """How many there are."""
        return {"count": len(self.members)}

    @classmethod
    def restored(cls, make: Make, n_features: int, n_classes: int, options: Mapping[str, Any]) -> Self:
        """As many networks as there were."""
        return cls(make, n_features, count=options["count"])

    def forward(self, x: Tensor | CSR, graph: Graph | Tensor | None = None, index: Tensor | None = None) -> Output:
        """Logits of the mixture; `members` are the networks' own outputs.

        Weights come layer by layer, all networks' first one first, so that those of one depth stand together.
        """
        members = tuple(ask(network, x, graph, index) for network in self.members)
        named = [inside(output, f"members.{k}.") for k, output in enumerate(members)]
        return Output(
            mixture(torch.stack([output.logits for output in members]), self.votes),
            _interleaved([output.hidden for output in named]),
            _interleaved([output.raw for output in named]),
            _interleaved([output.averaged for output in named]),
            members=members,
        )


def mixture(logits: Float[Tensor, "K N C"], votes: Float[Tensor, " K"]) -> Float[Tensor, "N C"]:
    """`log (sum_k v_k softmax(s_k) / sum_k v_k)`: its softmax is the weighted mean of the networks' softmaxes."""
    shares = (votes / votes.sum()).log()
    return (F.log_softmax(logits, dim=2) + shares[:, None, None]).logsumexp(0)


def _interleaved(parts: Sequence[Mapping[str, T]]) -> dict[str, T]:
    return {name: value for layer in zip(*(part.items() for part in parts), strict=True) for name, value in layer}
