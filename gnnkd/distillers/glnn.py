"""GLNN: an MLP learns the teacher's soft labels on all observed nodes and needs no graph afterwards.

S. Zhang, Y. Liu, Y. Sun, N. Shah, "Graph-less neural networks", ICLR 2022, equation 1.

Departures: none; `label_weight` is 0 by default, as in all of the paper's reported results.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

from torch import Tensor

from gnnkd.distillers.base import ANY, Distiller
from gnnkd.distillers.losses import cross_entropy, soft_kl
from gnnkd.distillers.space import Between, Range
from gnnkd.types import Batch, Output, Step


@final
class Glnn(Distiller):
    """`label_weight CE + (1 - label_weight) KL(teacher || student)`, temperature 1.

    Args:
        label_weight: weight of the cross-entropy on labelled nodes, in [0, 1].
    """

    batches = ANY
    space: ClassVar[Mapping[str, Range]] = MappingProxyType({"label_weight": Between(0.0, 0.5)})

    def __init__(self, *, label_weight: float = 0.0) -> None:
        if not 0 <= label_weight <= 1:
            raise ValueError(f"method.label_weight is {label_weight}; it must lie in [0, 1]")
        self.label_weight = label_weight

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce` and `kd`; a term of weight zero is not computed."""
        assert teacher is not None
        terms = {}
        if self.label_weight > 0:
            terms["ce"] = self.label_weight * cross_entropy(student.logits, batch.y)
        if self.label_weight < 1:
            terms["kd"] = (1 - self.label_weight) * soft_kl(student.logits, teacher.logits)
        return terms
