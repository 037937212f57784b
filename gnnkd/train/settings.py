"""How long and how fast a network trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from gnnkd.errors import UserError


@final
@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of Adam and of the loop around it, for either stage.

    Args:
        lr: learning rate, > 0.
        weight_decay: L2 penalty added to the gradient, >= 0.
        epochs: passes over the data, >= 1.
        patience: epochs without a better validation accuracy after which training stops, >= 0; 0 never stops early.
        checkpoint_every: epochs between two checkpoints, >= 1; it has no influence on the result.

    Raises:
        UserError: an option outside its range.
    """

    lr: float = 0.01
    weight_decay: float = 5e-4
    epochs: int = 300
    patience: int = 0
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise UserError(f"lr is {self.lr}; it must be above 0")
        for name, low in (("weight_decay", 0), ("epochs", 1), ("patience", 0), ("checkpoint_every", 1)):
            value = getattr(self, name)
            if not value >= low:
                raise UserError(f"{name} is {value}; it must be at least {low}")
