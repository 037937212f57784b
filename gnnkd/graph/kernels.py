"""The one path on which all message passing runs: a weighted sum over neighbours.

On CPU it is `embedding_bag` on the cached compressed rows, whose backward is the same function on the cached
transposition. Measured against scatter, segment and sparse-product kernels in `scripts/bench_kernels.py`.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.graph.structure import CSR


def neighbour_sum(a: CSR, x: Float[Tensor, "K D"]) -> Float[Tensor, "R D"]:
    """Sum of the rows of `x` that each row of `a` points at: out = a x.

    Differentiable to any order by `x`, and by `a.value` where that requires a gradient (which takes [E, D] of memory).

    Args:
        a: weights [R, K]; cast to the dtype of `x`.
        x: one row for each column of `a`, any floating dtype.

    Raises:
        ValueError: `x` is not a matrix with K rows.
    """
    if x.dim() != 2 or x.shape[0] != a.shape[1]:
        raise ValueError(f"x has shape {tuple(x.shape)}; a has shape {a.shape}, so {a.shape[1]} rows are needed")
    return cast("Tensor", _NeighbourSum.apply(a.value, x, a))  # type: ignore[no-untyped-call]


class _NeighbourSum(torch.autograd.Function):
    """y = A x, so dL/dx = A^T dL/dy, which is a neighbour sum again, and dL/dA_e = <dL/dy[row_e], x[col_e]>."""

    @staticmethod
    def forward(ctx: Any, value: Tensor | None, x: Tensor, a: CSR) -> Tensor:  # noqa: ARG004, a holds it too
        ctx.a = a
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(x)
        return _product(a, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,), a = grads, ctx.a
        by_value = None
        if ctx.needs_input_grad[0]:
            (x,) = ctx.saved_tensors
            by_value = (grad[a.row] * x[a.col]).sum(1).to(a.dtype)
        return by_value, neighbour_sum(a.transpose, grad) if ctx.needs_input_grad[1] else None, None


def _product(a: CSR, x: Tensor) -> Tensor:
    if a.n_entries == 0 or x.shape[1] == 0:  # the kernels below do not take empty tables
        return x.new_zeros(a.shape[0], x.shape[1])
    return _bag(a, x) if x.device.type == "cpu" else _sparse(a, x)


def _bag(a: CSR, x: Tensor) -> Tensor:
    # Detached, or torch would also prepare its own backward, which this path never takes.
    weights = None if a.value is None else a.value.detach().to(x.dtype)
    x = x.detach().contiguous()
    return F.embedding_bag(a.col, x, a.rowptr, mode="sum", per_sample_weights=weights, include_last_offset=True)


def _sparse(a: CSR, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        matrix = torch.sparse_csr_tensor(a.rowptr, a.col, a.values(x.dtype), a.shape, check_invariants=False)
    return matrix @ x
