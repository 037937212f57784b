"""How well guesses imitate, over the channels that live.

A dead channel (a ReLU that is zero on every node) has a zero state and a zero gradient row: there is nothing to guess
and nothing to guess it from. In a wide GCN on amazon-photo that is 87 % of a layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def alive(target: Float[Tensor, "D A"]) -> Bool[Tensor, " D"]:
    """The rows that are not zero."""
    return (target != 0).any(dim=1)


def mean_over(values: Float[Tensor, " D"], living: Bool[Tensor, " D"]) -> Float[Tensor, ""]:
    """Mean of the values of living rows; zero when there are none."""
    return torch.where(living, values, 0.0).sum() / living.sum().clamp(min=1)


def cosine(guess: Float[Tensor, "D A"], target: Float[Tensor, "D A"]) -> Float[Tensor, ""]:
    """Mean cosine of the rows of `guess` with those of `target`, over the rows where the target is not zero."""
    return mean_over(F.cosine_similarity(guess, target, dim=1), alive(target))


def agreements(
    guess: Float[Tensor, "D A"],
    target: Float[Tensor, "D A"],
    action: Float[Tensor, "D A"],
    *,
    target_before: Float[Tensor, "D A"],
    action_before: Float[Tensor, "D A"],
    order: Int[Tensor, " D"],
) -> dict[str, Float[Tensor, ""]]:
    """Cosines of a guess, and of what it is compared with, with the target (a moving average) and a single gradient.

    Args:
        guess: made before the target was seen.
        target: what is imitated.
        action: this epoch's gradient alone.
        target_before: the last epoch's, the guess of persistence.
        action_before: the last epoch's gradient alone.
        order: of the channels, for the guess from another channel's state.
    """
    return {
        "generator": cosine(guess, target),
        "shuffled": cosine(guess[order], target),
        "persistence": cosine(target_before, target),
        "generator_raw": cosine(guess, action),
        "persistence_raw": cosine(action_before, action),
    }


def shuffled(living: Bool[Tensor, " D"], rng: torch.Generator) -> Int[Tensor, " D"]:
    """An order that permutes the living rows among themselves and leaves the others."""
    keys = torch.rand(living.shape[0], generator=rng, device=living.device) + ~living
    order = torch.empty_like(keys, dtype=torch.long)
    order[torch.argsort((~living).int(), stable=True)] = torch.argsort(keys)
    return order
