"""Relational knowledge distillation on graphs: distances between nodes and angles among three are those of the teacher.

W. Park, D. Kim, Y. Lu, M. Cho, "Relational knowledge distillation", CVPR 2019, equations 4 to 9.

Departures: nodes in the place of a mini-batch of images, a random set of them in each epoch where they are many (a
smaller one for angles, of which there are `S^3`), and unlabelled ones too, since a teacher's features are known
everywhere; the features are what the last weight matrix multiplies; three nodes of which two have one place have no
angle.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.nodes.draws import compared_rows
from gnnkd.distillers.nodes.features import FeatureDistiller
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.rkd import angle_loss, distance_loss
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.types import Batch, Step


@final
class Rkd(FeatureDistiller):
    """`label_weight CE + kd_weight KL + distance_weight L_D + angle_weight L_A`, Huber losses of distances and cosines.

    The last two are the term `rkd`. Distances take memory for a few matrices [S, S], angles for a few arrays
    [S, S, max(K, S)].

    Args:
        distance_weight: of the loss of distances, at least 0.
        angle_weight: of the loss of angles, at least 0.
        label_weight: of the cross-entropy of labelled rows, in [0, 1].
        kd_weight: of the divergence of soft labels of all rows, at least 0.
        temperature: of that divergence, above 0, in units of logits.
        samples: the most rows whose distances are compared in a step, at least 2.
        angle_samples: the most rows whose angles are compared in a step, at least 3.
        labelled: compare labelled rows alone; False compares all rows.
    """

    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "distance_weight": Between(1.0, 100.0, log=True),
            "angle_weight": Between(1.0, 200.0, log=True),
            "kd_weight": OneOf((0.0, 0.9)),
            "labelled": OneOf((True, False)),
        }
    )

    def __init__(
        self,
        *,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        label_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        samples: int = 1024,
        angle_samples: int = 128,
        labelled: bool = False,
    ) -> None:
        weights = {"distance": distance_weight, "angle": angle_weight}
        self.weights = {name: at_least(f"{name}_weight", weight, 0) for name, weight in weights.items()}
        self.sizes = {
            "distance": int(at_least("samples", samples, 2)),
            "angle": int(at_least("angle_samples", angle_samples, 3)),
        }
        any_weight = float(any(self.weights.values()))
        if not (any_weight or label_weight or kd_weight):
            raise ValueError("method.distance_weight is 0, as all other weights are; one must be above 0")
        super().__init__(
            "rkd", weight=any_weight, label_weight=label_weight, kd_weight=kd_weight, temperature=temperature
        )
        self.labelled = labelled
        self._last: dict[str, Tensor] = {}

    def term(
        self, batch: Batch, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], step: Step
    ) -> Float[Tensor, ""]:
        """Both losses with their weights; 0 where fewer than two rows are compared."""
        losses = []
        for name, of in (("distance", distance_loss), ("angle", angle_loss)):
            if self.weights[name]:
                draw = ("rkd", name, self.seed, *step.name)
                rows = compared_rows(batch, self.sizes[name], *draw, labelled=self.labelled)
                # One row alone has no distance, and the mean distance would be none.
                loss = of(student[rows], teacher[rows]) if rows.numel() > 1 else 0 * student.sum()
                self._last[f"rkd/{name}"] = loss.detach()
                losses.append(self.weights[name] * loss)
        return torch.stack(losses).sum()

    def diagnostics(self) -> Mapping[str, Tensor]:
        """`rkd/distance` and `rkd/angle`: both losses of the last step before their weights."""
        return dict(self._last)
