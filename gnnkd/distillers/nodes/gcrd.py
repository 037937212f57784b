"""G-CRD: a node's features in the student find those of the same node in the teacher among those of others.

C. K. Joshi, F. Liu, X. Xun, J. Lin, C. S. Foo, "On representation knowledge distillation for graph neural networks",
2022, the contrastive loss.

Departures: the features are what the last weight matrix multiplies; at most 4096 nodes in a step by default, where the
paper goes up to 16384: time grows with their square (`samples=16384` is the paper's, in the same memory for every
block of rows).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gnnkd.distillers.nodes.draws import compared_rows
from gnnkd.distillers.nodes.features import FeatureDistiller
from gnnkd.distillers.ranges import above_zero, at_least
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.types import Batch, Step

BLOCK = 1024
"""Rows of the student that are compared with all of the teacher at a time."""


@final
class Gcrd(FeatureDistiller):
    """`label_weight CE + kd_weight KL + weight * mean over i of -log softmax_j(z_s_i . z_t_j / tau)_i`, z of length 1.

    Args:
        weight: of the term `gcrd`, at least 0.
        label_weight: of the cross-entropy of labelled rows, in [0, 1].
        kd_weight: of the divergence of soft labels of all rows, at least 0.
        temperature: of that divergence, above 0, in units of logits.
        tau: temperature of the contrast, above 0, in units of cosines.
        dim: units of a projector, at least 1.
        samples: the most rows compared in a step, at least 2.
        labelled: compare labelled rows alone, as published; False compares all rows.
    """

    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "weight": Between(0.01, 1.0, log=True),
            "tau": OneOf((0.05, 0.075, 0.1)),
            "kd_weight": OneOf((0.0, 0.9)),
            "labelled": OneOf((True, False)),
        }
    )

    def __init__(
        self,
        *,
        weight: float = 0.1,
        label_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        tau: float = 0.075,
        dim: int = 256,
        samples: int = 4096,
        labelled: bool = True,
    ) -> None:
        super().__init__("gcrd", weight=weight, label_weight=label_weight, kd_weight=kd_weight, temperature=temperature)
        self.tau, self.dim = above_zero("tau", tau), int(at_least("dim", dim, 1))
        self.samples, self.labelled = int(at_least("samples", samples, 2)), labelled

    def term(
        self, batch: Batch, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], step: Step
    ) -> Float[Tensor, ""]:
        """The contrast; 0 where fewer than two rows are compared."""
        rows = compared_rows(batch, self.samples, "gcrd", self.seed, *step.name, labelled=self.labelled)
        if rows.numel() < 2:
            return 0 * student.sum()
        assert self.part is not None, "prepare comes before the first step"
        s, t = self.part(student[rows], teacher[rows], sphere=True)
        return contrast(s, t, self.tau)


def contrast(
    student: Float[Tensor, "S K"], teacher: Float[Tensor, "S K"], tau: float, *, block: int = BLOCK
) -> Float[Tensor, ""]:
    """`mean_i -log softmax_j(s_i . t_j / tau)_i`, in memory for a few matrices [block, S].

    Args:
        student: s, rows of length 1.
        teacher: t, the same rows in the same order.
        tau: above 0.
        block: rows of the student at a time, at least 1.
    """
    own = torch.arange(len(student), device=student.device)
    if len(student) <= block:
        return _missed(student, teacher, own, tau) / len(student)
    parts = [
        # The scores of a block are computed again for the gradient: kept, they would be a matrix [S, S].
        checkpoint(_missed, s, teacher, i, tau, use_reentrant=False, preserve_rng_state=False)
        for s, i in zip(torch.split(student, block), torch.split(own, block), strict=True)
    ]
    return torch.stack(parts).sum() / len(student)


def _missed(
    student: Float[Tensor, "B K"], teacher: Float[Tensor, "S K"], own: Int[Tensor, " B"], tau: float
) -> Float[Tensor, ""]:
    """Sum over rows of the cross-entropy of finding row `own` of the teacher."""
    return F.cross_entropy(student @ teacher.mT / tau, own, reduction="sum")
