"""FitNet on graphs: the features of both networks agree after a projector each.

A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio, "FitNets: hints for thin deep nets", ICLR 2015,
equation 3, in the form that C. K. Joshi, F. Liu, X. Xun, J. Lin, C. S. Foo, "On representation knowledge distillation
for graph neural networks", 2022, compares with.

Departures: the features are what the last weight matrix multiplies; hint and cross-entropy together from the first
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.nodes.features import FeatureDistiller, compared
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.types import Batch, Step


@final
class FitNet(FeatureDistiller):
    """`label_weight CE + kd_weight KL + weight * mean (u(P_s h_s) - u(P_t h_t))^2`, u(z) = z / |z|, P projectors.

    Args:
        weight: of the term `fitnet`, at least 0; the mean is over rows and units, so it shrinks with `dim`.
        label_weight: of the cross-entropy of labelled rows, in [0, 1].
        kd_weight: of the divergence of soft labels of all rows, at least 0.
        temperature: of that divergence, above 0, in units of logits.
        dim: units of a projector, at least 1.
        labelled: compare labelled rows alone, as published; False compares all rows.
    """

    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "weight": Between(100.0, 10000.0, log=True),
            "kd_weight": OneOf((0.0, 0.9)),
            "labelled": OneOf((True, False)),
        }
    )

    def __init__(
        self,
        *,
        weight: float = 1000.0,
        label_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        dim: int = 256,
        labelled: bool = True,
    ) -> None:
        super().__init__(
            "fitnet", weight=weight, label_weight=label_weight, kd_weight=kd_weight, temperature=temperature
        )
        self.dim, self.labelled = int(at_least("dim", dim, 1)), labelled

    def term(
        self, batch: Batch, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], step: Step
    ) -> Float[Tensor, ""]:
        """The mean squared difference on the unit sphere; 0 where fewer than two rows are compared."""
        rows = compared(batch, labelled=self.labelled).nonzero().flatten()
        if rows.numel() < 2:
            return 0 * student.sum()
        assert self.part is not None, "prepare comes before the first step"
        return F.mse_loss(*self.part(student[rows], teacher[rows], sphere=True))
