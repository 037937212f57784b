"""GraphAKD: discriminators learn to tell a teacher's logits and features from a student's, which learns to fool them.

H. He, J. Wang, Z. Zhang, F. Wu, "Compressing deep graph neural networks via adversarial knowledge distillation", KDD
2022: a discriminator of logits, one of pairs of neighbours, one of a node and the whole graph.

    v(z)            = V (z + ReLU(U z)): C units of classes, one of "the teacher's"
    e(h_i, h_j)     = sum_k a_k h_ik h_jk, of the two ends of an edge
    g(h_i, w)       = sum_k b_k h_ik w_k, w = sigmoid(mean_i h_i) of the teacher, or of the student

Sign convention: every verdict is a logit that is high for "the teacher's". The discriminators minimise
`softplus(-teacher's) + softplus(student's)`, the student `softplus(-student's)`.

Departures: discriminators and student make their steps at once, under one optimizer, each on its own term; edges are
drawn anew in each epoch where they are many; features are what the last weight matrix multiplies, the student's taken
linearly into the teacher's width; in the global verdict the teacher's nodes count as the teacher's beside either
summary; validation selects by accuracy. Layers inside the discriminators are ours where the paper's text leaves them
open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from gnnkd.data.augment import generator
from gnnkd.distillers.base import SAMPLED, TASK, Distiller, Lesson
from gnnkd.distillers.losses import cross_entropy, full_precision, mean_of_labelled
from gnnkd.distillers.maps import pooled
from gnnkd.distillers.nodes.neighbours import edges
from gnnkd.distillers.ranges import at_least, fraction
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.types import UNKNOWN, Batch, Output, Step


@final
class GraphAkd(Distiller):
    """`label_weight CE + l1_weight |s - t|_1 / N + weight * fool`, and `judge`, which the discriminators minimise.

    fool = `(CE of class units + fool_logits) / 2 + fool_edges + fool_global`; `judge` is the same sum of the
    discriminators' losses, each of them of the teacher's and of the student's added. It moves the discriminators alone,
    `fool` the student alone.

    Args:
        weight: of the term `fool`, at least 0; with 0 there are no discriminators.
        label_weight: of the cross-entropy, in [0, 1].
        l1_weight: of the term `l1`, at least 0.
        d_every: the discriminators learn at every n-th epoch, at least 1.
        samples: the most edges that are judged in a step, at least 1.
    """

    batches = SAMPLED
    reads_maps = True
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "weight": Between(0.01, 10.0, log=True),
            "l1_weight": Between(0.1, 10.0, log=True),
            "d_every": OneOf((1, 2, 5, 10, 30)),
        }
    )

    def __init__(
        self,
        *,
        weight: float = 1.0,
        label_weight: float = 1.0,
        l1_weight: float = 1.0,
        d_every: int = 1,
        samples: int = 16384,
    ) -> None:
        self.weight, self.label_weight = at_least("weight", weight, 0), fraction("label_weight", label_weight)
        self.l1_weight = at_least("l1_weight", l1_weight, 0)
        if not (weight or label_weight or l1_weight):
            raise ValueError("method.weight is 0, as method.label_weight and method.l1_weight are; one must be above 0")
        self.d_every, self.samples = int(at_least("d_every", d_every, 1)), int(at_least("samples", samples, 1))

    def prepare(self, lesson: Lesson) -> None:
        """Make the discriminators and the student's way to them."""
        super().prepare(lesson)
        if self.weight:
            assert lesson.teacher is not None
            widths = pooled(lesson.student).shape[1], pooled(lesson.teacher).shape[1]
            self.part = Adversary(*widths, lesson.teacher.logits.shape[1])

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce`, `l1`, `fool` and `judge`; between two steps of the discriminators `judge` is constant."""
        assert teacher is not None
        s, t = full_precision(student.logits), full_precision(teacher.logits.detach())
        terms = {}
        if self.label_weight:
            terms[TASK] = self.label_weight * cross_entropy(s, batch.y)
        if self.l1_weight:
            terms["l1"] = self.l1_weight * (s - t).abs().sum(1).mean()
        if self.weight:
            assert isinstance(self.part, Adversary), "prepare comes before the first step"
            h_s = self.part.lift(full_precision(pooled(student)))
            h_t = full_precision(pooled(teacher).detach())
            ends = self._ends(batch, step)
            terms["fool"] = self.weight * fool(self.part.judges, s, h_s, h_t, ends, batch.y)
            judged = judge(self.part.judges, (s.detach(), t), (h_s.detach(), h_t), ends, batch.y)
            # A constant reaches no weight, so that the optimizer leaves the discriminators as they are.
            terms["judge"] = judged if step.epoch % self.d_every == 0 else judged.detach()
        return terms

    def _ends(self, batch: Batch, step: Step) -> Int[Tensor, "2 S"]:
        """Both ends of the edges of this step, all of them or `samples` with repetition."""
        a = edges(batch)
        both = torch.stack([a.row, a.col]).long()
        if a.n_entries <= self.samples:
            return both
        name = ("graphakd", self.seed, *step.name)
        drawn = torch.randint(a.n_entries, (self.samples,), generator=generator(*name))
        return both[:, drawn.to(both.device)]


class Verdicts(NamedTuple):
    """What the discriminators say of one network: logits, high for "the teacher's".

    Args:
        classes: of each node's class.
        rows: of each node's logits.
        ends: of each edge.
        whole: of each node's features beside both summaries.
    """

    classes: Float[Tensor, "N C"]
    rows: Float[Tensor, " N"]
    ends: Float[Tensor, " S"]
    whole: Float[Tensor, "N 2"]


@final
class Judges(nn.Module):
    """The three discriminators.

    Args:
        classes: C.
        width: units K of the features.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.residual, self.verdict = nn.Linear(classes, classes), nn.Linear(classes, classes + 1)
        self.local = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.whole = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(
        self,
        z: Float[Tensor, "N C"],
        h: Float[Tensor, "N K"],
        summaries: Float[Tensor, "2 K"],
        ends: Int[Tensor, "2 S"],
    ) -> Verdicts:
        """What they say of logits `z` and features `h`."""
        says = self.verdict(z + F.relu(self.residual(z)))
        near = (h.index_select(0, ends[0]) * h.index_select(0, ends[1])) @ self.local
        return Verdicts(says[:, :-1], says[:, -1], near, h @ (self.whole * summaries).mT)


@final
class Adversary(nn.Module):
    """The discriminators, and the student's linear way into the space of the teacher's features.

    Args:
        given: features of the student.
        wanted: features of the teacher.
        classes: C.
    """

    def __init__(self, given: int, wanted: int, classes: int) -> None:
        super().__init__()
        self.lift, self.judges = nn.Linear(given, wanted), Judges(classes, wanted)


def summary(h: Float[Tensor, "N K"]) -> Float[Tensor, " K"]:
    """What stands for a whole graph: `sigmoid(mean_i h_i)`."""
    return h.mean(0).sigmoid()


def fool(
    judges: Judges,
    z: Float[Tensor, "N C"],
    student: Float[Tensor, "N K"],
    teacher: Float[Tensor, "N K"],
    ends: Int[Tensor, "2 S"],
    y: Int[Tensor, " N"],
) -> Float[Tensor, ""]:
    """The student's loss, through discriminators that it does not move."""
    fixed = {name: p.detach() for name, p in judges.named_parameters()}
    summaries = torch.stack([summary(teacher), summary(student)])
    said: Verdicts = functional_call(judges, fixed, (z, student, summaries, ends))
    return (_classes(said, y) + _taken(said.rows)) / 2 + _taken(said.ends) + _taken(said.whole)


def judge(
    judges: Judges,
    logits: tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]],
    features: tuple[Float[Tensor, "N K"], Float[Tensor, "N K"]],
    ends: Int[Tensor, "2 S"],
    y: Int[Tensor, " N"],
) -> Float[Tensor, ""]:
    """The discriminators' loss of the student's and the teacher's constant logits and features, in this order."""
    summaries = torch.stack([summary(features[1]), summary(features[0])])
    fake, real = (judges(z, h, summaries, ends) for z, h in zip(logits, features, strict=True))
    told = [_taken(r) + _taken(-f) for r, f in zip(real[1:], fake[1:], strict=True)]
    rows, near, whole = told
    return (_classes(fake, y) + _classes(real, y) + rows) / 2 + near + whole


def _taken(verdict: Float[Tensor, " *shape"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of "the teacher's", 0 of nothing."""
    return F.softplus(-verdict).sum() / max(verdict.numel(), 1)


def _classes(said: Verdicts, y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of the class units where the label may be read, 0 where there is none."""
    return mean_of_labelled(F.cross_entropy(said.classes, y, ignore_index=UNKNOWN, reduction="none"), y)
