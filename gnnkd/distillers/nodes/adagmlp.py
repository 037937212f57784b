"""AdaGMLP: several students in a row of boosting, each on labels of its own, all at ease with missing features.

W. Lu, Z. Guan, W. Zhao, Y. Yang, "AdaGMLP: AdaBoosting GNN-to-MLP knowledge distillation", KDD 2024. With K students,
node weights w (1 / N each at first) and kl_i(T) = KL(softmax(t_i / T) || softmax(s_i / T)), student after student:

    KD_k = sum_i w_i kl_i(T)         e_i = 1 - exp(-beta kl_i(1))         err = sum_i w_i e_i / sum_i w_i
    alpha_k = max(log((1 - err) / err), 1e-16)         w_i <- w_i exp(alpha_k e_i), divided by their sum

    L = sum_k label_weight CE_k + (1 - label_weight) KD_k + align_weight A_k

CE_k is of one of K random parts of the labelled rows; A_k, of labelled rows, is `output_weight MSE(logits) +
(1 - output_weight) MSE(last hidden rows)` between the features as they are and with some of them masked. A class's
probability is the mean of the students', weighted by alpha.

Departures: a round of boosting is one step: weights start anew from 1 / N in each. Carried from step to step they made
one of two votes fall to its floor (cora). The parts of the labelled rows are drawn once and have no row in common.
Whole features are masked, the same ones of all rows in a step, so that sparse and dense features are masked alike; a
row then gets back its sum of absolute values. Of a network that passes messages the neighbours are masked, too. A
student whose last weight matrix multiplies the given features aligns its logits alone. err is at least 1e-6, or a
perfect student's vote would be infinite. Published cells tune K from 2 to 3, beta from .5 to 4 and T from .01 to .9;
the defaults of these, of the mask and of the weights are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.data.augment import generator
from gnnkd.distillers.base import TASK, Distiller, Lesson, Make
from gnnkd.distillers.losses import full_precision, mean_of_labelled
from gnnkd.distillers.nodes.rows import Rows
from gnnkd.distillers.ranges import above_zero, at_least, below_one, fraction
from gnnkd.distillers.space import Between, Range, Whole
from gnnkd.graph.structure import CSR
from gnnkd.nn.around.ensemble import Ensemble
from gnnkd.nn.kept import Kept
from gnnkd.types import UNKNOWN, Batch, Operand, Output, Step

LEAST_VOTE = 1e-16
LEAST_ERROR = 1e-6


@final
class Adagmlp(Distiller):
    """Boosting of several students: `sum_k label_weight CE_k + (1 - label_weight) KD_k + align_weight A_k`.

    Args:
        count: number of students, at least 1.
        sharpness: beta, how fast an error grows with the divergence, at least 0.
        temperature: T of the divergence that is learnt from, above 0, in units of logits; no factor T^2.
        label_weight: of the cross-entropy, in [0, 1].
        mask: probability of a feature to be masked, in [0, 1).
        align_weight: of the alignment, at least 0.
        output_weight: share of the logits in the alignment, in [0, 1].
    """

    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "count": Whole(2, 3),
            "sharpness": Between(0.5, 4.0),
            "temperature": Between(0.1, 1.0),
            "label_weight": Between(0.0, 0.5),
            "mask": Between(0.0, 0.5),
            "align_weight": Between(0.01, 10.0, log=True),
        }
    )

    def __init__(
        self,
        *,
        count: int = 2,
        sharpness: float = 1.0,
        temperature: float = 1.0,
        label_weight: float = 0.1,
        mask: float = 0.1,
        align_weight: float = 1.0,
        output_weight: float = 0.5,
    ) -> None:
        self.count, self.sharpness = int(at_least("count", count, 1)), at_least("sharpness", sharpness, 0)
        self.temperature = above_zero("temperature", temperature)
        self.label_weight = fraction("label_weight", label_weight)
        self.mask = below_one("mask", mask)
        self.align_weight = at_least("align_weight", align_weight, 0)
        self.output_weight = fraction("output_weight", output_weight)
        self.asks_student = self.align_weight > 0
        self._votes = torch.ones(self.count)
        self._taught: Kept[dict[float, Tensor]] = Kept()

    def learner(self, make: Make, batch: Batch, classes: int, seed: int) -> nn.Module:
        """The students, whose votes are set at each step."""
        ensemble = Ensemble(make, batch.x.shape[1], count=self.count)
        self._votes = ensemble.votes
        return ensemble

    def prepare(self, lesson: Lesson) -> None:
        """Deal the labelled rows to the students."""
        super().prepare(lesson)
        assert lesson.batch is not None
        self._rows = Rows(lesson.batch.index)
        self._parts = dealt(lesson.batch.y, self.count, lesson.seed)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce`, `kd` and `align`; a term of weight zero is not computed. Sets the votes."""
        assert teacher is not None
        terms = {}
        if self.label_weight > 0:
            terms[TASK] = self.label_weight * self._labels(batch, student)
        logits = teacher.logits
        kd = self._boosted(student, self._taught.of(lambda: self._told(logits.detach()), logits))
        if self.label_weight < 1:
            terms["kd"] = (1 - self.label_weight) * kd
        if self.align_weight:
            terms["align"] = self.align_weight * self._aligned(batch, student, step)
        return terms

    def _labels(self, batch: Batch, student: Output) -> Float[Tensor, ""]:
        """The sum over students of the mean cross-entropy on their parts; 0 for a part without a row."""
        part = self._parts[self._rows.of(batch)]
        losses = []
        for k, member in enumerate(student.members):
            y = torch.where(part == k, batch.y, UNKNOWN)
            each = F.cross_entropy(full_precision(member.logits), y, ignore_index=UNKNOWN, reduction="none")
            losses.append(mean_of_labelled(each, y))
        return torch.stack(losses).sum()

    def _told(self, teacher: Float[Tensor, "N C"]) -> dict[float, Tensor]:
        """Logarithms of the teacher's soft labels at both temperatures: that of what is learnt, and that of errors."""
        return {at: F.log_softmax(full_precision(teacher) / at, dim=1) for at in {self.temperature, 1.0}}

    def _boosted(self, student: Output, told: Mapping[float, Float[Tensor, "N C"]]) -> Float[Tensor, ""]:
        """The sum over students of their weighted divergences; sets the votes."""
        plain = told[1.0]
        weight = torch.full_like(plain[:, 0], 1 / max(1, plain.shape[0]))
        losses = []
        for k, member in enumerate(student.members):
            logits = full_precision(member.logits)
            learnt = divergence(logits, told[self.temperature], self.temperature)
            losses.append((weight * learnt).sum())
            with torch.no_grad():
                wrong = learnt if self.temperature == 1 else divergence(logits, plain)
                alpha, weight = boosted(weight, wrong, self.sharpness)
                self._votes[k] = alpha
        return torch.stack(losses).sum()

    def _aligned(self, batch: Batch, student: Output, step: Step) -> Float[Tensor, ""]:
        """The sum over students of what masked features change."""
        assert student.again is not None
        rng = generator("adagmlp mask", self.seed, step.epoch)
        keep = torch.rand(batch.x.shape[1], generator=rng) >= self.mask
        other = student.again(masked(batch.x, keep.to(batch.index.device)))
        pairs = zip(student.members, other.members, strict=True)
        return torch.stack([self._change(batch, *pair) for pair in pairs]).sum()

    def _change(self, batch: Batch, one: Output, other: Output) -> Float[Tensor, ""]:
        found = _mean_square(one.logits, other.logits, batch.y)
        hidden = [list(output.hidden.values())[-1] if output.hidden else None for output in (one, other)]
        first, second = hidden
        if not isinstance(first, Tensor) or not isinstance(second, Tensor) or not first.requires_grad:
            return found
        return self.output_weight * found + (1 - self.output_weight) * _mean_square(first, second, batch.y)

    def diagnostics(self) -> Mapping[str, Tensor]:
        """`vote/<k>`: the share of each student in the mixture."""
        return {f"vote/{k}": share for k, share in enumerate(self._votes / self._votes.sum())}


