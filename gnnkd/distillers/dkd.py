"""DKD, decoupled knowledge distillation: KD taken apart at the label, and weighted anew.

B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang, "Decoupled knowledge distillation", CVPR 2022, equation 7. For each row
`KD = TCKD + (1 - p) NCKD`, p the teacher's probability of the label at T; DKD weighs the two parts by themselves, so
that a confident teacher's other classes still count.

Departures: sums of logarithms instead of logarithms of sums, so that no probability is rounded to 0 or 1; rows whose
label may not be read are left out, for there is nothing to take them apart at.
"""

from __future__ import annotations

from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.distillers.logits import LogitDistiller
from gnnkd.distillers.losses import decoupled, mean_of_labelled
from gnnkd.distillers.schedule import Schedule, Weight, check_some
from gnnkd.types import Step


@final
class Dkd(LogitDistiller):
    """`ce_weight CE + ramp T^2 (alpha TCKD + beta NCKD)`.

    Args:
        alpha: weight of the target-class part, at least 0, or pairs [epoch, weight].
        beta: weight of the other classes' part, at least 0, or pairs [epoch, weight]; published values per pair of
            networks lie between 0.5 and 8.
        temperature: T > 0, in units of logits.
        ce_weight: weight of the cross-entropy, at least 0, or pairs [epoch, weight].
        warmup: epochs over which both parts grow to their weights, at least 0; 0 is none.
    """

    def __init__(
        self,
        *,
        alpha: Weight = 1.0,
        beta: Weight = 8.0,
        temperature: float = 4.0,
        ce_weight: Weight = 1.0,
        warmup: int = 20,
    ) -> None:
        super().__init__(ce_weight=ce_weight, temperature=temperature, warmup=warmup)
        self.parts = Parts(alpha, beta)
        check_some({"ce_weight": self.ce_weight, "alpha": self.parts.alpha, "beta": self.parts.beta})

    def distill(self, student: Tensor, teacher: Tensor, y: Tensor, step: Step) -> dict[str, Tensor]:
        """The terms `tckd` and `nckd`."""
        return self.parts.terms(student, teacher, y, self.temperature, step)


@final
class Parts:
    """The two parts of KD with their weights."""

    def __init__(self, alpha: Weight, beta: Weight) -> None:
        self.alpha, self.beta = Schedule.of("alpha", alpha), Schedule.of("beta", beta)

    def terms(
        self,
        student: Float[Tensor, "N C"],
        teacher: Float[Tensor, "N C"],
        y: Int[Tensor, " N"],
        temperature: float,
        step: Step,
    ) -> dict[str, Tensor]:
        """`tckd` and `nckd`, means over the labelled rows times weight and `T^2`; a part of weight 0 is left out."""
        kl, square = decoupled(student, teacher, y, temperature), temperature**2
        both = {"tckd": (self.alpha, kl.target), "nckd": (self.beta, kl.others)}
        return {
            name: weight.at(step) * square * mean_of_labelled(part, y)
            for name, (weight, part) in both.items()
            if not weight.never
        }
