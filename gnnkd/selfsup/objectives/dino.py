"""DINO: one view says a momentum encoder's distribution over prototypes for the other view, centred and sharpened.

M. Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021, equations 1, 3 and 4, with the
projector of its appendix (no batch norm); the momentum rises to 1.

Departures: two views, no smaller crops; ReLU where the paper has GELU; 1024 prototypes, where the paper has 65,536 for
ImageNet; they learn from the first epoch on. The default momentum is that of short trainings; the paper has .996.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.crd.share import rows_of_all
from gnnkd.distillers.ranges import above_zero, at_least, below_one
from gnnkd.distillers.schedule import Weight
from gnnkd.selfsup.heads import Prototypes, mlp, width
from gnnkd.selfsup.objectives.base import Objective, halves, rising
from gnnkd.types import Batch, Output, Step

PUBLISHED_WIDTH = 2048


@final
class Centre(nn.Module):
    """The moving mean of what the momentum encoder says.

    Args:
        prototypes: its width.
        momentum: in [0, 1).
    """

    mean: Tensor

    def __init__(self, prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(prototypes))

    @torch.no_grad()
    def move(self, scores: Float[Tensor, "M P"]) -> None:
        """`mean <- m mean + (1 - m) (mean of the rows)`."""
        self.mean = self.momentum * self.mean + (1 - self.momentum) * scores.mean(0)


@final
class Dino(Objective):
    """`(H(P2', P1) + H(P1', P2)) / 2`, `P' = softmax((z' - centre) / T')`, `P = softmax(z / T)`.

    Args:
        temperature: T of the network that learns, above 0.
        sharp_temperature: T' of the momentum encoder, above 0.
        momentum: of the momentum encoder at the first epoch, in [0, 1).
        centre_momentum: in [0, 1).
        prototypes: how many, >= 2.
        hidden: width of the projector's hidden layers, >= 1; None is four times the features, at most 2048.
        dim: of the rows that are compared with the prototypes, >= 1.
    """

    follower = True
    needs_teacher = True

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        sharp_temperature: float = 0.04,
        momentum: float = 0.99,
        centre_momentum: float = 0.9,
        prototypes: int = 1024,
        hidden: int | None = None,
        dim: int = 256,
    ) -> None:
        self.temperature = above_zero("temperature", temperature)
        self.sharp_temperature = above_zero("sharp_temperature", sharp_temperature)
        self.momentum = below_one("momentum", momentum)
        self.centre_momentum = below_one("centre_momentum", centre_momentum)
        self.prototypes, self.dim = int(at_least("prototypes", prototypes, 2)), int(at_least("dim", dim, 1))
        self.hidden = None if hidden is None else int(at_least("hidden", hidden, 1))

    def pace(self, epochs: int) -> Weight:
        """Half a cosine, up to 1."""
        return rising(self.momentum, epochs)

    def projector(self, features: int) -> nn.Module:
        """Three linear layers, then cosines with prototypes."""
        wide = width(self.hidden, features, PUBLISHED_WIDTH)
        return nn.Sequential(mlp([features, wide, wide, self.dim]), Prototypes(self.dim, self.prototypes))

    def prepare(self, lesson: Lesson) -> None:
        """Make the centre, at 0."""
        self.part = Centre(lesson.student.logits.shape[1], self.centre_momentum)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `dino`, at least 0; the centre moves afterwards."""
        assert teacher is not None
        assert isinstance(self.part, Centre)
        centre = self.part.mean
        wanted = [((z - centre) / self.sharp_temperature).softmax(1).detach() for z in halves(teacher)]
        crossed = zip(halves(student), reversed(wanted), strict=True)
        losses = [F.cross_entropy(z / self.temperature, p) for z, p in crossed]
        self.part.move(rows_of_all(batch.index, torch.cat(halves(teacher)))[1])
        return {"dino": torch.stack(losses).mean()}
