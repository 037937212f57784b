"""FF-G2M: an MLP learns low and high frequencies from its teacher, what neighbours share and in what they differ.

L. Wu, H. Lin, Y. Huang, T. Fan, S. Z. Li, "Extracting low-/high-frequency knowledge from graph neural networks and
injecting it into MLPs: an effective GNN-to-MLP distillation framework", AAAI 2023. With i the node that learns, j its
neighbour, s and t the logits of student and teacher,

    low  = mean over edges (i, j) and over pairs (i, i) of KL(softmax(t_j) || softmax(s_i))
    high = mean over edges (i, j) of KL(softmax(|t_i - t_j| / tau) || softmax(|s_i - s_j| / tau))

the absolute value class by class, and the loss is `label_weight CE + (1 - label_weight) (low + high)`.

Departures: the published settings have another label_weight and tau for each data set (cora .4 and 1.5, citeseer .1 and
1.5, pubmed 0 and 1.5, physics .2 and 1.2, photo .1 and 1.3), the defaults here are in their middle; self loops of the
data are no edges of the high frequencies; weights of edges are not looked at; the teacher and the student's width are
the user's. In a mean over edges a node counts as often as it has neighbours, and where few nodes have most of the edges
little else is learnt; with `low_mean="nodes"`, which is not in the paper, the neighbours of a node count together as
much as the node itself (docs/results.md says what that is worth on amazon-photo). Differences are the same in both
directions, so that two neighbours are compared once and counted twice; they are taken in blocks, which are computed
again for the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gnnkd.distillers.base import SAMPLED, TASK, Distiller
from gnnkd.distillers.losses import cross_entropy, full_precision
from gnnkd.distillers.nodes.pairs import met, others, pair_divergence
from gnnkd.distillers.ranges import above_zero, fraction, word
from gnnkd.distillers.space import Between, Range
from gnnkd.graph.structure import CSR
from gnnkd.types import Batch, Output, Step

MEANS = ("edges", "nodes")
_BLOCK = 1 << 16
"""Fewest edges at once: the numbers of so many, times classes, are small beside those of a network's layers."""


@final
class Ffg2m(Distiller):
    """`label_weight CE + (1 - label_weight) (low + high)`.

    Args:
        label_weight: weight of the cross-entropy on labelled nodes, in [0, 1].
        tau: temperature of the high frequencies, above 0, in units of logits; that of the low ones is 1.
        low_mean: of the low frequencies: over "edges", or over "nodes", an edge (i, j) weighing 1 / degree of i.
    """

    batches = SAMPLED
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {"label_weight": Between(0.0, 0.5), "tau": Between(1.0, 1.5)}
    )

    def __init__(
        self, *, label_weight: float = 0.1, tau: float = 1.3, low_mean: Literal["edges", "nodes"] = "edges"
    ) -> None:
        self.label_weight, self.tau = fraction("label_weight", label_weight), above_zero("tau", tau)
        self.low_mean = word("low_mean", low_mean, MEANS)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce`, `low` and `high`; a term of weight zero is not computed."""
        assert teacher is not None
        terms = {}
        if self.label_weight > 0:
            terms[TASK] = self.label_weight * cross_entropy(student.logits, batch.y)
        if self.label_weight < 1:
            rest = 1 - self.label_weight
            s, t = full_precision(student.logits), full_precision(teacher.logits.detach())
            a = others(batch)
            terms["low"] = rest * pair_divergence(
                a, _shares(a, s.dtype) if self.low_mean == "nodes" else None, s, t, 1.0
            )
            terms["high"] = rest * difference_divergence(met(batch), s, t, self.tau)
        return terms


def _shares(a: CSR, dtype: torch.dtype) -> Float[Tensor, " E"]:
    """1 / the number of entries in its row, for each entry."""
    return a.rowptr.diff()[a.row.long()].to(dtype).reciprocal()


def difference_divergence(
    a: CSR, student: Float[Tensor, "N C"], teacher: Float[Tensor, "N C"], tau: float
) -> Float[Tensor, ""]:
    """Mean over entries (i, j) of `KL(softmax(|t_i - t_j| / tau) || softmax(|s_i - s_j| / tau))`; 0 without entries.

    Each entry counts as often as its value says. Takes memory for max(N, 65536) x C numbers beside the entries
    themselves; differentiable to any order.
    """
    # As many edges as nodes at least, so that a block's gradient, which has a row for each node, costs no more.
    size, weight = max(_BLOCK, a.shape[0]), a.values(student.dtype)
    total = weight.sum().clamp(min=1)
    row, col, count = (torch.split(each, size) for each in (a.row, a.col, weight))
    blocks = list(zip(row, col, count, strict=True))
    if len(blocks) == 1:
        return _block(student, teacher, *blocks[0], tau) / total
    sums = [
        checkpoint(_block, student, teacher, *block, tau, use_reentrant=False, preserve_rng_state=False)
        for block in blocks
    ]
    return torch.stack(sums).sum() / total


def _block(
    student: Float[Tensor, "N C"],
    teacher: Float[Tensor, "N C"],
    row: Int[Tensor, " B"],
    col: Int[Tensor, " B"],
    weight: Float[Tensor, " B"],
    tau: float,
) -> Float[Tensor, ""]:
    log_t = F.log_softmax(_differences(teacher, row, col) / tau, dim=1)
    log_s = F.log_softmax(_differences(student, row, col) / tau, dim=1)
    return (weight * F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1)).sum()


def _differences(logits: Float[Tensor, "N C"], row: Int[Tensor, " B"], col: Int[Tensor, " B"]) -> Float[Tensor, "B C"]:
    return (logits.index_select(0, row) - logits.index_select(0, col)).abs()
