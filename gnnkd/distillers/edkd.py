"""EDKD: decoupled distillation whose weight of the other classes follows the teacher's confidence, row by row.

With TCKD and NCKD as in DKD and p the teacher's probability of the label at T, the published figure says

    mean over rows of  TCKD + gamma exp(-(1 - p)) NCKD                                              variant "paper"

while the published code averages first, and takes the surer of the two ways:

    mean TCKD + mean of gamma exp(-(1 - max(p, 1 - p))) * mean NCKD                                 variant "code"

so that there the weight lies in [0.61 gamma, gamma], and no row has its own. Both times T^2.

Departures: sums of logarithms as in DKD; rows whose label may not be read are left out.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.distillers.logits import LogitDistiller
from gnnkd.distillers.losses import decoupled, mean_of_labelled
from gnnkd.distillers.schedule import Schedule, Weight, check_some
from gnnkd.types import Step


@final
class Edkd(LogitDistiller):
    """`ce_weight CE + ramp kd_weight T^2 (TCKD + weight of the others NCKD)`.

    Args:
        variant: "paper", or "code" for what the published code computes.
        gamma: the largest weight of the other classes' part, at least 0, or pairs [epoch, weight].
        temperature: T > 0, in units of logits.
        ce_weight: weight of the cross-entropy, at least 0, or pairs [epoch, weight].
        kd_weight: weight of the distillation, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the distillation grows to its weight, at least 0; 0 is none.
    """

    def __init__(
        self,
        *,
        variant: Literal["paper", "code"] = "paper",
        gamma: Weight = 8.0,
        temperature: float = 4.0,
        ce_weight: Weight = 1.0,
        kd_weight: Weight = 1.0,
        warmup: int = 20,
    ) -> None:
        super().__init__(ce_weight=ce_weight, kd_weight=kd_weight, temperature=temperature, warmup=warmup)
        self.variant, self.gamma = variant, Schedule.of("gamma", gamma)
        check_some({"ce_weight": self.ce_weight, "kd_weight": self.kd_weight})

    def distill(
        self, student: Float[Tensor, "N C"], teacher: Float[Tensor, "N C"], y: Int[Tensor, " N"], step: Step
    ) -> dict[str, Tensor]:
        """The terms `tckd` and `nckd`."""
        kl, square, gamma = decoupled(student, teacher, y, self.temperature), self.temperature**2, self.gamma.at(step)
        if self.variant == "paper":
            others = mean_of_labelled((kl.p - 1).exp() * kl.others, y)
        else:
            surer = torch.maximum(kl.p, 1 - kl.p)
            others = mean_of_labelled((surer - 1).exp(), y) * mean_of_labelled(kl.others, y)
        return {"tckd": square * mean_of_labelled(kl.target, y), "nckd": square * gamma * others}
