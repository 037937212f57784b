"""Weights that change over the epochs of a training, and the warm-up of what is learnt from a teacher."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias, final

from gnnkd.distillers.ranges import at_least
from gnnkd.types import Step

Weight: TypeAlias = float | tuple[tuple[float, float], ...]
"""A weight as an option: a number, or pairs [epoch, weight]."""


@final
@dataclass(frozen=True)
class Schedule:
    """A weight by epoch: linear between its points, constant before the first and after the last.

    Args:
        points: pairs of an epoch, counted from 0, and the weight there, epochs ascending.
    """

    points: tuple[tuple[float, float], ...]

    @staticmethod
    def of(name: str, weight: Weight) -> Schedule:
        """The schedule that the option `name` stands for; a number is constant.

        Raises:
            ValueError: a weight below 0 or not finite, epochs that do not ascend from 0 on, or no pair at all.
        """
        if isinstance(weight, int | float):
            return Schedule(((0.0, at_least(name, weight, 0)),))
        shown = f"method.{name} is {[list(pair) for pair in weight]}"
        if not weight or any(len(pair) != 2 for pair in weight):
            raise ValueError(f"{shown}; it must be a number, or pairs [epoch, weight]")
        epochs, weights = zip(*weight, strict=True)
        if not all(0 <= w < math.inf for w in weights):
            raise ValueError(f"{shown}; its weights must be finite numbers of at least 0")
        ascending = all(a < b for a, b in pairwise(epochs))
        if not (ascending and epochs[0] >= 0 and epochs[-1] < math.inf):
            raise ValueError(f"{shown}; its epochs must ascend from 0 on")
        return Schedule(tuple(zip(epochs, weights, strict=True)))

    @property
    def never(self) -> bool:
        """Whether the weight is 0 at every epoch."""
        return all(weight == 0 for _, weight in self.points)

    def at(self, step: Step) -> float:
        """The weight at an epoch."""
        after = bisect_right([epoch for epoch, _ in self.points], step.epoch)
        if after in (0, len(self.points)):
            return self.points[min(after, len(self.points) - 1)][1]
        (start, low), (end, high) = self.points[after - 1 : after + 1]
        return low + (high - low) * (step.epoch - start) / (end - start)


def check_some(weights: Mapping[str, Schedule]) -> None:
    """Refuse weights that leave nothing to learn.

    Raises:
        ValueError: all of them are always 0.
    """
    if all(weight.never for weight in weights.values()):
        names = [f"method.{name}" for name in weights]
        raise ValueError(f"{', '.join(names[:-1])} and {names[-1]} are 0; one of them must be above 0")


def ramp(warmup: int, step: Step) -> float:
    """The share of the teacher's terms in a warm-up of `warmup` epochs: `min((epoch + 1) / warmup, 1)`; 0 is none."""
    return min((step.epoch + 1) / warmup, 1.0) if warmup else 1.0
