"""Features that are changed within a small box so that a loss grows: projected gradient ascent.

A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018:

    delta <- clamp(delta + rate sign(gradient by delta of the loss of x + delta), -eps, eps)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.graph.pattern import Pattern
from gnnkd.graph.structure import CSR

Loss: TypeAlias = Callable[[Tensor], Tensor]
"""A scalar, by the change of some rows [S, D]."""


def worst(
    loss: Loss, shape: tuple[int, int], *, eps: float, rate: float, steps: int, draws: torch.Generator, like: Tensor
) -> Float[Tensor, "S D"]:
    """A change in [-eps, eps] at which `loss` is large, without gradients.

    It starts uniform in the box.

    Args:
        loss: at a change.
        shape: of the change.
        eps: half the side of the box, at least 0, in units of features.
        rate: of one step.
        steps: number of gradients, at least 0.
        draws: what the start comes from, on the CPU.
        like: a tensor of the type and on the device of the change.
    """
    start = torch.rand(shape, generator=draws, dtype=torch.float32) * (2 * eps) - eps
    delta = start.to(like.device, like.dtype).clamp(-eps, eps)
    for _ in range(steps):
        delta.requires_grad_()
        (slope,) = torch.autograd.grad(loss(delta), [delta])
        delta = delta.detach().add_(slope.sign(), alpha=rate).clamp_(-eps, eps)
    return delta


def rows_of(x: Float[Tensor, "N D"] | CSR, rows: Int[Tensor, " S"]) -> Float[Tensor, "S D"]:
    """Some rows, written out."""
    return x[rows] if isinstance(x, Tensor) else x.select_rows(rows).dense()


def changed(
    x: Float[Tensor, "N D"] | CSR, rows: Int[Tensor, " S"]
) -> Callable[[Float[Tensor, "S D"]], Float[Tensor, "N D"] | CSR]:
    """What makes `x` with other values in `rows` (distinct), differentiable by these; sparse where `x` is.

    Of a sparse matrix these rows alone have all their entries.
    """
    if isinstance(x, Tensor):
        dense = x
        return lambda values: dense.index_copy(0, rows, values)
    n, width = x.shape
    chosen = torch.zeros(n, dtype=torch.bool, device=x.device)
    chosen[rows] = True
    counts = torch.where(chosen, width, x.rowptr.diff().long())
    rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    full = (rowptr[rows][:, None] + torch.arange(width, device=x.device)).flatten()
    kept = ~chosen[x.row.long()]
    entry = torch.arange(x.n_entries, device=x.device)
    place = (entry + (rowptr[:-1] - x.rowptr[:-1].long())[x.row.long()])[kept]
    col = x.col.new_empty(int(rowptr[-1]))
    col[full] = torch.arange(width, device=x.device, dtype=col.dtype).repeat(rows.numel())
    col[place] = x.col[kept]
    base = x.values().new_zeros(col.numel())
    base[place] = x.values()[kept]
    pattern = Pattern(rowptr, col, (n, width))
    return lambda values: CSR.on(pattern, base.index_copy(0, full, values.flatten()))
