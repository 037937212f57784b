"""Measures beside accuracy, on the tested rows: fidelity to the teacher, calibration, and what noise and lost edges do.

Under `tran` the tested rows are the test nodes. Under `ind` they are the observed test nodes, asked on the observed
graph, and the unseen ones, asked on the whole graph: together the former weigh .8 and the latter .2, as they do in the
reported accuracy. Every measure is a mean with these weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gnnkd.data.augment import generator
from gnnkd.data.task import NodeTask
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import ask
from gnnkd.scores import SHARE_UNSEEN

BINS = 15
"""Of equal width, from 0 to 1, for the calibration error."""
NOISES = (0.1, 0.5, 1.0)
"""Standard deviations of the noise on features, by that of the feature."""
LOST = (0.1, 0.3, 0.5)
"""Shares of the undirected edges that are dropped."""
_BLOCK = 2048
"""Rows that get their noise at once."""


@final
@dataclass(frozen=True)
class Part:
    """Rows that a network is asked about at once; those in `tested` weigh `weight` together, in equal shares."""

    x: Tensor | CSR
    y: Int[Tensor, " N"]
    graph: Graph
    index: Int[Tensor, " N"]
    tested: Bool[Tensor, " N"]
    weight: float


def parts(task: NodeTask) -> tuple[Part, ...]:
    """One part under `tran`; observed and unseen test nodes under `ind`."""
    known = Part(task.x, task.y, task.graph, task.index, task.split.test, 1.0)
    whole = task.whole
    if whole is None:
        return (known,)
    new = Part(whole.x, whole.y, whole.graph, whole.index, whole.unseen, SHARE_UNSEEN)
    return replace(known, weight=1 - SHARE_UNSEEN), new


def answers(network: nn.Module, task: NodeTask) -> Float[Tensor, "T C"]:
    """Logits of the tested rows, part after part, in eval mode; of a teacher, what `of` compares a student with."""
    return _asked(network, parts(task))


@torch.no_grad()
def of(network: nn.Module, task: NodeTask, teacher: Float[Tensor, "T C"] | None) -> dict[str, float]:
    """Every measure of a trained network.

    `agreement`: share of rows whose largest logit is the teacher's. `kl_teacher`: mean KL(teacher || student), nats.
    `ece`: expected calibration error in [0, 1]. `nll`: mean negative log likelihood of the labels, nats.
    `robust_noise_<s>`: accuracy with Gaussian noise on each feature, s times as wide as the feature is over the task's
    rows. `robust_edges_<p>`: accuracy where a share p of the undirected edges is gone. Draws depend on the task's seed
    alone, so all networks meet the same noise and the same gaps; edges that were made of features stay as they are.

    Args:
        network: on the device of the task.
        task: whose tested rows are asked about.
        teacher: the teacher's `answers`; None leaves the first two out.
    """
    asked = parts(task)
    logits, y, weight = _asked(network, asked).double(), labels(asked), weights(asked)
    found = {}
    if teacher is not None:
        found = {"agreement": agreement(logits, teacher, weight), "kl_teacher": kl(teacher.double(), logits, weight)}
    found |= {"ece": ece(logits, y, weight), "nll": nll(logits, y, weight)}
    wide = deviation(task.x)
    for s in NOISES:
        found[f"robust_noise_{s:g}"] = with_noise(network, task, s, wide)
    for p in LOST:
        found[f"robust_edges_{p:g}"] = with_fewer_edges(network, task, p)
    return found


def labels(asked: Sequence[Part]) -> Int[Tensor, " T"]:
    """Classes of the tested rows."""
    return torch.cat([part.y[part.tested] for part in asked])


def weights(asked: Sequence[Part]) -> Float[Tensor, " T"]:
    """Weights of the tested rows, which sum to one."""
    each = [(int(part.tested.sum()), part.weight) for part in asked]
    return torch.cat([torch.full((n,), w / n, dtype=torch.float64, device=asked[0].y.device) for n, w in each if n])


@torch.no_grad()
def _asked(network: nn.Module, asked: Sequence[Part]) -> Float[Tensor, "T C"]:
    network.eval()
    return torch.cat([ask(network, part.x, part.graph, part.index).logits[part.tested] for part in asked])


# -- fidelity and calibration --------------------------------------------------------------------------------------


def accuracy(logits: Float[Tensor, "T C"], y: Int[Tensor, " T"], weight: Float[Tensor, " T"]) -> float:
    """Weighted share of rows whose largest logit is their label, in [0, 1]."""
    return float(weight[logits.argmax(1) == y].sum())


def agreement(logits: Float[Tensor, "T C"], teacher: Float[Tensor, "T C"], weight: Float[Tensor, " T"]) -> float:
    """Weighted share of rows on which both have the same largest logit, in [0, 1]."""
    return accuracy(logits, teacher.argmax(1), weight)


def kl(teacher: Float[Tensor, "T C"], student: Float[Tensor, "T C"], weight: Float[Tensor, " T"]) -> float:
    """Weighted mean of KL(softmax(teacher) || softmax(student)) in nats, >= 0; 0 log 0 is 0."""
    told, said = teacher.log_softmax(1), student.log_softmax(1)
    each = torch.where(told == -torch.inf, 0.0, told.exp() * (told - said)).sum(1)
    return max(0.0, float(weight @ each))


def nll(logits: Float[Tensor, "T C"], y: Int[Tensor, " T"], weight: Float[Tensor, " T"]) -> float:
    """Weighted mean of -log p(label) in nats."""
    return float(-(weight @ logits.log_softmax(1).gather(1, y[:, None])[:, 0]))


def ece(logits: Float[Tensor, "T C"], y: Int[Tensor, " T"], weight: Float[Tensor, " T"], bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of the bin's weight times |its accuracy - its mean confidence|.

    Confidence is the largest probability; bin b holds those in (b / bins, (b + 1) / bins].
    """
    sure, said = logits.softmax(1).max(1)
    at = (sure * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gap = weight * ((said == y).to(weight.dtype) - sure)
    return float(gap.new_zeros(bins).index_add(0, at, gap).abs().sum())


# -- robustness ----------------------------------------------------------------------------------------------------


def with_noise(network: nn.Module, task: NodeTask, s: float, wide: Float[Tensor, " D"]) -> float:
    """Accuracy on features with noise of standard deviation `s` times `wide`."""
    asked, found = parts(task), []
    for part in asked:  # one after another: each holds a dense copy of its features
        noised = replace(part, x=noisy(part.x, s * wide, task.seed))
        found.append(_asked(network, [noised]))
        del noised
    return accuracy(torch.cat(found), labels(asked), weights(asked))


def with_fewer_edges(network: nn.Module, task: NodeTask, p: float) -> float:
    """Accuracy where a share `p` of the undirected edges is gone."""
    asked = parts(task)
    found = [_asked(network, [replace(part, graph=thinned(part.graph, p, task.seed))]) for part in asked]
    return accuracy(torch.cat(found), labels(asked), weights(asked))


def deviation(x: Float[Tensor, "N D"] | CSR) -> Float[Tensor, " D"]:
    """Standard deviation of each feature over the rows (ddof 0)."""
    if isinstance(x, Tensor):
        return x.double().std(0, correction=0).to(x.dtype)
    value, column = x.values().double(), x.col.long()
    first, second = (value.new_zeros(x.shape[1]).index_add(0, column, v) / x.shape[0] for v in (value, value.square()))
    return (second - first.square()).clamp(min=0).sqrt().to(x.dtype)


def noisy(x: Float[Tensor, "N D"] | CSR, wide: Float[Tensor, " D"], seed: int) -> Float[Tensor, "N D"]:
    """A dense copy of `x` with independent Gaussian noise of standard deviation `wide`, fixed by `seed`."""
    found = x.dense() if isinstance(x, CSR) else x.clone()
    draws = generator("noise on features", seed)
    for rows in torch.split(found, _BLOCK):
        rows += torch.randn(rows.shape, generator=draws, dtype=rows.dtype).to(rows.device) * wide
    return found


def thinned(graph: Graph, p: float, seed: int) -> Graph:
    """The graph without a share `p` in [0, 1] of its undirected edges, both directions at once, fixed by `seed`.

    A larger `p` drops those of a smaller one and more.
    """
    a, n = graph.adjacency, graph.n_nodes
    row, col = a.row.long(), a.col.long()
    pairs, pair = torch.unique(torch.minimum(row, col) * n + torch.maximum(row, col), return_inverse=True)
    order = torch.randperm(pairs.numel(), generator=generator("lost edges", seed)).to(a.device)
    gone = torch.zeros(pairs.numel(), dtype=torch.bool, device=a.device)
    gone[order[: round(p * pairs.numel())]] = True
    kept = ~gone[pair]
    value = None if a.value is None else a.value[kept]
    return Graph(CSR.from_coo(row[kept], col[kept], value, a.shape))
