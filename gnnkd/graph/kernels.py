"""The one path on which all message passing runs: weighted sums over neighbours, with fixed or learnt weights.

On CPU a sum is `embedding_bag` on the cached compressed rows. Its gradient by the table is the same sum on the cached
transposition, its gradient by the weights one inner product an entry (`edge_dot`), and the gradients of those are sums
again: a closed family, differentiable to any order. Measured against scatter, segment and sparse-product kernels in
`scripts/bench_kernels.py`.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.graph.paths import chosen
from gnnkd.graph.structure import CSR

_BLOCK = 2048
"""Entries at once where inner products are taken from gathered rows: few enough to stay in a core's cache."""


def neighbour_sum(a: CSR, x: Float[Tensor, "K D"]) -> Float[Tensor, "R D"]:
    """Sum of the rows of `x` that each row of `a` points at: out = a x.

    Differentiable to any order by `x`, and by `a.value` where that requires a gradient.

    Args:
        a: weights [R, K]; cast to the dtype of `x`.
        x: one row for each column of `a`, any floating dtype.

    Raises:
        ValueError: `x` is not a matrix with K rows.
    """
    if x.dim() != 2 or x.shape[0] != a.shape[1]:
        raise ValueError(f"x has shape {tuple(x.shape)}; a has shape {a.shape}, so {a.shape[1]} rows are needed")
    weight = None if a.value is None else a.value[:, None]
    return cast("Tensor", _WeightedSum.apply(weight, x[:, None], a))[:, 0]  # type: ignore[no-untyped-call]


def weighted_sum(a: CSR, weight: Float[Tensor, "E H"], x: Float[Tensor, "K H F"]) -> Float[Tensor, "R H F"]:
    """Sums over neighbours with weights for each head: `out[r, h] = sum of weight[e, h] x[col_e, h] over row r`.

    Differentiable to any order by `weight` and `x`; takes no memory of the size E x F.

    Args:
        a: the places [R, K]; its values are not looked at.
        weight: of each entry, in row order, and head.
        x: one row for each column of `a` and head.

    Raises:
        ValueError: shapes that do not fit.
    """
    if x.dim() != 3 or weight.shape != (a.n_entries, x.shape[1]) or x.shape[0] != a.shape[1]:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)} and x {tuple(x.shape)}; a has {a.n_entries} entries in "
            f"{a.shape[1]} columns, so [{a.n_entries}, H] and [{a.shape[1]}, H, F] are needed"
        )
    return cast("Tensor", _WeightedSum.apply(weight, x, CSR.on(a.pattern)))  # type: ignore[no-untyped-call]


def edge_dot(a: CSR, y: Float[Tensor, "R H F"], x: Float[Tensor, "K H F"]) -> Float[Tensor, "E H"]:
    """Inner products along the entries: `out[e, h] = <y[row_e, h], x[col_e, h]>`; differentiable to any order."""
    return cast("Tensor", _EdgeDot.apply(y, x, a))  # type: ignore[no-untyped-call]


def transposed(a: CSR, v: Float[Tensor, "E H"]) -> Float[Tensor, "E H"]:
    """Values of the entries of `a` in the order of the entries of its transposition; differentiable to any order."""
    return cast("Tensor", _Transposed.apply(v, a))  # type: ignore[no-untyped-call]


