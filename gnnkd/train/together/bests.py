"""The best weights of each node, each at an epoch of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from gnnkd.tensors import under


@final
@dataclass(frozen=True, eq=False)
class Best:
    """A node where it was best for the first time.

    Args:
        score: its validation accuracy there, None where nothing validates.
        epoch: counted from 0; -1 before the first one, and of a frozen node.
        weights: its state dict.
    """

    score: float | None
    epoch: int
    weights: Mapping[str, Tensor]

    @staticmethod
    def of(model: nn.Module, score: float | None = None, epoch: int = -1) -> Best:
        """The weights that `model` has now."""
        return Best(score, epoch, {name: t.detach().clone() for name, t in model.state_dict().items()})

    def beaten(self, score: float | None) -> bool:
        """Whether a later epoch is better; where nothing validates, every later one is."""
        return score is None or self.score is None or score > self.score


def written(bests: Sequence[Best]) -> dict[str, Tensor]:
    """Flat tensors, as checkpoints hold them."""
    found: dict[str, Tensor] = {}
    for i, best in enumerate(bests):
        score = math.nan if best.score is None else best.score
        found[f"{i}.score"] = torch.tensor(score, dtype=torch.float64)
        found[f"{i}.epoch"] = torch.tensor(best.epoch)
        found |= {f"{i}.weights.{name}": t for name, t in best.weights.items()}
    return found


def read(tensors: Mapping[str, Tensor], count: int) -> list[Best]:
    """What `written` wrote about `count` nodes."""
    found = []
    for i in range(count):
        score = float(tensors[f"{i}.score"])
        weights = under(tensors, f"{i}.weights.")
        found.append(Best(None if math.isnan(score) else score, int(tensors[f"{i}.epoch"]), weights))
    return found
