"""Attention transfer on graphs: the nodes at which the student is active are those at which the teacher is.

S. Zagoruyko, N. Komodakis, "Paying more attention to attention", ICLR 2017, equation 2, with nodes in the place of
pixels, in the form that C. K. Joshi, F. Liu, X. Xun, J. Lin, C. S. Foo, "On representation knowledge distillation for
graph neural networks", 2022, compares with.

Departures: the features are what the last weight matrix multiplies, of one layer alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.nodes.features import FeatureDistiller, compared
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.types import Batch, Step


@final
class At(FeatureDistiller):
    """`label_weight CE + kd_weight KL + weight * mean over nodes of (a(h_s) - a(h_t))_i^2`, `a(h)_i = |h_i|^2 / |a|`.

    The vector `a` over the compared nodes has length 1, so the term is at most 2 over their number: the published
    weight, for 90,000 of them, is large on small graphs.

    Args:
        weight: of the term `at`, at least 0.
        label_weight: of the cross-entropy of labelled rows, in [0, 1].
        kd_weight: of the divergence of soft labels of all rows, at least 0.
        temperature: of that divergence, above 0, in units of logits.
        labelled: compare labelled rows alone, as published; False compares all rows.
    """

    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "weight": Between(10.0, 100000.0, log=True),
            "kd_weight": OneOf((0.0, 0.9)),
            "labelled": OneOf((True, False)),
        }
    )

    def __init__(
        self,
        *,
        weight: float = 1e5,
        label_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        labelled: bool = True,
    ) -> None:
        super().__init__("at", weight=weight, label_weight=label_weight, kd_weight=kd_weight, temperature=temperature)
        self.labelled = labelled

    def term(
        self, batch: Batch, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], step: Step
    ) -> Float[Tensor, ""]:
        """The mean squared difference; 0 where no row is compared."""
        rows = compared(batch, labelled=self.labelled).nonzero().flatten()
        if not rows.numel():
            return 0 * student.sum()
        return F.mse_loss(activity(student[rows]), activity(teacher[rows]))


def activity(h: Float[Tensor, "S _"]) -> Float[Tensor, " S"]:
    """Squared length of each row, l2 normalised over the rows."""
    return F.normalize(h.square().sum(1), dim=0)
