"""Logit standardisation: a base method compares the z-scores of the logits, whatever their mean and spread.

S. Sun, W. Ren, J. Li, R. Wang, X. Cao, "Logit standardization in knowledge distillation", CVPR 2024. Each row of both
logits loses its mean and is divided by its standard deviation (C - 1 degrees of freedom) before the base's
distillation; the cross-entropy reads the logits as they are. With the base KD this is

    0.1 CE + 9 T^2 KL(softmax(z(t) / T) || softmax(z(s) / T)),  T = 2

Departures: a base keeps its warm-up and the ratio of its own weights, which are all multiplied by `kd_weight` (the
released script multiplies DKD's second weight twice, by 81, and leaves its temperature at 4); the divisor is
`sqrt(variance + 1e-14)` in place of `deviation + 1e-7`, so that constant logits have a gradient. The default weight and
temperature are those of the released script; its tables retune them by pair.
"""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from gnnkd.distillers.base import Distiller
from gnnkd.distillers.logits import LogitDistiller
from gnnkd.distillers.losses import full_precision, standardised
from gnnkd.distillers.ranges import above_zero
from gnnkd.distillers.schedule import Schedule, Weight, check_some
from gnnkd.types import Batch, Output, Step


@final
class LogitStd(Distiller):
    """A base method of logits, on standardised ones.

    Args:
        base: the method, one that reads logits alone; its temperature and distillation weight are set here, so neither
            may be its own already, nor may KD's `alpha` or `recipe` say them. `ce_weight` stays the base's.
        kd_weight: weight of the base's distillation, at least 0, or pairs [epoch, weight].
        temperature: T > 0, in standard deviations of a row's logits.
    """

    wraps: ClassVar[bool] = True
    graphs: ClassVar[bool] = False
    images: ClassVar[bool] = True

    def __init__(self, base: Distiller, *, kd_weight: Weight = 9.0, temperature: float = 2.0) -> None:
        if not isinstance(base, LogitDistiller):
            raise ValueError(
                f"method.base {type(base).__name__} reads more than logits; logitstd needs one as kd or dkd"
            )
        _check_free(base)
        base.kd_weight, base.temperature = Schedule.of("kd_weight", kd_weight), above_zero("temperature", temperature)
        check_some({"ce_weight": base.ce_weight, "kd_weight": base.kd_weight})
        self.base = base

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The base's terms."""
        assert teacher is not None
        s, t = full_precision(student.logits), full_precision(teacher.logits)
        taught = self.base.taught(standardised(s), standardised(t), batch.y, step)
        return self.base.task(s, batch.y, step) | taught


def _check_free(base: LogitDistiller) -> None:
    """Refuse a base that was told what is set here.

    Raises:
        ValueError: it was.
    """
    for name, value in base.shares.items():
        raise ValueError(
            f"method.{name} is {value}; it must be left out with logitstd, whose weights are method.ce_weight and "
            "method.kd_weight"
        )
    plain = type(base)()  # type: ignore[call-arg]
    for name in ("kd_weight", "temperature"):
        if getattr(base, name) != getattr(plain, name):
            raise ValueError(
                f"method.base {type(base).__name__} has a {name} of its own; it must be left out, logitstd has it"
            )
