"""What an objective without labels is: a method on pairs of views, and the projector behind a backbone."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Distiller
from gnnkd.distillers.losses import full_precision
from gnnkd.distillers.schedule import Weight
from gnnkd.types import Output


class Objective(Distiller):
    """A method whose batches are pairs: row i and row i + N are two views of one image; `logits` are projections.

    One with a momentum encoder hears a node that follows the one that learns, as a teacher.
    """

    graphs = False
    images = True
    follower: ClassVar[bool] = False
    """Whether there is a momentum encoder."""
    needs_teacher = False
    momentum: float = 1.0
    """Of the momentum encoder, at the first epoch."""

    @abstractmethod
    def projector(self, features: int) -> nn.Module:
        """What stands behind a backbone of so many pooled features."""

    def pace(self, epochs: int) -> Weight:
        """The momentum encoder's momentum, a number or pairs [epoch, momentum]."""
        return self.momentum


def halves(output: Output) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N K"]]:
    """The projections of the first views and of the second ones."""
    first, second = full_precision(output.logits).chunk(2)
    return first, second


def rising(momentum: float, epochs: int) -> Weight:
    """From `momentum` at the first epoch to 1 after the last along half a cosine."""
    share = [(1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]
    return tuple((float(epoch), 1 - (1 - momentum) * s) for epoch, s in enumerate(share))
