"""Dropout whose mask is cheap on a CPU.

`F.dropout` draws one Bernoulli number an element there. Here one 64-bit draw serves four elements: 16 bits each,
compared with a threshold, so the keep probability is right to 2^-16 (and exact for p = 1/2, 1/4, ...).
`scripts/bench_step.py` measures both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR


def dropout(x: Float[Tensor, "..."], p: float, training: bool) -> Float[Tensor, "..."]:
    """Zero each element with probability p and scale the others by 1 / (1 - p); `x` itself if p = 0 or not training.

    Draws from torch's global generator; the result does not depend on the number of threads.

    Args:
        x: any shape.
        p: probability in [0, 1).
        training: whether to drop at all.

    Raises:
        UserError: p outside [0, 1).
    """
    check(p)
    if not training or p == 0 or x.numel() == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p, training=True)
    return x * (_keep(x.shape, p) * x.new_tensor(1 / (1 - p)))


def drop(x: Tensor | CSR, p: float, training: bool) -> Tensor | CSR:
    """`dropout` of a dense or a sparse operand; zeros stay zeros, so only stored values need a draw."""
    if isinstance(x, Tensor):
        return dropout(x, p, training)
    return x if not training or p == 0 else x.with_value(dropout(x.values(), p, training))


def check(p: float, name: str = "dropout") -> None:
    """Raise `UserError` unless p is a probability in [0, 1)."""
    if not 0 <= p < 1:
        raise UserError(f"{name} is {p}; it must be at least 0 and below 1")


def _keep(shape: torch.Size, p: float) -> Bool[Tensor, "..."]:
    n = shape.numel()
    bits = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:n]
    return (bits >= min(round(p * 2**16), 2**16 - 1) - 2**15).view(shape)
