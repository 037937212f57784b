"""Knowledge distillation with temperature, over all rows of a batch.

G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015, equation for soft targets.

Departures: the soft term covers every row of the batch, labelled or not (a teacher's output is known everywhere), as
most graph papers do; the cross-entropy covers the labelled ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, final

from torch import Tensor

from gnnkd.distillers.base import ANY
from gnnkd.distillers.logits import LogitDistiller
from gnnkd.distillers.losses import soft_kl
from gnnkd.distillers.ranges import fraction
from gnnkd.distillers.schedule import Weight, check_some
from gnnkd.distillers.space import Between, Range
from gnnkd.types import Step

ALPHA = 0.9
RECIPES: dict[str, tuple[Weight | None, Weight | None, int]] = {
    "mixed": (None, None, 0),
    "kd_ce1_kd1_warmup20": (1.0, 1.0, 20),
}
"""Weight of the cross-entropy, weight of the soft term, warm-up; None is what alpha says."""


@final
class Kd(LogitDistiller):
    """`(1 - alpha) CE + alpha T^2 KL(teacher || student)`, or with two weights of their own.

    Args:
        recipe: what fills `ce_weight`, `kd_weight` and `warmup` where they are None: "mixed" takes the weights from
            alpha, without warm-up; "kd_ce1_kd1_warmup20" has both weights 1 and a warm-up of 20 epochs, as the methods
            have that KD is compared with.
        alpha: weight of the soft term, in [0, 1], the cross-entropy having the rest; None is 0.9.
        temperature: T > 0, in units of logits.
        ce_weight: weight of the cross-entropy, at least 0, or pairs [epoch, weight].
        kd_weight: weight of the soft term, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the soft term grows to its weight, at least 0; 0 is none.
    """

    graphs: ClassVar[bool] = True
    batches = ANY
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {"alpha": Between(0.5, 1.0), "temperature": Between(1.0, 5.0)}
    )

    def __init__(
        self,
        *,
        recipe: Literal["mixed", "kd_ce1_kd1_warmup20"] = "mixed",
        alpha: float | None = None,
        temperature: float = 4.0,
        ce_weight: Weight | None = None,
        kd_weight: Weight | None = None,
        warmup: int | None = None,
    ) -> None:
        ce, soft, epochs = RECIPES[recipe]
        ce, soft = ce if ce_weight is None else ce_weight, soft if kd_weight is None else kd_weight
        if alpha is not None and ce is not None and soft is not None:
            raise ValueError(f"method.alpha is {alpha}; it must be left out where recipe or weights say all")
        share = fraction("alpha", ALPHA if alpha is None else alpha)
        super().__init__(
            ce_weight=1 - share if ce is None else ce,
            kd_weight=share if soft is None else soft,
            temperature=temperature,
            warmup=epochs if warmup is None else warmup,
        )
        check_some({"ce_weight": self.ce_weight, "kd_weight": self.kd_weight})
        said = {"alpha": alpha, "recipe": None if recipe == "mixed" else recipe}
        self.shares = {name: value for name, value in said.items() if value is not None}

    def distill(self, student: Tensor, teacher: Tensor, y: Tensor, step: Step) -> dict[str, Tensor]:
        """The term `kd`."""
        return {"kd": soft_kl(student, teacher, self.temperature)}
