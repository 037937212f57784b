"""Random state for the duration of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor

from gnnkd.data.augment import drawn_apart


class Seeded(Protocol):
    """What this module knows of a task, of nodes or of images."""

    @property
    def seed(self) -> int:
        """Of the run."""

    @property
    def y(self) -> Tensor:
        """Classes, on the device of the training."""


@contextmanager
def seeded(task: Seeded) -> Iterator[None]:
    """First weights, dropout and what a method draws follow the task's seed; the caller's random state is put back."""
    with drawn_apart(task.y.device, task.seed):
        yield
