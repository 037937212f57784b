"""Attention along edges: softmax over a node's incoming edges, and what moves values between nodes and edges.

Edges are the entries of a `CSR`, in row order; row = target. As with the sums of `kernels`, the gradient of each
function is made of the others, so all are differentiable to any order.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.graph.kernels import edge_dot, flipped, transposed, weighted_sum
from gnnkd.graph.structure import CSR

__all__ = ["edge_dot", "edge_softmax", "expand", "gather", "segment_max", "segment_sum", "weighted_sum"]


def edge_softmax(a: CSR, scores: Float[Tensor, "E H"]) -> Float[Tensor, "E H"]:
    """Softmax over the entries of each row: positive weights that sum to one, head by head.

    Each row is shifted by its largest score first, so no score is too large.
    """
    return cast("Tensor", _EdgeSoftmax.apply(scores, a))  # type: ignore[no-untyped-call]


def segment_sum(a: CSR, v: Float[Tensor, "E H"]) -> Float[Tensor, "R H"]:
    """Sum over the entries of each row; 0 for a row without entries."""
    return cast("Tensor", _SegmentSum.apply(v, a))  # type: ignore[no-untyped-call]


def segment_max(a: CSR, v: Float[Tensor, "E H"]) -> Float[Tensor, "R H"]:
    """Largest entry of each row, without a gradient; 0 for a row without entries."""
    return _reduced(a, v.detach(), "max")


def expand(a: CSR, v: Float[Tensor, "R H"]) -> Float[Tensor, "E H"]:
    """The value of each entry's row (its target)."""
    return cast("Tensor", _Expand.apply(v, a))  # type: ignore[no-untyped-call]


def gather(a: CSR, v: Float[Tensor, "K H"]) -> Float[Tensor, "E H"]:
    """The value of each entry's column (its source)."""
    return cast("Tensor", _Gather.apply(v, a))  # type: ignore[no-untyped-call]


class _EdgeSoftmax(torch.autograd.Function):
    """p = softmax(s), so dL/ds = p (dL/dp - sum over the row of p dL/dp)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, a: CSR) -> Tensor:
        ctx.a = a
        p = scores - segment_max(a, scores).index_select(0, a.row)
        p.exp_()
        p.mul_(_reduced(a, p, "sum").reciprocal_().index_select(0, a.row))
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (p,), a = ctx.saved_tensors, ctx.a
        weighted = p * grads[0]
        return weighted - p * expand(a, segment_sum(a, weighted)), None


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, a: CSR) -> Tensor:
        ctx.a = a
        return _reduced(a, v, "sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return expand(ctx.a, grads[0]), None


class _Expand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, a: CSR) -> Tensor:
        ctx.a = a
        return v.index_select(0, a.row)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return segment_sum(ctx.a, grads[0]), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, a: CSR) -> Tensor:
        ctx.a = a
        return v.index_select(0, a.col)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return segment_sum(flipped(ctx.a), transposed(ctx.a, grads[0])), None


def _reduced(a: CSR, v: Tensor, mode: str) -> Tensor:
    """Sum or maximum over the entries of each row, 0 where there are none."""
    if a.n_entries == 0 or v.shape[1] == 0:
        return v.new_zeros(a.shape[0], v.shape[1])
    return _bags(a, v, mode) if v.device.type == "cpu" else _segments(a, v, mode)


def _bags(a: CSR, v: Tensor, mode: str) -> Tensor:
    # Bags of consecutive rows of a table, several times faster than `segment_reduce` for sums.
    every = torch.arange(a.n_entries, dtype=a.rowptr.dtype)
    return F.embedding_bag(every, v.detach().contiguous(), a.rowptr, mode=mode, include_last_offset=True)


def _segments(a: CSR, v: Tensor, mode: str) -> Tensor:
    found = torch.segment_reduce(v.detach().contiguous(), mode, offsets=a.rowptr.long(), axis=0, unsafe=True)
    return found.masked_fill((a.rowptr.diff() == 0)[:, None], 0.0)
