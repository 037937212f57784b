"""How well guesses imitate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def cosine(guess: Float[Tensor, "D A"], target: Float[Tensor, "D A"]) -> Float[Tensor, ""]:
    """Mean cosine of the rows of `guess` with those of `target`, over the rows where the target is not zero."""
    alive = (target != 0).any(dim=1)
    cosines = F.cosine_similarity(guess, target, dim=1)
    return torch.where(alive, cosines, 0.0).sum() / alive.sum().clamp(min=1)
