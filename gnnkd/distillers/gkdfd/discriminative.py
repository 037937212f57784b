"""Discriminative feature distillation: where the teacher's classes lie apart, the student's rows lie as the teacher's.

The teacher's rows, in their principal components X [N, Q], are aligned by class: row i has its `k1` nearest rows of the
same class as positives, w_ij = 1, and its `k2` nearest of other classes as negatives, w_ij = -theta_i, with theta_i =
k1_i / k2_i by the numbers that it really has, so that each row of w sums to 0. The sum over all rows of the patches
`L_i = [[sum_j w_ij, -w_i^T], [-w_i, diag(w_i)]]`, put at the places of row i and its neighbours, is

    L = diag(row sums of w) + diag(column sums of w) - w - w^T
    tr(U^T X^T L X U) = sum_ij w_ij ||U^T (x_i - x_j)||^2

and the eigenvectors U of the smallest eigenvalues of `X^T L X` span the space in which positives are near and negatives
far. All of it is found without gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.distillers.maps import precise
from gnnkd.distillers.ranges import at_least

Mode: TypeAlias = Literal["align", "contrast"]


@final
@dataclass(frozen=True)
class Choice:
    """How the space is found, and what is compared in it.

    Args:
        mode: "align" or "contrast".
        k1: positives of a row, at least 1; as many as there are where a batch has fewer.
        k2: negatives of a row, at least 0; 0 takes all.
        ratio: width of the rows over the number of principal components, at least 1.
        whiten: whether the components have variance 1.

    Raises:
        ValueError: a value out of range.
    """

    mode: Mode
    k1: int
    k2: int
    ratio: float
    whiten: bool

    def __post_init__(self) -> None:
        at_least("k1", self.k1, 1)
        at_least("k2", self.k2, 0)
        at_least("pca_ratio", self.ratio, 1)


class Space(NamedTuple):
    """A discriminative space and how to get there, `z = (x - mean) axes basis`.

    Args:
        mean: of the teacher's rows.
        axes: their principal directions, the strongest first; divided by the deviation along them where whitened.
        basis: eigenvectors of the alignment as columns; those beyond the dimensions of the space are 0.
        weights: w of the teacher's rows.
    """

    mean: Float[Tensor, " K"]
    axes: Float[Tensor, "K Q"]
    basis: Float[Tensor, "Q Q"]
    weights: Float[Tensor, "N N"]

    def of(self, x: Float[Tensor, "M K"]) -> Float[Tensor, "M Q"]:
        """Rows in this space."""
        return (x - self.mean) @ self.axes @ self.basis


@torch.no_grad()
@precise
def space(x: Float[Tensor, "N K"], y: Int[Tensor, " N"], choice: Choice) -> Space:
    """The space of one dimension less than there are classes in `y`, of rows that are the teacher's.

    One class alone spans no space: all of the basis is 0. Rows that are not finite fall back on coordinates as
    principal directions, and these on themselves as the basis, so that no decomposition fails.
    """
    mean, axes = principal(x, ratio=choice.ratio, whiten=choice.whiten)
    points = (x - mean) @ axes
    w = weights(points, y, k1=choice.k1, k2=choice.k2)
    u = basis(points, alignment(w))
    return Space(mean, axes, u * (torch.arange(len(u), device=x.device) < count(y) - 1), w)


def count(y: Int[Tensor, " N"]) -> Int[Tensor, ""]:
    """How many different numbers there are, found without waiting for the device."""
    return (1 / (y[:, None] == y).sum(1).double()).sum().round().long()


def principal(
    x: Float[Tensor, "N K"], *, ratio: float, whiten: bool
) -> tuple[Float[Tensor, " K"], Float[Tensor, "K Q"]]:
    """Mean and principal directions of rows, the strongest first.

    Args:
        x: rows.
        ratio: K over Q, at least 1; Q is at most N - 1 and at least 1.
        whiten: divide a direction by the standard deviation along it; one along which nothing varies becomes 0.
    """
    n, k = x.shape
    size = max(1, min(int(k / ratio), n - 1))
    mean = x.mean(0)
    negated, directions = _eigen(-(x - mean).mT @ (x - mean))
    axes = directions[:, :size]
    if not whiten:
        return mean, axes
    squares = -negated[:size]
    varies = squares > squares[0] * k * torch.finfo(x.dtype).eps
    scale = (torch.where(varies, squares, 1) / max(1, n - 1)).rsqrt()
    return mean, axes * torch.where(varies, scale, 0)


def weights(points: Float[Tensor, "N Q"], y: Int[Tensor, " N"], *, k1: int, k2: int) -> Float[Tensor, "N N"]:
    """w: 1 at the positives of each row, -theta_i at its negatives, 0 elsewhere; a row without either kind is 0."""
    distances = (points[:, None] - points).square().sum(2)
    same = y[:, None] == y
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    positive, negative = nearest(distances, same & ~itself, k1), nearest(distances, ~same, k2)
    n1, n2 = positive.sum(1, keepdim=True), negative.sum(1, keepdim=True)
    theta = n1.to(points.dtype) / n2.clamp(min=1)
    return torch.where(n2 > 0, positive.to(points.dtype), 0) - theta * negative


def nearest(distances: Float[Tensor, "N N"], allowed: Bool[Tensor, "N N"], k: int) -> Bool[Tensor, "N N"]:
    """Mask of the `k` nearest allowed columns of each row, all where there are fewer or k is 0; ties to the lower."""
    if not k:
        return allowed
    order = distances.masked_fill(~allowed, torch.inf).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return allowed & (rank < k)


def alignment(w: Float[Tensor, "N N"]) -> Float[Tensor, "N N"]:
    """L, the sum of all patches in closed form."""
    return (w.sum(1) + w.sum(0)).diag() - w - w.mT


def basis(points: Float[Tensor, "N Q"], aligned: Float[Tensor, "N N"]) -> Float[Tensor, "Q Q"]:
    """Eigenvectors of `X^T L X` as columns, that of the smallest eigenvalue first."""
    return _eigen(points.mT @ aligned @ points)[1]


def _eigen(m: Float[Tensor, "Q Q"]) -> tuple[Float[Tensor, " Q"], Float[Tensor, "Q Q"]]:
    """Eigenvalues ascending and eigenvectors; of a matrix that is not finite the coordinates in order."""
    coordinates = torch.arange(len(m), device=m.device, dtype=m.dtype).diag()
    values, vectors = torch.linalg.eigh(torch.where(m.isfinite().all(), (m + m.mT) / 2, coordinates))
    return values, vectors


def discriminative_loss(
    student: Float[Tensor, "N K"], teacher: Float[Tensor, "N K"], found: Space, mode: Mode
) -> Float[Tensor, ""]:
    """The loss of both networks' rows in the space of the teacher's."""
    s, t = found.of(student), found.of(teacher)
    return align_loss(s, t) if mode == "align" else contrast_loss(s, t, found.weights)


@precise
def align_loss(student: Float[Tensor, "N Q"], teacher: Float[Tensor, "N Q"]) -> Float[Tensor, ""]:
    """`mean_i ||z_s,i - z_t,i||^2`."""
    return (student - teacher).square().sum(1).mean()


@precise
def contrast_loss(
    student: Float[Tensor, "N Q"], teacher: Float[Tensor, "N Q"], w: Float[Tensor, "N N"]
) -> Float[Tensor, ""]:
    """`sum_ij v_ij ||t_i - s_j||^2 / sum_ij |v_ij|` of rows on the unit sphere, `v = w + I`.

    The student's row is drawn to its own teacher and the teacher's positives, and driven from the negatives.
    """
    s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    v = w + torch.eye(len(w), dtype=w.dtype, device=w.device)
    squares = (t[:, None] - s).square().sum(2)
    return (v * squares).sum() / v.abs().sum()
