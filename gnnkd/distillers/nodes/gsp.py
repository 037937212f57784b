"""Global structure preserving distillation: the similarities among all pairs of nodes are those of the teacher.

C. K. Joshi, F. Liu, X. Xun, J. Lin, C. S. Foo, "On representation knowledge distillation for graph neural networks",
2022, section on global structure.

Departures: the features are what the last weight matrix multiplies; at most 2048 nodes in a step, drawn anew in each
epoch where there are more. The paper's text leaves open on what the kernels stand; here `cosine` and `poly` are of
rows of length 1, `l2` (the distance, not its square) and `rbf` of the projected rows as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.nodes.draws import compared_rows
from gnnkd.distillers.nodes.features import FeatureDistiller
from gnnkd.distillers.ranges import at_least, word
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.types import Batch, Step

Kernel: TypeAlias = Literal["cosine", "rbf", "l2", "poly"]
WEIGHTS: Mapping[str, float] = MappingProxyType({"cosine": 100.0, "rbf": 1e5, "l2": 1.0, "poly": 100.0})
"""The published weight of each kernel."""
EPS = 1e-12
"""Smallest squared distance."""


@final
class Gsp(FeatureDistiller):
    """`label_weight CE + kd_weight KL + weight * mean over i, j of (k(z_i, z_j)_s - k(z_i, z_j)_t)^2`, z projected.

    It takes memory for a few matrices [S, S], S being at most `samples`.

    Args:
        kernel: k; "cosine", "poly" (the cosine's square), "rbf" (`exp(-d^2 / 2)`) or "l2" (the distance d).
        weight: of the term `gsp`, at least 0; None is 100 for cosine and poly, 1 for l2, 100000 for rbf.
        label_weight: of the cross-entropy of labelled rows, in [0, 1].
        kd_weight: of the divergence of soft labels of all rows, at least 0.
        temperature: of that divergence, above 0, in units of logits.
        dim: units of a projector, at least 1.
        samples: the most rows compared in a step, at least 2.
        labelled: compare labelled rows alone, as published; False compares all rows.
    """

    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "kernel": OneOf(("cosine", "poly")),
            "weight": Between(100.0, 10000.0, log=True),
            "kd_weight": OneOf((0.0, 0.9)),
            "labelled": OneOf((True, False)),
        }
    )

    def __init__(
        self,
        *,
        kernel: Kernel = "cosine",
        weight: float | None = None,
        label_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        dim: int = 128,
        samples: int = 2048,
        labelled: bool = True,
    ) -> None:
        preset = WEIGHTS[word("kernel", kernel, WEIGHTS)]
        super().__init__(
            "gsp",
            weight=preset if weight is None else weight,
            label_weight=label_weight,
            kd_weight=kd_weight,
            temperature=temperature,
        )
        self.kernel, self.dim, self.labelled = kernel, int(at_least("dim", dim, 1)), labelled
        self.samples = int(at_least("samples", samples, 2))

    def term(
        self, batch: Batch, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], step: Step
    ) -> Float[Tensor, ""]:
        """The mean squared difference of similarities; 0 where fewer than two rows are compared."""
        rows = compared_rows(batch, self.samples, "gsp", self.seed, *step.name, labelled=self.labelled)
        if rows.numel() < 2:
            return 0 * student.sum()
        assert self.part is not None, "prepare comes before the first step"
        s, t = self.part(student[rows], teacher[rows], sphere=self.kernel in ("cosine", "poly"))
        return F.mse_loss(similarities(s, self.kernel), similarities(t, self.kernel))


def similarities(z: Float[Tensor, "S K"], kernel: Kernel) -> Float[Tensor, "S S"]:
    """`k(z_i, z_j)`; for "cosine" and "poly" the rows have length 1 already."""
    gram = z @ z.mT
    if kernel == "cosine":
        return gram
    if kernel == "poly":
        return gram.square()
    squares = z.square().sum(1)
    same = torch.eye(len(z), dtype=torch.bool, device=z.device)
    apart = (squares[:, None] + squares - 2 * gram).masked_fill(same, 0)
    return (-apart.clamp(min=0) / 2).exp() if kernel == "rbf" else apart.clamp(min=EPS).sqrt().masked_fill(same, 0)
