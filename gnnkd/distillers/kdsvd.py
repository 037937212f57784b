"""KDSVD: how the main directions of a map turn from one stage to the next is as in the teacher.

S. H. Lee, D. H. Kim, B. C. Song, "Self-supervised knowledge distillation using singular value decomposition", ECCV
2018, section 3, without its self-supervised task, as common benchmarks have it.

Departures: of two maps of different sizes the larger is pooled first (the published code needs equal ones). Right
singular vectors are found as eigenvectors of `X^T X`, whose size is the width of the map. Their signs, which a
decomposition leaves open, are fixed so that the sum of the teacher's vector is not negative. The gradient of vectors
whose singular values nearly coincide is bounded; it has no limit there.
"""

from __future__ import annotations

from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.maps import Map, MapDistiller, Pairs, one_size, precise, stages
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.types import Batch, Output

MORE = 3
"""How many more vectors the student offers for the teacher's to choose from."""
GAP = 1e-5
"""Difference of two squared singular values, in units of the sum of all, from which on the gradient is bounded."""


@final
class KdSvd(MapDistiller):
    """`CE + weight * sum over stages of ||R_s - R_t||^2 / N`, R the radial basis function of two stages' vectors.

    Args:
        weight: of the term `kdsvd`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
        k: right singular vectors of a stage, at least 1.
    """

    def __init__(self, *, weight: Weight = 1.0, warmup: int = 0, k: int = 1) -> None:
        super().__init__({"kdsvd": Schedule.of("weight", weight)}, warmup)
        self.k = int(at_least("k", k, 1))

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The sum over all pairs of consecutive stages after the stem."""
        return turning_loss(stages(student, teacher, least=2), self.k)


@precise
def turning_loss(pairs: Pairs, k: int) -> Float[Tensor, ""]:
    """`sum over consecutive stages of sum (R(v_s, v_s') - R(v_t, v_t'))^2 / N`.

    `v` are the stage's `k` vectors, scaled by the teacher's singular values of unit norm, the student's chosen and
    signed to agree with the teacher's; `R(v, v')_xyj = exp(-(v_xj - v'_yj)^2 / 8)` for columns x and y of the image.
    """
    sized = [one_size(*pair) for pair in pairs]
    k = min(k, *(s.shape[3] for s, _ in sized))
    losses = []
    before: tuple[Tensor, Tensor] | None = None
    for s, t in sized:
        values, v_t = vectors(t, k)
        v_t = v_t * torch.where(v_t.sum(1, keepdim=True) < 0, -1, 1)
        v_s = aligned(vectors(s, k + MORE)[1], v_t)
        scale = F.normalize(values, dim=1)[:, None]
        v_s, v_t = v_s * scale, v_t * scale
        if before is not None:
            difference = radial(v_s, before[0]) - radial(v_t, before[1])
            losses.append(difference.square().sum() / s.shape[0])
        before = v_s, v_t
    return torch.stack(losses).sum()


def vectors(x: Map, k: int) -> tuple[Float[Tensor, "N R"], Float[Tensor, "N _ R"]]:
    """The `k` largest singular values of `x` as [K H, W] matrices, up to scale, and their right vectors, or all W.

    The values are for reading only: no gradient passes through them.
    """
    x = x.flatten(1, 2)
    gram = x.mT @ x
    # Directions do not depend on the scale, so that its gradient is zero and it may be left out.
    trace = gram.detach().diagonal(dim1=1, dim2=2).sum(1).clamp(min=torch.finfo(x.dtype).tiny)
    squares, v = _eigenvectors(gram / trace[:, None, None])
    return squares.flip(1)[:, :k].clamp(min=0).sqrt(), v.flip(2)[:, :, :k]


def aligned(student: Float[Tensor, "N W R"], teacher: Float[Tensor, "N W k"]) -> Float[Tensor, "N W k"]:
    """For each vector of the teacher the student's with the largest absolute cosine, with its sign."""
    cosine = student.detach().mT @ teacher
    best = cosine.abs().argmax(1, keepdim=True)
    sign = torch.where(cosine.gather(1, best) < 0, -1, 1)
    return student.gather(2, best.expand(-1, student.shape[1], -1)) * sign


def radial(a: Float[Tensor, "N W k"], b: Float[Tensor, "N V k"]) -> Float[Tensor, "N W V k"]:
    """`exp(-(a_x - b_y)^2 / 8)`."""
    return torch.exp(-(a[:, :, None] - b[:, None]).square() / 8)


def _eigenvectors(gram: Float[Tensor, "N W W"]) -> tuple[Tensor, Tensor]:
    values, v = _Eigenvectors.apply(gram)  # type: ignore[no-untyped-call]
    return values, v


class _Eigenvectors(torch.autograd.Function):
    """Ascending eigenvalues and eigenvectors of symmetric matrices, with a gradient that stays finite.

    For the eigenvectors V it is `V (F o V^T dV) V^T`, `F_ij = 1 / (l_j - l_i)`; here `1 / d` is `d / (d^2 + GAP^2)`,
    which is zero where two values coincide and any mixture of their vectors is as good.
    """

    @staticmethod
    def forward(ctx: Any, gram: Tensor) -> tuple[Tensor, Tensor]:
        values, v = torch.linalg.eigh(gram)
        ctx.save_for_backward(values, v)
        ctx.mark_non_differentiable(values)
        return values, v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        values, v = ctx.saved_tensors
        d = values[:, None] - values[:, :, None]
        found: Tensor = v @ (d / (d.square() + GAP**2) * (v.mT @ gradients[1])) @ v.mT
        return (found + found.mT) / 2
