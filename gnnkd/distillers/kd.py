"""Knowledge distillation with temperature, over all observed nodes.

G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015, equation for soft targets.

Departures: the soft term covers every node of the batch, labelled or not (a teacher's output is known everywhere), as
most graph papers do; the cross-entropy covers the labelled ones.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from gnnkd.distillers.base import Distiller
from gnnkd.distillers.losses import cross_entropy, soft_kl
from gnnkd.types import Batch, Output, Step


@final
class Kd(Distiller):
    """`(1 - alpha) CE + alpha T^2 KL(teacher || student)`.

    Args:
        alpha: weight of the soft term, in [0, 1].
        temperature: T > 0, in units of logits.
    """

    def __init__(self, *, alpha: float = 0.9, temperature: float = 4.0) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"method.alpha is {alpha}; it must lie in [0, 1]")
        if not temperature > 0:
            raise ValueError(f"method.temperature is {temperature}; it must be above 0")
        self.alpha, self.temperature = alpha, temperature

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce` and `kd`; a term of weight zero is not computed."""
        assert teacher is not None
        terms = {}
        if self.alpha < 1:
            terms["ce"] = (1 - self.alpha) * cross_entropy(student.logits, batch.y)
        if self.alpha > 0:
            terms["kd"] = self.alpha * soft_kl(student.logits, teacher.logits, self.temperature)
        return terms
