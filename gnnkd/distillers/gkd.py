"""GKD, gradient knowledge distillation: the value of KD or DKD, its gradient weighed by the teacher's confidence.

The published code is a fork of mdistiller's; the rule, for the gradient g of the distillation term by the logit of
class j in row i:

    g_ij <- g_ij * (1 if j is the label else scale sigmoid(k (c_i - mean over rows of c)))      c_i = max_j p_ij

with p the teacher's softmax at T. Rows where the teacher is surer than on average teach more of the other classes, the
label's gradient stays; so a row's gradient no longer sums to zero.

Departures: sums of logarithms as in DKD; a row whose label may not be read has no target, so that all of its classes
are weighed.
"""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.distillers.dkd import Parts
from gnnkd.distillers.logits import LogitDistiller
from gnnkd.distillers.losses import soft_kl
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.schedule import Weight, check_some
from gnnkd.types import Step


@final
class Gkd(LogitDistiller):
    """`ce_weight CE + ramp kd_weight KD`, or DKD, with the gradient of the second term weighed by confidence.

    Args:
        loss: "kd", or "dkd" for DKD with `alpha` and `beta`.
        k: how steeply confidence weighs, at least 0; 0 weighs all rows by `scale / 2`.
        scale: twice the weight of a row of mean confidence, at least 0; 0 passes the label's gradient alone.
        temperature: T > 0, in units of logits; of loss and confidence.
        alpha: DKD's weight of the target-class part, at least 0, or pairs [epoch, weight]; None is 1.
        beta: DKD's weight of the other classes' part, at least 0, or pairs [epoch, weight]; None is 8.
        ce_weight: weight of the cross-entropy, at least 0, or pairs [epoch, weight].
        kd_weight: weight of the distillation, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the distillation grows to its weight, at least 0; 0 is none.
    """

    def __init__(
        self,
        *,
        loss: Literal["kd", "dkd"] = "kd",
        k: float = 0.6,
        scale: float = 2.0,
        temperature: float = 4.0,
        alpha: Weight | None = None,
        beta: Weight | None = None,
        ce_weight: Weight = 1.0,
        kd_weight: Weight = 1.0,
        warmup: int = 20,
    ) -> None:
        super().__init__(ce_weight=ce_weight, kd_weight=kd_weight, temperature=temperature, warmup=warmup)
        self.k, self.scale = at_least("k", k, 0), at_least("scale", scale, 0)
        self.parts = Parts(1.0 if alpha is None else alpha, 8.0 if beta is None else beta) if loss == "dkd" else None
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if self.parts is None and weight is not None:
                raise ValueError(f"method.{name} is {weight}; it must be left out unless method.loss is dkd")
        check_some({"ce_weight": self.ce_weight, "kd_weight": self.kd_weight})

    def distill(self, student: Tensor, teacher: Tensor, y: Tensor, step: Step) -> dict[str, Tensor]:
        """The term `kd`, or `tckd` and `nckd`."""
        student = weighed(student, gate(teacher, y, self.temperature, self.k, self.scale))
        if self.parts is None:
            return {"kd": soft_kl(student, teacher, self.temperature)}
        return self.parts.terms(student, teacher, y, self.temperature, step)


def gate(
    teacher: Float[Tensor, "N C"], y: Int[Tensor, " N"], temperature: float, k: float, scale: float
) -> Float[Tensor, "N C"]:
    """What multiplies the gradient by each logit: 1 at the label, elsewhere in (0, scale)."""
    confidence = (teacher / temperature).softmax(1).amax(1, keepdim=True)
    others = scale * torch.sigmoid(k * (confidence - confidence.mean()))
    at_label = torch.arange(teacher.shape[1], device=y.device) == y[:, None]
    return torch.where(at_label, 1.0, others)


def weighed(logits: Float[Tensor, "N C"], factors: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """The same logits, with their gradient times `factors`."""
    found: Tensor = _Weighed.apply(logits, factors)  # type: ignore[no-untyped-call]
    return found


class _Weighed(torch.autograd.Function):
    """y = x, and dL/dx = factors * dL/dy."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(factors)
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,), (factors,) = grads, ctx.saved_tensors
        return grad * factors, None