def dealt(y: Int[Tensor, " R"], count: int, seed: int) -> Int[Tensor, " R"]:
    """Which of `count` parts, equal but for one row, each labelled row falls into; the others' number means nothing."""
    rows = (y != UNKNOWN).nonzero().flatten()
    order = torch.randperm(rows.numel(), generator=generator("adagmlp parts", seed)).to(y.device)
    part = torch.zeros_like(y)
    part[rows[order]] = torch.arange(rows.numel(), device=y.device) % count
    return part


def divergence(
    student: Float[Tensor, "N C"], told: Float[Tensor, "N C"], temperature: float = 1.0
) -> Float[Tensor, " N"]:
    """`KL(p_i || softmax(s_i / T))` of each row in nats, `told` being log p."""
    return F.kl_div(F.log_softmax(student / temperature, dim=1), told, reduction="none", log_target=True).sum(1)


def boosted(
    weight: Float[Tensor, " N"], kl: Float[Tensor, " N"], beta: float
) -> tuple[Float[Tensor, ""], Float[Tensor, " N"]]:
    """A student's vote by its divergences `kl`, at least 1e-16, and the weights of the next one, of sum 1."""
    wrong = -torch.expm1(-beta * kl.clamp(min=0))
    error = ((weight * wrong).sum() / weight.sum()).clamp(min=LEAST_ERROR)
    alpha = torch.log((1 - error).clamp(min=torch.finfo(error.dtype).tiny) / error).clamp(min=LEAST_VOTE)
    weight = weight * (alpha * wrong).exp()
    return alpha, weight / weight.sum()


def masked(x: Operand, keep: Tensor) -> Operand:
    """The features [N, D] that `keep` [D] says, the others 0; each row keeps its sum of absolute values.

    A row of which nothing is left is 0.
    """
    if isinstance(x, CSR):
        value, row = x.values(), x.row.long()
        left = value * keep[x.col.long()]
        sizes = [value.new_zeros(x.shape[0]).index_add_(0, row, v.abs()) for v in (value, left)]
        return x.with_value(left * _ratio(*sizes)[row])
    assert isinstance(x, Tensor)
    left = x * keep
    return left * _ratio(x.abs().sum(1), left.abs().sum(1))[:, None]


def _ratio(before: Float[Tensor, " N"], after: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    return torch.where(after > 0, before / after, 1.0)


def _mean_square(one: Float[Tensor, "N F"], other: Float[Tensor, "N F"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    return mean_of_labelled((full_precision(one) - full_precision(other)).square().mean(1), y)
