"""Gates of edges: how much of what a node hears passes, by epoch or by row.

Source: the paper on knowledge transfer graphs of S. Minami, T. Hirakawa, T. Yamashita, H. Fujiyoshi, 2020, of which the
published code has the first four; the gate of correct rows is the paper's.

Departures: a training of one epoch has its positive gate at 0 and its negative one at 1, where the code divides by 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Bool
from torch import Tensor

from gnnkd.errors import unknown
from gnnkd.types import Batch, Output, Step


class Gate(ABC):
    """What multiplies the loss of an edge."""

    @abstractmethod
    def weight(self, step: Step) -> float:
        """The factor at an epoch, in [0, 1]."""

    def rows(self, batch: Batch, source: Output) -> Bool[Tensor, " N"] | None:
        """Which rows pass, the loss being a mean over all; None for all of them."""
        return None


@final
class Through(Gate):
    """All passes."""

    def weight(self, step: Step) -> float:
        """1."""
        return 1.0


@final
class Cutoff(Gate):
    """Nothing passes; an edge behind this gate is not computed."""

    def weight(self, step: Step) -> float:
        """0."""
        return 0.0


@final
class Positive(Gate):
    """More and more passes: a line from 0 at the first epoch to 1 at the last."""

    def weight(self, step: Step) -> float:
        """`e / (E - 1)`."""
        return step.epoch / max(1, step.epochs - 1)


@final
class Negative(Gate):
    """Less and less passes: a line from 1 at the first epoch to 0 at the last."""

    def weight(self, step: Step) -> float:
        """`1 - e / (E - 1)`."""
        return 1 - step.epoch / max(1, step.epochs - 1)


@final
class Correct(Gate):
    """The rows pass that the source classifies as their label; one whose label may not be read does not."""

    def weight(self, step: Step) -> float:
        """1."""
        return 1.0

    def rows(self, batch: Batch, source: Output) -> Bool[Tensor, " N"] | None:
        """Where the source's largest logit is the label's."""
        return (source.logits.argmax(1) == batch.y) & batch.labelled


GATES: dict[str, Gate] = {
    "through": Through(),
    "cutoff": Cutoff(),
    "positive": Positive(),
    "negative": Negative(),
    "correct": Correct(),
}


def gate(name: str) -> Gate:
    """The gate of a name.

    Raises:
        UserError: there is no such gate.
    """
    if name not in GATES:
        raise unknown("gate", name, GATES)
    return GATES[name]
