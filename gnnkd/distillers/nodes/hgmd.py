"""HGMD: an MLP learns more from its neighbours where a node is hard for it and its teacher, without new parameters.

L. Wu, Y. Liu, H. Lin, Y. Huang, S. Z. Li, "Teach harder, learn poorer: rethinking hard sample distillation for
GNN-to-MLP knowledge distillation", CIKM 2024. With p the teacher's soft label at temperature tau, H entropies over
their largest, T of the teacher and S of the student, and i the node that learns, an edge (i, j) is kept with the chance

    r_ij = 1 - exp(-a cos(p_i, p_j) sqrt(H^T_i H^S_i) / H^T_j),    a = hardness anneal^(-epoch / (epochs - 1))

and each node is always paired with itself. Over all pairs,

    weight:  mean of v_ij KL(p_j || s_i),  v_ij = (kept neighbours of i) cos(p_i, p_j) r_ij / (sum over those of i)
    mixup:   mean of KL((1 - w) p_i + w p_j || s_i),  w = r_ij Beta(beta, beta), drawn for each edge and epoch

with v = 1 and w = 0 for a node and itself; the loss is `label_weight CE + (1 - label_weight)` times one of them.

Departures: the formulas were followed, not the published code. The student's entropies are those of training mode, and
no gradient goes through r, v or w. In "weight" a self pair has weight 1 and the neighbours share the rest. Self loops
of the data and weights of edges are not looked at. The published settings differ by data set (hardness 1 to 10, beta .3
to .5, tau .8 to 1.2, label_weight 0 to .2); the defaults are in their middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from gnnkd.distillers.base import SAMPLED, TASK, Distiller
from gnnkd.distillers.losses import cross_entropy, full_precision
from gnnkd.distillers.nodes import draws
from gnnkd.distillers.nodes.pairs import entropy, others, pair_divergence
from gnnkd.distillers.ranges import above_zero, at_least, fraction, word
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.graph.attention import edge_dot, expand, segment_sum
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR
from gnnkd.nn.kept import Kept
from gnnkd.types import Batch, Output, Step

MODES = ("weight", "mixup")
"""What is done with the neighbours that are kept."""
EPS = 1e-12
"""Smallest entropy, of the largest, that something is divided by."""
_BLOCK = 1 << 16
"""Edges at once where the entropy of mixed labels is summed."""


@final
class Hgmd(Distiller):
    """`label_weight CE + (1 - label_weight)` times the divergence of weighted or mixed pairs.

    Args:
        mode: "weight" weighs the pairs, "mixup" mixes the labels of a pair.
        hardness: a at the first epoch, at least 0; more keeps more neighbours.
        anneal: factor by which a falls over the training, at least 1.
        concentration: both parameters of the Beta distribution of "mixup", above 0; not read in "weight".
        tau: temperature, above 0, in units of logits.
        label_weight: weight of the cross-entropy on labelled nodes, in [0, 1].
    """

    batches = SAMPLED
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "mode": OneOf(MODES),
            "hardness": Between(1.0, 10.0),
            "concentration": Between(0.3, 0.5),
            "tau": Between(0.8, 1.2),
            "label_weight": Between(0.0, 0.2),
        }
    )

    def __init__(
        self,
        *,
        mode: Literal["weight", "mixup"] = "mixup",
        hardness: float = 5.0,
        anneal: float = 100.0,
        concentration: float = 0.4,
        tau: float = 1.0,
        label_weight: float = 0.1,
    ) -> None:
        self.mode, self.tau = word("mode", mode, MODES), above_zero("tau", tau)
        self.concentration = above_zero("concentration", concentration)
        self.hardness, self.anneal = at_least("hardness", hardness, 0), at_least("anneal", anneal, 1)
        self.label_weight = fraction("label_weight", label_weight)
        self._easy: Kept[tuple[Tensor, Tensor]] = Kept()
        self._seen: dict[str, Tensor] = {}

    def at(self, step: Step) -> float:
        """a at an epoch."""
        return float(self.hardness * self.anneal ** (-step.epoch / max(1, step.epochs - 1)))

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce` and `hgmd`; a term of weight zero is not computed."""
        assert teacher is not None
        terms = {}
        if self.label_weight > 0:
            terms[TASK] = self.label_weight * cross_entropy(student.logits, batch.y)
        if self.label_weight < 1:
            logits, a = teacher.logits, others(batch)
            s, t = full_precision(student.logits), full_precision(logits.detach())
            near, taught = self._easy.of(lambda: (likeness(a, t / self.tau), relative_entropy(t / self.tau)), logits, a)
            chance = keeping(a, near, relative_entropy(s.detach() / self.tau), taught, self.at(step))
            kept = draws.bernoulli(chance, "hgmd", self.seed, *step.name)
            self._seen = {"hgmd/pairs": kept.float().sum() / max(1, a.n_entries)}
            if self.mode == "weight":
                term = pair_divergence(a, shared(a, near * chance, kept), s, t, self.tau)
            else:
                mix = chance * draws.beta(self.concentration, chance, "hgmd beta", self.seed, *step.name)
                term = mixed_divergence(a, mix, kept, s, t, self.tau)
            terms["hgmd"] = (1 - self.label_weight) * term
        return terms

    def diagnostics(self) -> Mapping[str, Tensor]:
        """`hgmd/pairs`: the share of edges that are pairs, at the last step."""
        return dict(self._seen)


