"""The plain student: cross-entropy on the labelled rows, no teacher. What every method must beat.

Departures: none.
"""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from gnnkd.distillers.base import ANY, TASK, Distiller
from gnnkd.distillers.losses import cross_entropy
from gnnkd.types import Batch, Output, Step


@final
class Supervised(Distiller):
    """`mean over labelled i of CE(s_i, y_i)`."""

    images: ClassVar[bool] = True
    batches = ANY
    needs_teacher = False

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The cross-entropy term `ce`."""
        return {TASK: cross_entropy(student.logits, batch.y)}