class _WeightedSum(torch.autograd.Function):
    """y = A x, so dL/dx = A^T dL/dy, which is a weighted sum again, and dL/dA_e = <dL/dy[row_e], x[col_e]>."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor | None, x: Tensor, a: CSR) -> Tensor:
        ctx.a = a
        ctx.save_for_backward(weight, x if ctx.needs_input_grad[0] else None)
        # One head's weights side by side, as the kernels read them.
        by_head = [None] * x.shape[1] if weight is None else weight.detach().to(x.dtype).t().contiguous().unbind()
        sums = [_product(a, w, x[:, h]) for h, w in enumerate(by_head)]
        return sums[0][:, None] if len(sums) == 1 else torch.stack(sums, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,), a = grads, ctx.a
        weight, x = ctx.saved_tensors
        by_weight = by_x = None
        if ctx.needs_input_grad[0]:
            by_weight = edge_dot(a, grad, x).to(weight.dtype)
        if ctx.needs_input_grad[1]:
            by_x = _transposed_sum(a, weight, grad)
        return by_weight, by_x, None


def _transposed_sum(a: CSR, weight: Tensor | None, grad: Tensor) -> Tensor:
    """`A^T grad`; the weights that `a` holds itself are turned once and kept with it, others at each call."""
    turned = flipped(a) if a.value is None else a.transpose
    value = None if weight is None else transposed(a, weight) if turned.value is None else turned.value[:, None]
    return cast("Tensor", _WeightedSum.apply(value, grad, turned))  # type: ignore[no-untyped-call]


class _EdgeDot(torch.autograd.Function):
    """d_e = <y[row_e], x[col_e]>, so dL/dy = sum over a row's entries of dL/dd_e x[col_e], and x likewise."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: CSR) -> Tensor:
        ctx.a = a
        ctx.save_for_backward(y, x)
        return _dots(a, y, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,), a = grads, ctx.a
        y, x = ctx.saved_tensors
        by_y = weighted_sum(a, grad, x) if ctx.needs_input_grad[0] else None
        by_x = weighted_sum(flipped(a), transposed(a, grad), y) if ctx.needs_input_grad[1] else None
        return by_y, by_x, None


class _Transposed(torch.autograd.Function):
    """A permutation; its gradient is the inverse one."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, a: CSR) -> Tensor:
        ctx.a = a
        return v.index_select(0, a.pattern.flipped[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return transposed(flipped(ctx.a), grads[0]), None


def flipped(a: CSR) -> CSR:
    """The places of the transposed matrix, kept with the places of `a`."""
    return CSR.on(a.pattern.flipped[0])


# -- the arithmetic, without gradients -----------------------------------------------------------------------------


def _product(a: CSR, weight: Tensor | None, x: Tensor) -> Tensor:
    """`A x` with the values `weight` [E] (None: ones) at the places of `a`, for `x` [K, D]."""
    if a.n_entries == 0 or x.shape[1] == 0:  # the kernels below do not take empty tables
        return x.new_zeros(a.shape[0], x.shape[1])
    # Detached, or torch would also prepare its own backward, which these paths never take.
    return PATHS[chosen(x.device)](a, weight, x.detach())


def _bag(a: CSR, weight: Tensor | None, x: Tensor) -> Tensor:
    table = x.contiguous()
    return F.embedding_bag(a.col, table, a.rowptr, mode="sum", per_sample_weights=weight, include_last_offset=True)


def _csr(a: CSR, weight: Tensor | None, x: Tensor) -> Tensor:
    return _matrix(a, x.new_ones(a.n_entries) if weight is None else weight) @ x


def _scatter(a: CSR, weight: Tensor | None, x: Tensor) -> Tensor:
    from torch_scatter import segment_csr

    rows = x.index_select(0, a.col)
    return cast(
        "Tensor", segment_csr(rows if weight is None else rows * weight[:, None], a.rowptr.long(), reduce="sum")
    )


PATHS = {"bag": _bag, "csr": _csr, "scatter": _scatter}
"""Ways to compute the sum; `graph.paths` says which one a device takes."""


def _dots(a: CSR, y: Tensor, x: Tensor) -> Tensor:
    if a.n_entries == 0 or x.shape[2] == 0:
        return x.new_zeros(a.n_entries, x.shape[1])
    return _sampled(a, y, x) if x.dtype in (torch.float32, torch.float64) else _gathered(a, y, x)


def _sampled(a: CSR, y: Tensor, x: Tensor) -> Tensor:
    places = _matrix(a, x.new_zeros(a.n_entries))
    heads = range(x.shape[1])
    dots = [torch.sparse.sampled_addmm(places, y[:, h].to(x.dtype), x[:, h].t(), beta=0.0).values() for h in heads]
    return torch.stack(dots, 1)


def _gathered(a: CSR, y: Tensor, x: Tensor) -> Tensor:
    blocks = zip(torch.split(a.row, _BLOCK), torch.split(a.col, _BLOCK), strict=True)
    return torch.cat([(y.index_select(0, row) * x.index_select(0, col)).sum(2) for row, col in blocks])


def _matrix(a: CSR, value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(a.rowptr, a.col, value, a.shape, check_invariants=False)