def likeness(a: CSR, teacher: Float[Tensor, "N C"]) -> Float[Tensor, " E"]:
    """Cosine of the soft labels of both ends of each entry, in [0, 1]."""
    unit = F.normalize(teacher.softmax(1), dim=1)[:, None]
    return edge_dot(a, unit, unit)[:, 0].clamp(0, 1)


def relative_entropy(logits: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
    """H, the entropy of each row's soft label over the largest one, in [0, 1], without a gradient."""
    found = entropy(logits)
    return found / found.max().clamp(min=EPS)


def keeping(
    a: CSR, near: Float[Tensor, " E"], student: Float[Tensor, " N"], teacher: Float[Tensor, " N"], hardness: float
) -> Float[Tensor, " E"]:
    """The chance r of each entry, in [0, 1]: high where its row is hard and its column easy.

    Args:
        a: edges without self loops.
        near: cosines of the teacher's soft labels.
        student: H of the student.
        teacher: H of the teacher.
        hardness: the factor a of the exponent, at least 0.
    """
    hard = (student * teacher).sqrt()
    return -torch.expm1(-hardness * near * hard[a.row] / teacher[a.col].clamp(min=EPS))


def shared(a: CSR, closeness: Float[Tensor, " E"], kept: Bool[Tensor, " E"]) -> Float[Tensor, " E"]:
    """Weights of the kept entries in proportion to `closeness`, of mean 1 in each row; the others have 0."""
    alive = torch.stack([closeness * kept, kept.to(closeness.dtype)], 1)
    total, number = expand(a, segment_sum(a, alive)).unbind(1)
    return alive[:, 0] * number / torch.where(total > 0, total, 1.0)


def mixed_divergence(
    a: CSR,
    mix: Float[Tensor, " E"],
    kept: Bool[Tensor, " E"],
    student: Float[Tensor, "N C"],
    teacher: Float[Tensor, "N C"],
    tau: float,
) -> Float[Tensor, ""]:
    """Mean of `KL((1 - w) p_i + w p_j || softmax(s_i / tau))` in nats over kept entries (i, j) and all self pairs.

    Args:
        a: edges without self loops.
        mix: the share w of the neighbour, in [0, 1].
        kept: the entries that are pairs.
        student: logits.
        teacher: logits, without a gradient; p are its soft labels at `tau`.
        tau: temperature, in units of logits.
    """
    with torch.no_grad():
        p = (teacher / tau).softmax(1)
        rest = segment_sum(a, ((1 - mix) * kept)[:, None])
        target = (1 + rest) * p + neighbour_sum(a.with_value(mix * kept), p)
        surety = torch.xlogy(p, p).sum() + _mixed_surety(a, mix, kept, p)
        pairs = len(student) + kept.sum()
    return (surety - (target * F.log_softmax(student / tau, dim=1)).sum()) / pairs


def _mixed_surety(a: CSR, mix: Tensor, kept: Tensor, p: Float[Tensor, "N C"]) -> Float[Tensor, ""]:
    """Sum of `m log m` over the mixed labels m of the kept entries, in blocks of edges."""
    total = p.new_zeros(())
    for entry in torch.split(kept.nonzero().flatten(), _BLOCK):
        mixed = torch.lerp(p[a.row[entry]], p[a.col[entry]], mix[entry, None])
        total += torch.xlogy(mixed, mixed).sum()
    return total
