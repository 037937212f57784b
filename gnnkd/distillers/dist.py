"""DIST: correlation instead of divergence, so that a student may keep its own scale of confidence.

T. Huang, S. You, F. Wang, C. Qian, C. Xu, "Knowledge distillation from a stronger teacher", NeurIPS 2022. With y = the
softmax at T, the inter-class part is 1 - the mean Pearson correlation of the rows of student and teacher, the
intra-class part the same of the columns; both times T^2.

Departures: none known. The defaults `beta` 2, `gamma` 2 and `temperature` 4 are recalled from the paper's CIFAR
experiments, not read there; released code has 1, 1 and 1.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from gnnkd.distillers.logits import LogitDistiller
from gnnkd.distillers.losses import correlation
from gnnkd.distillers.schedule import Schedule, Weight, check_some
from gnnkd.types import Step


@final
class Dist(LogitDistiller):
    """`ce_weight CE + ramp T^2 (beta (1 - correlation of rows) + gamma (1 - correlation of columns))`.

    Args:
        beta: weight of the rows' part (inter-class), at least 0, or pairs [epoch, weight].
        gamma: weight of the columns' part (intra-class), at least 0, or pairs [epoch, weight].
        temperature: T > 0, in units of logits.
        ce_weight: weight of the cross-entropy, at least 0, or pairs [epoch, weight].
        warmup: epochs over which both parts grow to their weights, at least 0; 0 is none.
    """

    def __init__(
        self,
        *,
        beta: Weight = 2.0,
        gamma: Weight = 2.0,
        temperature: float = 4.0,
        ce_weight: Weight = 1.0,
        warmup: int = 0,
    ) -> None:
        super().__init__(ce_weight=ce_weight, temperature=temperature, warmup=warmup)
        self.beta, self.gamma = Schedule.of("beta", beta), Schedule.of("gamma", gamma)
        check_some({"ce_weight": self.ce_weight, "beta": self.beta, "gamma": self.gamma})

    def distill(self, student: Tensor, teacher: Tensor, y: Tensor, step: Step) -> dict[str, Tensor]:
        """The terms `inter` and `intra`; a term of weight 0 is left out."""
        s, t = (student / self.temperature).softmax(1), (teacher / self.temperature).softmax(1)
        parts = {"inter": (self.beta, s, t), "intra": (self.gamma, s.t(), t.t())}
        return {
            name: weight.at(step) * self.temperature**2 * (1 - correlation(of_s, of_t).mean())
            for name, (weight, of_s, of_t) in parts.items()
            if not weight.never
        }
