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

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gnnkd.distillers.base import SAMPLED, TASK, Distiller
from gnnkd.distillers.losses import cross_entropy, full_precision
from gnnkd.distillers.nodes.pairs import Said, divergence_from, met, others, said
from gnnkd.distillers.ranges import above_zero, fraction, word
from gnnkd.distillers.space import Between, Range
from gnnkd.graph.structure import CSR
from gnnkd.nn.kept import Kept
from gnnkd.types import Batch, Output, Step

MEANS = ("edges", "nodes")
_BLOCK = 1 << 16
"""Fewest edges at once: the numbers of so many, times classes, are small beside those of a network's layers."""
KEPT = 1 << 26
"""Most bytes of a teacher's differences that are kept from step to step; more are computed again in each."""


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
        self._said: Kept[Said] = Kept()
        self._differ: Kept[tuple[Tensor, ...] | None] = Kept()

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce`, `low` and `high`; a term of weight zero is not computed."""
        assert teacher is not None
        terms = {}
        if self.label_weight > 0:
            terms[TASK] = self.label_weight * cross_entropy(student.logits, batch.y)
        if self.label_weight < 1:
            rest, logits = 1 - self.label_weight, teacher.logits
            s, t = full_precision(student.logits), full_precision(logits.detach())
            a, pairs = others(batch), met(batch)
            told = self._said.of(lambda: said(a, self._weight(a, s.dtype), t, 1.0), logits, a, s.dtype)
            terms["low"] = rest * divergence_from(told, s, 1.0)
            differ = self._differ.of(lambda: differing(pairs, t, self.tau), logits, pairs)
            terms["high"] = rest * difference_divergence(pairs, s, t, self.tau, differ)
        return terms

    def _weight(self, a: CSR, dtype: torch.dtype) -> Float[Tensor, " E"] | None:
        return _shares(a, dtype) if self.low_mean == "nodes" else None


def _shares(a: CSR, dtype: torch.dtype) -> Float[Tensor, " E"]:
    """1 / the number of entries in its row, for each entry."""
    return a.rowptr.diff()[a.row.long()].to(dtype).reciprocal()


@torch.no_grad()
def differing(a: CSR, teacher: Float[Tensor, "N C"], tau: float) -> tuple[Tensor, ...] | None:
    """The teacher's part of `difference_divergence`, block by block; None where that is more than `KEPT` bytes."""
    if a.n_entries * teacher.shape[1] * teacher.element_size() > KEPT:
        return None
    return tuple(_log_differences(teacher, row, col, tau) for row, col in _blocks(a, a.row, a.col))


def difference_divergence(
    a: CSR,
    student: Float[Tensor, "N C"],
    teacher: Float[Tensor, "N C"],
    tau: float,
    differ: Sequence[Tensor] | None = None,
) -> Float[Tensor, ""]:
    """Mean over entries (i, j) of `KL(softmax(|t_i - t_j| / tau) || softmax(|s_i - s_j| / tau))`; 0 without entries.

    Each entry counts as often as its value says. Takes memory for max(N, 65536) x C numbers beside the entries
    themselves and `differ`; differentiable to any order.

    Args:
        a: two neighbours once.
        student: logits s.
        teacher: logits t, without a gradient.
        tau: temperature, above 0, in units of logits.
        differ: what `differing` gave of the same entries, logits and temperature; None computes it here.
    """
    weight = a.values(student.dtype)
    total = weight.sum().clamp(min=1)
    blocks = _blocks(a, a.row, a.col, weight)
    told: Sequence[Tensor | None] = [None] * len(blocks) if differ is None else differ
    if len(blocks) == 1:
        return _block(student, teacher, tau, told[0], *blocks[0]) / total
    sums = [
        checkpoint(_block, student, teacher, tau, log_t, *block, use_reentrant=False, preserve_rng_state=False)
        for log_t, block in zip(told, blocks, strict=True)
    ]
    return torch.stack(sums).sum() / total


def _block(
    student: Float[Tensor, "N C"],
    teacher: Float[Tensor, "N C"],
    tau: float,
    log_t: Float[Tensor, "B C"] | None,
    row: Int[Tensor, " B"],
    col: Int[Tensor, " B"],
    weight: Float[Tensor, " B"],
) -> Float[Tensor, ""]:
    log_t = _log_differences(teacher, row, col, tau) if log_t is None else log_t
    log_s = _log_differences(student, row, col, tau)
    return (weight * F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1)).sum()


def _log_differences(
    logits: Float[Tensor, "N C"], row: Int[Tensor, " B"], col: Int[Tensor, " B"], tau: float
) -> Float[Tensor, "B C"]:
    return F.log_softmax((logits.index_select(0, row) - logits.index_select(0, col)).abs() / tau, dim=1)


def _blocks(a: CSR, *of: Tensor) -> list[tuple[Tensor, ...]]:
    # As many edges as nodes at least, so that a block's gradient, which has a row for each node, costs no more.
    size = max(_BLOCK, a.shape[0])
    return list(zip(*(torch.split(each, size) for each in of), strict=True))
