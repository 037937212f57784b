"""Propagation along edges that returns to its start, and the ranges of its options."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.errors import UserError
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR


def restart(a: CSR, x: Float[Tensor, "N F"], start: Float[Tensor, "N F"], alpha: float) -> Float[Tensor, "N F"]:
    """(1 - alpha) a x + alpha start: a step along the edges of `a` [N, N] that returns to `start` by a share alpha."""
    return torch.lerp(neighbour_sum(a, x), start, alpha)


def check_restart(alpha: float) -> None:
    """Raise `UserError` unless alpha is a share in [0, 1]."""
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha}; it must be at least 0 and at most 1")


def check_steps(k: int) -> None:
    """Raise `UserError` unless k is a number of steps, >= 0."""
    if k < 0:
        raise UserError(f"k is {k}; it must be at least 0")
