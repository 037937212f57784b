"""KRD: an MLP learns from those neighbours whose teacher is reliable, more of them as it comes to agree with it.

L. Wu, H. Lin, Y. Huang, S. Z. Li, "Quantifying the knowledge in GNNs for reliable distillation into MLPs", ICML 2023.
With H the entropy of the teacher's soft label and one draw of normal noise on the features,

    rho_i = |H(teacher on x + noise)_i - H(teacher on x)_i| / max over nodes,    q_i = 1 - rho_i^alpha
    loss  = label_weight CE + (1 - label_weight) mean over pairs (i, j) of KL(softmax(t_j / tau) || softmax(s_i / tau))

Pairs are all edges at first; after the warm-up each edge is a pair with the chance q_j of its neighbour; each node is
always paired with itself. alpha follows how far the student agrees with its teacher: the share of nodes of equal class
in each of 50 bins of rho, brought to [0, 1], is fitted by `1 - rho^a`, and alpha <- momentum alpha + (1 - momentum) a.

Departures: one draw of noise and the absolute value, as in the published code, where the paper has a mean of squares;
entropies are of temperature 1. The share of a bin is that of its nodes on which both agree, in training mode; empty
bins are left out; the curve is read at the middle of a bin, the published code's at its left end plus .05; the fit is
the best a in [.01, 100], searched on a grid. alpha moves at each draw of pairs, so not within the warm-up. Self loops
of the data and weights of edges are not looked at. On samples alpha follows the first batch of an epoch alone, as far
as a process sees it, and each epoch draws pairs of other edges, so that `redraw_every` is of alpha alone. The published
settings have another label_weight (0 to .5), tau (.8 to 1.2) and width for each data set and teacher; the defaults here
are in their middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gnnkd.distillers.base import SAMPLED, TASK, Distiller, Lesson
from gnnkd.distillers.losses import cross_entropy, full_precision
from gnnkd.distillers.nodes import draws
from gnnkd.distillers.nodes.pairs import Said, divergence_from, entropy, others, said
from gnnkd.distillers.nodes.rows import Rows
from gnnkd.distillers.ranges import above_zero, at_least, below_one, fraction
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR
from gnnkd.nn.kept import Kept
from gnnkd.types import Batch, Output, Step

BINS = 50
LEAST, MOST = 0.01, 100.0
"""The exponents that a fit may find."""


@final
class Krd(Distiller):
    """`label_weight CE + (1 - label_weight) mean over reliable pairs of KL(teacher of j || student of i)`.

    The teacher is asked once about all features with noise; they are dense, so that this takes memory for one matrix
    N x D beside the features, and what the teacher makes of it.

    Args:
        label_weight: weight of the cross-entropy on labelled nodes, in [0, 1]; with 1 no teacher is asked.
        tau: temperature, above 0, in units of logits.
        noise: standard deviation of the noise, above 0, in units of features.
        warmup_epochs: epochs in which all edges are pairs, at least 0.
        redraw_every: epochs between two draws of pairs, at least 1.
        momentum: of alpha, in [0, 1).
    """

    batches = SAMPLED
    asks_teacher = True
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {"label_weight": Between(0.0, 0.5), "tau": Between(0.8, 1.2), "momentum": OneOf((0.9, 0.99))}
    )

    def __init__(
        self,
        *,
        label_weight: float = 0.1,
        tau: float = 1.0,
        noise: float = 1.0,
        warmup_epochs: int = 50,
        redraw_every: int = 1,
        momentum: float = 0.99,
    ) -> None:
        self.label_weight, self.tau = fraction("label_weight", label_weight), above_zero("tau", tau)
        self.noise = above_zero("noise", noise)
        self.warmup_epochs = int(at_least("warmup_epochs", warmup_epochs, 0))
        self.redraw_every = int(at_least("redraw_every", redraw_every, 1))
        self.momentum, self.alpha = below_one("momentum", momentum), 1.0
        self.asks_teacher = self.label_weight < 1
        self._drawn = -1
        self._rows: Rows | None = None
        self._rho: Tensor | None = None
        self._all: Kept[Said] = Kept()
        self._seen: dict[str, Tensor] = {}

    def prepare(self, lesson: Lesson) -> None:
        """Ask the teacher about noisy features.

        Raises:
            UserError: there is no teacher to ask, only its logits.
        """
        super().prepare(lesson)
        if not self.asks_teacher:
            return
        assert lesson.batch is not None
        assert lesson.teacher is not None
        if lesson.ask is None:
            raise UserError(
                "krd asks the teacher about features with noise, and there are only its logits; give the network that "
                "made them, or choose ffg2m"
            )
        self._drawn, self.alpha = -1, 1.0
        self._rows = Rows(lesson.batch.index)
        noisy = lesson.ask(draws.noised(lesson.batch.x, self.noise, "krd noise", lesson.seed))
        self._rho = reliability(full_precision(lesson.teacher.logits), full_precision(noisy.logits))

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce` and `krd`; a term of weight zero is not computed."""
        assert teacher is not None
        terms = {}
        if self.label_weight > 0:
            terms[TASK] = self.label_weight * cross_entropy(student.logits, batch.y)
        if self.label_weight < 1:
            logits = teacher.logits
            s, t = full_precision(student.logits), full_precision(logits.detach())
            a, rho = others(batch), self._of(batch)
            self._follow(rho, s.detach().argmax(1) == t.argmax(1), step)
            kept = self._kept(a, rho, step)
            share = s.new_ones(()) if kept is None else kept.float().sum() / max(1, a.n_entries)
            self._seen = {"krd/alpha": s.new_tensor(self.alpha), "krd/pairs": share}
            if kept is None:  # what all neighbours say is the same throughout the warm-up
                told = self._all.of(lambda: said(a, None, t, self.tau), logits, a)
            else:
                self._all = Kept()
                told = said(a, kept.to(s.dtype), t, self.tau)
            terms["krd"] = (1 - self.label_weight) * divergence_from(told, s, self.tau)
        return terms

    def _of(self, batch: Batch) -> Float[Tensor, " N"]:
        assert self._rho is not None, "prepare comes before the first step"
        assert self._rows is not None
        return self._rho[self._rows.of(batch)]

    def _follow(self, rho: Float[Tensor, " N"], agree: Bool[Tensor, " N"], step: Step) -> None:
        """Move alpha where pairs are to be drawn anew."""
        since = step.epoch - self.warmup_epochs
        if since < 0 or since % self.redraw_every or step.epoch == self._drawn:
            return
        found = fitted(rho, agree)
        if found is not None:
            self.alpha = self.momentum * self.alpha + (1 - self.momentum) * found
        self._drawn = step.epoch

    def _kept(self, a: CSR, rho: Float[Tensor, " N"], step: Step) -> Bool[Tensor, " E"] | None:
        """The edges that are pairs, None for all; between two draws the same edges come from the same name."""
        if step.epoch < self.warmup_epochs:
            return None
        chance = 1 - rho**self.alpha
        return draws.bernoulli(chance.index_select(0, a.col), "krd", self.seed, self._drawn, *step.name[1:])

    def diagnostics(self) -> Mapping[str, Tensor]:
        """`krd/alpha`, and `krd/pairs`, the share of edges that are pairs, at the last step."""
        return dict(self._seen)

    def state(self) -> dict[str, Tensor]:
        """alpha and the epoch of the last draw, which is made again from its name."""
        own = {"alpha": torch.tensor(self.alpha, dtype=torch.float64), "drawn": torch.tensor(self._drawn)}
        return super().state() | own

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`, after `prepare`."""
        self.alpha, self._drawn = float(tensors["alpha"]), int(tensors["drawn"])


def reliability(clean: Float[Tensor, "N C"], noisy: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
    """How much a teacher's entropy moves with noise, in units of the most that one moves; 0 is reliable, 1 is not."""
    moved = (entropy(noisy) - entropy(clean)).abs()
    most = moved.max()
    return moved / torch.where(most > 0, most, 1.0)


def fitted(rho: Float[Tensor, " N"], agree: Bool[Tensor, " N"]) -> float | None:
    """The a of the best `1 - rho^a` for the curve of agreement over rho; None where that curve is flat.

    Args:
        rho: of nodes, in [0, 1].
        agree: whether student and teacher see the same class.
    """
    bins = (rho * BINS).long().clamp(max=BINS - 1)
    total = torch.bincount(bins, minlength=BINS).double().cpu()
    hits = torch.bincount(bins[agree], minlength=BINS).double().cpu()
    there = total > 0
    share = hits[there] / total[there]
    low, high = share.min(), share.max()
    if not bool(high > low):
        return None
    middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    return exponent(middle[there], (share - low) / (high - low))


def exponent(x: Float[Tensor, " B"], y: Float[Tensor, " B"]) -> float:
    """The a in [.01, 100] with the least sum of `(1 - x^a - y)^2`, to nine digits.

    A grid over log a, each time finer around the best: the sum may have several valleys.

    Args:
        x: in (0, 1).
        y: in [0, 1].
    """
    low, high = math.log(LEAST), math.log(MOST)
    best = 0.0
    for _ in range(8):
        grid = torch.linspace(low, high, 101, dtype=torch.float64)
        wrong = (1 - x ** grid.exp()[:, None] - y).square().sum(1)
        best, gap = float(grid[wrong.argmin()]), (high - low) / 100
        low, high = max(math.log(LEAST), best - gap), min(math.log(MOST), best + gap)
    return math.exp(best)
