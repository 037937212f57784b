"""SimCLR: a view finds the other view of its image among all other views of the batch.

T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A simple framework for contrastive learning of visual representations",
ICML 2020, equation 1 (NT-Xent), with a projector of one hidden layer.

Departures: none. The temperature is the one of KTG's experiments on CIFAR.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.ranges import above_zero, at_least
from gnnkd.selfsup.heads import cosines, mlp
from gnnkd.selfsup.objectives.base import Objective, halves
from gnnkd.types import Batch, Output, Step


def nt_xent(first: Float[Tensor, "N K"], second: Float[Tensor, "N K"], temperature: float) -> Float[Tensor, ""]:
    """`mean over the 2 N views i of -log(exp(s_ij / T) / sum_{k != i} exp(s_ik / T))`, s cosines, j i's other view."""
    both, n = torch.cat([first, second]), len(first)
    scores = cosines(both, both) / temperature
    scores = scores.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=scores.device), -torch.inf)
    return F.cross_entropy(scores, torch.arange(2 * n, device=scores.device).roll(n))


@final
class SimClr(Objective):
    """NT-Xent.

    Args:
        temperature: of the cosines, above 0.
        hidden: width of the projector's hidden layer, >= 1; None is that of the features.
        dim: of the projections, >= 1.
    """

    def __init__(self, *, temperature: float = 0.3, hidden: int | None = None, dim: int = 128) -> None:
        self.temperature = above_zero("temperature", temperature)
        self.hidden = None if hidden is None else int(at_least("hidden", hidden, 1))
        self.dim = int(at_least("dim", dim, 1))

    def projector(self, features: int) -> nn.Module:
        """Linear, ReLU, linear without bias."""
        return mlp([features, self.hidden or features, self.dim], last_bias=False)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `simclr`."""
        return {"simclr": nt_xent(*halves(student), self.temperature)}
