"""P&D: the teacher's soft labels are passed along the edges before a student learns them.

Y.-M. Shin, W.-Y. Shin, "Propagate & Distill: towards effective graph learners using propagation-embracing MLPs",
LoG 2023. With P0 the teacher's probabilities, a few times over,

    P <- gamma S P + (1 - gamma) P0,    S = D^-1/2 (A + c I) D^-1/2,    D the row sums of A + c I

and with `fix` the rows of training nodes are set back to P0 each time. Then `label_weight CE + (1 - label_weight)
KL(P || student)`.

Departures: rows of P are divided by their sums, which S does not keep at 1 where degrees differ. `fix` sets back to
what the teacher says, not to the labels. Self loops of the data count beside c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gnnkd.distillers.base import Distiller
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.losses import full_precision
from gnnkd.distillers.nodes.neighbours import edges
from gnnkd.distillers.ranges import at_least, fraction
from gnnkd.distillers.space import Between, OneOf, Range, Whole
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR
from gnnkd.nn.kept import Kept
from gnnkd.types import Batch, Output, Step


@final
class Pnd(Distiller):
    """`label_weight CE + (1 - label_weight) KL(propagated teacher || student)`, temperature 1.

    Args:
        label_weight: weight of the cross-entropy on labelled nodes, in [0, 1]; with 1 nothing is passed along.
        gamma: how much of a row comes from its neighbours each time, in [0, 1]; 0 is GLNN.
        self_coeff: c, weight of a node among its neighbours, at least 0.
        iterations: how often, at least 0; 0 is GLNN.
        fix: whether training nodes are set back each time.
    """

    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "label_weight": Between(0.0, 0.5),
            "gamma": Between(0.1, 0.9),
            "iterations": Whole(1, 10),
            "fix": OneOf((False, True)),
        }
    )

    def __init__(
        self,
        *,
        label_weight: float = 0.0,
        gamma: float = 0.9,
        self_coeff: float = 2.0,
        iterations: int = 5,
        fix: bool = False,
    ) -> None:
        self.glnn = Glnn(label_weight=label_weight)
        self.gamma, self.self_coeff = fraction("gamma", gamma), at_least("self_coeff", self_coeff, 0)
        self.iterations, self.fix = int(at_least("iterations", iterations, 0)), fix
        self._kept: Kept[Tensor] = Kept()

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms of GLNN, of a teacher that has been passed along the edges of the batch."""
        assert teacher is not None
        if self.glnn.label_weight < 1 and self.gamma and self.iterations:
            logits, labelled = teacher.logits, batch.labelled
            a = edges(batch)
            found = self._kept.of(lambda: self._propagated(a, logits, labelled), logits, a, labelled)
            teacher = replace(teacher, logits=found)
        return self.glnn.loss(batch, student, teacher, step)

    def _propagated(self, a: CSR, logits: Float[Tensor, "N C"], labelled: Bool[Tensor, " N"]) -> Float[Tensor, "N C"]:
        """Logarithms of the propagated probabilities."""
        start = full_precision(logits.detach()).softmax(1)
        ones = start.new_ones(start.shape[0], 1)
        degree = neighbour_sum(a, ones) + self.self_coeff
        scale = degree.rsqrt().masked_fill(degree <= 0, 0.0)
        found = start
        for _ in range(self.iterations):
            moved = scale * (neighbour_sum(a, scale * found) + self.self_coeff * scale * found)
            found = torch.lerp(start, moved, self.gamma)
            if self.fix:
                found = torch.where(labelled[:, None], start, found)
        # A node with neither neighbours nor weight of its own, at gamma 1, keeps what the teacher says.
        total = found.sum(1, keepdim=True)
        kept = torch.where(total > 0, found / total.where(total > 0, 1), start)
        return kept.clamp(min=torch.finfo(start.dtype).tiny).log()
