"""SwAV: one view says which prototypes the other view is assigned to, assignments being even over the prototypes.

M. Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments", NeurIPS 2020, equations
2 to 5: assignments by three rounds of Sinkhorn and Knopp, prototypes still in the first epoch.

Departures: two views, no smaller crops; no queue of earlier batches, and 300 prototypes where the paper has 3000 for
ImageNet, so that a batch has some rows for each.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.ranges import above_zero, at_least
from gnnkd.selfsup.heads import Prototypes, cosines, mlp, width
from gnnkd.selfsup.objectives.base import Objective, halves
from gnnkd.types import Batch, Output, Step

PUBLISHED_WIDTH = 2048


@torch.no_grad()
def assigned(scores: Float[Tensor, "N P"], sharpness: float, rounds: int) -> Float[Tensor, "N P"]:
    """Sinkhorn's assignments of exp(scores / sharpness): rows sum to 1, columns to N / P as far as `rounds` bring them.

    In logarithms, so that no score is too large.
    """
    q = scores / sharpness
    for _ in range(rounds):
        q = q - q.logsumexp(0, keepdim=True)
        q = q - q.logsumexp(1, keepdim=True)
    return q.exp()


@final
class SwaV(Objective):
    """`(CE(p1, q2) + CE(p2, q1)) / 2`, p a softmax of cosines with the prototypes, q assignments.

    Args:
        temperature: of p, above 0.
        prototypes: how many, >= 2.
        sharpness: of the assignments: the smaller the closer to one prototype each, above 0.
        rounds: of Sinkhorn and Knopp, >= 1.
        still: epochs in which the prototypes do not learn, >= 0.
        hidden: width of the projector's hidden layer, >= 1; None is four times the features, at most 2048.
        dim: of the projections, >= 1.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        prototypes: int = 300,
        sharpness: float = 0.05,
        rounds: int = 3,
        still: int = 1,
        hidden: int | None = None,
        dim: int = 128,
    ) -> None:
        self.temperature, self.sharpness = above_zero("temperature", temperature), above_zero("sharpness", sharpness)
        self.prototypes, self.rounds = int(at_least("prototypes", prototypes, 2)), int(at_least("rounds", rounds, 1))
        self.still, self.dim = int(at_least("still", still, 0)), int(at_least("dim", dim, 1))
        self.hidden = None if hidden is None else int(at_least("hidden", hidden, 1))

    def projector(self, features: int) -> nn.Module:
        """Linear, batch norm, ReLU, linear."""
        return mlp([features, width(self.hidden, features, PUBLISHED_WIDTH), self.dim], norm=True)

    def prepare(self, lesson: Lesson) -> None:
        """Make the prototypes."""
        self.part = Prototypes(lesson.student.logits.shape[1], self.prototypes)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `swav`, at least 0."""
        assert isinstance(self.part, Prototypes)
        weight = self.part.weight.detach() if step.epoch < self.still else self.part.weight
        scores = [cosines(z, weight) for z in halves(student)]
        wanted = [assigned(s, self.sharpness, self.rounds) for s in scores]
        crossed = zip(scores, reversed(wanted), strict=True)
        return {"swav": torch.stack([F.cross_entropy(s / self.temperature, q) for s, q in crossed]).mean()}
