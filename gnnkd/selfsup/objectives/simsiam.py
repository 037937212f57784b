"""SimSiam: a predictor says one view's projection from the other's, which stands still.

X. Chen, K. He, "Exploring simple Siamese representation learning", CVPR 2021, equation 4, with the projector and
predictor of section 3.

Departures: layers of the paper's width only behind as many features (see `heads.width`).
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.ranges import at_least
from gnnkd.selfsup.heads import mlp, width
from gnnkd.selfsup.objectives.base import Objective, halves
from gnnkd.types import Batch, Output, Step

PUBLISHED_WIDTH = 2048


def apart(said: Float[Tensor, "N K"], wanted: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
    """`mean_i -cos(said_i, wanted_i)`; no gradient goes to what is wanted."""
    return -F.cosine_similarity(said, wanted.detach(), dim=1).mean()


@final
class SimSiam(Objective):
    """`(D(h(z1), z2) + D(h(z2), z1)) / 2`, D the negative cosine.

    Args:
        hidden: width of the projector's hidden layers and of the projections, >= 2; None is four times the features, at
            most 2048. The predictor's hidden layer has a quarter of it.
    """

    def __init__(self, *, hidden: int | None = None) -> None:
        self.hidden = None if hidden is None else int(at_least("hidden", hidden, 2))

    def projector(self, features: int) -> nn.Module:
        """Three linear layers with batch norms, the last one's without scale and shift."""
        wide = width(self.hidden, features, PUBLISHED_WIDTH)
        return mlp([features, wide, wide, wide], norm=True, last_norm=True)

    def prepare(self, lesson: Lesson) -> None:
        """Make the predictor."""
        wide = lesson.student.logits.shape[1]
        self.part = mlp([wide, max(1, wide // 4), wide], norm=True)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `simsiam`, in [-1, 1]."""
        assert self.part is not None
        first, second = halves(student)
        return {"simsiam": (apart(self.part(first), second) + apart(self.part(second), first)) / 2}
