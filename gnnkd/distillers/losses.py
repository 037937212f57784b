"""Loss functions that several methods share, on tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import vector_norm

from gnnkd.types import UNKNOWN

_LOW = -1e30
"""A log-probability of zero; it is finite, so that differences of two of them are no NaN."""


class Decoupled(NamedTuple):
    """KL divergence of each row in two parts, `KL = target + (1 - p) others` in nats.

    Args:
        target: KL of the two-way distributions (target class, all others).
        others: KL of the distributions over the other classes.
        p: the teacher's probability of the target class.
    """

    target: Float[Tensor, " N"]
    others: Float[Tensor, " N"]
    p: Float[Tensor, " N"]


def full_precision(values: Tensor) -> Tensor:
    """The same in float32 at least: sums over classes and rows need it, whatever a network computes in."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def cross_entropy(logits: Float[Tensor, "N C"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over the rows whose label may be read (`y` is `UNKNOWN` elsewhere)."""
    return F.cross_entropy(full_precision(logits), y, ignore_index=UNKNOWN)


def soft_kl(
    student: Float[Tensor, "N C"], teacher: Float[Tensor, "N C"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """`T^2 mean_i KL(softmax(t_i / T) || softmax(s_i / T))` in nats; `T^2` keeps the gradient's size apart from T."""
    log_s = F.log_softmax(student / temperature, dim=-1)
    log_t = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def decoupled(
    student: Float[Tensor, "N C"], teacher: Float[Tensor, "N C"], y: Int[Tensor, " N"], temperature: float = 1.0
) -> Decoupled:
    """`KL(softmax(t_i / T) || softmax(s_i / T))` of each row, taken apart at its label.

    Where the label may not be read the values mean nothing; `mean_of_labelled` leaves them out.
    """
    target = y.clamp(min=0)[:, None]
    log_s, log_t = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    hit_s, hit_t = log_s.gather(1, target)[:, 0], log_t.gather(1, target)[:, 0]
    rest_s, rest_t = log_s.scatter(1, target, _LOW), log_t.scatter(1, target, _LOW)
    miss_s, miss_t = rest_s.logsumexp(1), rest_t.logsumexp(1)
    p = hit_t.exp()
    two_way = p * (hit_t - hit_s) + miss_t.exp() * (miss_t - miss_s)
    log_q_s, log_q_t = F.log_softmax(rest_s, dim=1), F.log_softmax(rest_t, dim=1)
    others = F.kl_div(log_q_s, log_q_t, reduction="none", log_target=True).sum(1)
    return Decoupled(two_way, others, p)


def mean_of_labelled(values: Float[Tensor, " N"], y: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean over the rows whose label may be read, 0 where there is none."""
    there = y != UNKNOWN
    return torch.where(there, values, 0).sum() / there.sum().clamp(min=1)


def correlation(x: Float[Tensor, "R K"], y: Float[Tensor, "R K"]) -> Float[Tensor, " R"]:
    """Pearson correlation of each row of `x` with that of `y`, in [-1, 1]; 0 where one of them is constant."""
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    sizes: Tensor = vector_norm(x, dim=1) * vector_norm(y, dim=1)
    return (x * y).sum(1) / (sizes + 1e-8)


def standardised(logits: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Each row with mean 0 and standard deviation 1 (of C - 1 degrees of freedom); a constant row becomes 0."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.var(1, keepdim=True) + 1e-14).sqrt()
