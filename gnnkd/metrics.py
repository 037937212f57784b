"""Scores that training needs."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor


def accuracy(logits: Float[Tensor, "N C"], y: Int[Tensor, " N"], mask: Bool[Tensor, " N"]) -> float:
    """Share of the masked rows whose largest logit is their label, in [0, 1]; NaN for an empty mask."""
    hits = logits[mask].argmax(dim=-1) == y[mask]
    return float(hits.double().mean())
