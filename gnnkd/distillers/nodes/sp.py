"""Similarity-preserving distillation on graphs: nodes that are alike for the teacher are alike for the student.

F. Tung, G. Mori, "Similarity-preserving knowledge distillation", ICCV 2019, equations 1 to 4.

Departures: nodes in the place of a mini-batch of images, a random set of them in each epoch where they are many, and
unlabelled ones too, since a teacher's features are known everywhere; the features are what the last weight matrix
multiplies.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.nodes.draws import compared_rows
from gnnkd.distillers.nodes.features import FeatureDistiller
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.sp import similarity_loss
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.types import Batch, Step


@final
class Sp(FeatureDistiller):
    """`label_weight CE + kd_weight KL + weight * |G_t - G_s|^2 / S^2`, G the Gram matrix with rows of length 1.

    It takes memory for a few matrices [S, S], S being at most `samples`.

    Args:
        weight: of the term `sp`, at least 0.
        label_weight: of the cross-entropy of labelled rows, in [0, 1].
        kd_weight: of the divergence of soft labels of all rows, at least 0.
        temperature: of that divergence, above 0, in units of logits.
        samples: the most rows compared in a step, at least 1.
        labelled: compare labelled rows alone; False compares all rows.
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
        weight: float = 3000.0,
        label_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        samples: int = 2048,
        labelled: bool = False,
    ) -> None:
        super().__init__("sp", weight=weight, label_weight=label_weight, kd_weight=kd_weight, temperature=temperature)
        self.samples, self.labelled = int(at_least("samples", samples, 1)), labelled

    def term(
        self, batch: Batch, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], step: Step
    ) -> Float[Tensor, ""]:
        """The mean squared difference of similarities; 0 where no row is compared."""
        rows = compared_rows(batch, self.samples, "sp", self.seed, *step.name, labelled=self.labelled)
        if not rows.numel():
            return 0 * student.sum()
        pixel = (..., None, None)  # a row is a map of one pixel
        return similarity_loss(student[rows][pixel], teacher[rows][pixel])
