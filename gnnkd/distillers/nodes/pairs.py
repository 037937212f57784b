"""Pairs of a node that learns and a node whose teacher it learns from: its neighbours, and always itself.

A divergence of soft labels is linear in the logarithm of the student's, so all pairs of a node need one row of the
student: the sum of what its neighbours' teachers say. Memory is linear in edges and in nodes; nothing is E x C.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.nodes.neighbours import edges
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import Batch


def others(batch: Batch) -> CSR:
    """The edges among the rows of a batch, self loops and weights left out: row = who learns, column = its neighbour.

    Raises:
        UserError: the batch shows no edges.
    """
    edges(batch)
    assert isinstance(batch.graph, Graph)
    return batch.graph.derived(loopless)


def loopless(a: CSR) -> CSR:
    """The places of the entries of `a` that are no self loops, without weights."""
    apart = a.row != a.col
    if bool(apart.all()):
        return CSR.on(a.pattern)
    return CSR.from_coo(a.row[apart], a.col[apart], None, a.shape)


def met(batch: Batch) -> CSR:
    """Each two neighbours of a batch once, the number of edges between them in either direction as the value.

    Raises:
        UserError: the batch shows no edges.
    """
    edges(batch)
    assert isinstance(batch.graph, Graph)
    return batch.graph.derived(once)


def once(a: CSR) -> CSR:
    """The entries of `a` above the diagonal, those below it added to their mirror images; values count entries."""
    a = loopless(a)
    low, high = torch.minimum(a.row, a.col).long(), torch.maximum(a.row, a.col).long()
    key, count = torch.unique(low * a.shape[1] + high, return_counts=True)
    low, high = key.div(a.shape[1], rounding_mode="floor"), key % a.shape[1]
    return CSR.from_coo(low, high, count.to(torch.get_default_dtype()), a.shape)


@torch.no_grad()
def entropy(logits: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
    """Entropy of each row's soft label in nats, in [0, log C], without a gradient."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(1).clamp(max=0)


class Said(NamedTuple):
    """What teachers say to each node over all pairs of it: all of a divergence but the student.

    Args:
        target: summed soft labels.
        surety: summed negative entropies, in nats, over all nodes.
        pairs: their number, or weight.
    """

    target: Float[Tensor, "N C"]
    surety: Float[Tensor, ""]
    pairs: Float[Tensor, ""] | int


@torch.no_grad()
def said(a: CSR, weight: Float[Tensor, " E"] | None, teacher: Float[Tensor, "N C"], tau: float) -> Said:
    """The teacher's part of `pair_divergence`, of the same arguments; constant where these are."""
    log_p = F.log_softmax(teacher / tau, dim=1)
    p = log_p.exp()
    told = torch.cat([p, (p * log_p).sum(1, keepdim=True)], dim=1)
    told = told + neighbour_sum(a.with_value(weight), told)
    pairs = len(teacher) + (a.n_entries if weight is None else weight.sum())
    return Said(told[:, :-1], told[:, -1].sum(), pairs)


def divergence_from(told: Said, student: Float[Tensor, "N C"], tau: float) -> Float[Tensor, ""]:
    """`pair_divergence` of a student from what its teachers said at the same temperature."""
    return (told.surety - (told.target * F.log_softmax(student / tau, dim=1)).sum()) / told.pairs


def pair_divergence(
    a: CSR,
    weight: Float[Tensor, " E"] | None,
    student: Float[Tensor, "N C"],
    teacher: Float[Tensor, "N C"],
    tau: float,
) -> Float[Tensor, ""]:
    """Weighted mean of `KL(softmax(t_j / tau) || softmax(s_i / tau))` in nats over pairs (i, j).

    Pairs are the entries of `a`, i its row and j its column, and one self pair of weight 1 for each row.

    Args:
        a: edges without self loops.
        weight: of each entry, at least 0; None is 1.
        student: logits s.
        teacher: logits t, without a gradient.
        tau: temperature, in units of logits.
    """
    return divergence_from(said(a, weight, teacher, tau), student, tau)
