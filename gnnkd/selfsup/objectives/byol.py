"""BYOL: a predictor says how a momentum encoder sees the other view.

J.-B. Grill et al., "Bootstrap your own latent", NeurIPS 2020, equation 2, both ways round; the momentum rises to 1.

Departures: layers of the paper's width only behind as many features (see `heads.width`). The default momentum is that
of short trainings; the paper has .996.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.ranges import at_least, below_one
from gnnkd.distillers.schedule import Weight
from gnnkd.selfsup.heads import mlp, width
from gnnkd.selfsup.objectives.base import Objective, halves, rising
from gnnkd.types import Batch, Output, Step

PUBLISHED_WIDTH = 4096


def distance(said: Float[Tensor, "N K"], wanted: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
    """`mean_i |said_i - wanted_i|^2` of rows brought to length 1: 2 - 2 cos."""
    return 2 - 2 * F.cosine_similarity(said, wanted, dim=1).mean()


@final
class Byol(Objective):
    """`|q(z1) - z2'|^2 + |q(z2) - z1'|^2`, z' the momentum encoder's, all of length 1.

    Args:
        momentum: of the momentum encoder at the first epoch, in [0, 1).
        hidden: width of the hidden layers, >= 1; None is four times the features, at most 4096.
        dim: of the projections, >= 1.
    """

    follower = True
    needs_teacher = True

    def __init__(self, *, momentum: float = 0.99, hidden: int | None = None, dim: int = 256) -> None:
        self.momentum = below_one("momentum", momentum)
        self.hidden = None if hidden is None else int(at_least("hidden", hidden, 1))
        self.dim = int(at_least("dim", dim, 1))

    def pace(self, epochs: int) -> Weight:
        """Half a cosine, up to 1."""
        return rising(self.momentum, epochs)

    def projector(self, features: int) -> nn.Module:
        """Linear, batch norm, ReLU, linear."""
        return mlp([features, width(self.hidden, features, PUBLISHED_WIDTH), self.dim], norm=True)

    def prepare(self, lesson: Lesson) -> None:
        """Make the predictor, as wide as the projector."""
        assert lesson.student.pooled is not None
        dim, features = lesson.student.logits.shape[1], lesson.student.pooled.shape[1]
        self.part = mlp([dim, width(self.hidden, features, PUBLISHED_WIDTH), dim], norm=True)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `byol`, in [0, 8]."""
        assert teacher is not None
        assert self.part is not None
        first, second = halves(student)
        wanted_first, wanted_second = halves(teacher)
        return {"byol": distance(self.part(first), wanted_second) + distance(self.part(second), wanted_first)}
