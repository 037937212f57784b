"""Test accuracies of a task's setting: one under `tran`, and what they are made of under `ind`.

Under `ind` a network is asked three times: on the graph it was trained on (`tran`: the observed test nodes), on the
whole graph (`ind`: the unseen nodes with all their edges), and on the graph in which the unseen nodes have no edges
(`cold`: nothing is known of a new node but its features). The reported one is that of production, where four of five
requests are about known nodes and one is about a new one: .8 tran + .2 ind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gnnkd.data.task import NodeTask
from gnnkd.graph.structure import CSR, Graph
from gnnkd.metrics import accuracy
from gnnkd.nn.around import ask
from gnnkd.nn.layerwise import Layerwise
from gnnkd.train.teacher import outputs

PARTS = ("tran", "ind", "cold")
"""The three questions."""
NAMES = ("test_acc", *(f"test_acc_{part}" for part in PARTS))
"""All scores that a result may have: the reported one, and its parts under `ind`."""
SHARE_UNSEEN = 0.2
"""Share of new nodes among the requests of production."""

Scores = dict[str, float]


def of_network(network: nn.Module, task: NodeTask, *, layerwise: Layerwise | None = None) -> Scores:
    """Scores of a trained network, by forward passes in eval mode.

    Args:
        layerwise: asks the network layer by layer, about the rows that count alone; None asks about all rows at once.
    """
    if layerwise is None:
        return of_logits(network, task, outputs(network, task.batch(task.split.train)))
    tran = _asked(layerwise, network, (task.x, task.graph), task.y, task.split.test)
    return _with_unseen(tran, network, task, layerwise)


@torch.no_grad()
def of_logits(
    network: nn.Module, task: NodeTask, observed: Float[Tensor, "N C"], *, layerwise: Layerwise | None = None
) -> Scores:
    """As `of_network`, for one whose logits on the task's own rows are there already, in memory or mapped."""
    return _with_unseen(accuracy(observed, task.y, task.split.test), network, task, layerwise)


@torch.no_grad()
def _with_unseen(tran: float, network: nn.Module, task: NodeTask, layerwise: Layerwise | None) -> Scores:
    whole = task.whole
    if whole is None:
        return {"test_acc": tran}
    network.eval()
    found = [
        accuracy(ask(network, whole.x, graph, whole.index).logits, whole.y, whole.unseen)
        if layerwise is None
        else _asked(layerwise, network, (whole.x, graph), whole.y, whole.unseen)
        for graph in (whole.graph, whole.cold)
    ]
    return inductive(tran, *found)


def _asked(
    layerwise: Layerwise,
    network: nn.Module,
    data: tuple[Tensor | CSR, Graph],
    y: Int[Tensor, " N"],
    mask: Bool[Tensor, " N"],
) -> float:
    """The accuracy on the masked rows, in [0, 1]; NaN where there are none."""
    ids = mask.nonzero().flatten()
    if not ids.numel():
        return math.nan
    hits = layerwise.logits(network, *data, ids=ids).argmax(dim=-1) == y[ids]
    return float(hits.double().mean())


def inductive(tran: float, ind: float, cold: float | None = None) -> Scores:
    """The scores under `ind` from those of its parts, each in [0, 1]; `cold` may be unknown."""
    parts = {"test_acc_tran": tran, "test_acc_ind": ind} | ({} if cold is None else {"test_acc_cold": cold})
    return {"test_acc": (1 - SHARE_UNSEEN) * tran + SHARE_UNSEEN * ind} | parts


def of_teacher(result: Mapping[str, Any]) -> Scores:
    """A teacher's scores as its student's result names them, from the teacher's; other entries are left out."""
    return {f"teacher_{name}": result[name] for name in NAMES if name in result}
