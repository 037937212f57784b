"""What a network costs when it ships: parameters, multiply-adds, milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gnnkd.compare import latency, macs
from gnnkd.compare.latency import Service
from gnnkd.data.augment import generator
from gnnkd.data.task import NodeTask
from gnnkd.nn.around import ask
from gnnkd.nn.blocks import Blocks
from gnnkd.predictor import Predictor

FETCHED, BLOCKS, PIECE = "fetched", "blocks", "piece"
"""What a network with edges answers from: a block of edges for each of its layers, or one piece of the graph."""
_TIMED = ("latency_ms", "fetch_ms")
_COMPARED = 20
"""Rows on which a fetched neighbourhood is compared with the whole graph."""
_CLOSE = 1e-4
"""How far their logits may differ, by the largest one: sums in another order."""


def of(predictor: Predictor, task: NodeTask) -> dict[str, Any]:
    """All costs of a trained network on the CPU.

    `n_parameters`; `n_stored`, numbers kept beside them; `hops`, how far it looks along edges (0: it answers from rows
    alone); `macs` per node of one pass over all nodes, as `macs.per_node` counts; `latency_ms` and, of one that needs
    edges, `fetch_ms`, as `latency.measured` says, and `fetched`, `BLOCKS` or `PIECE`. Under `ind` it is asked about the
    whole graph, unseen nodes among the others.
    """
    service = served(predictor, task)
    edges = None if service.reach is None else service.graph
    fetched = {} if edges is None else {FETCHED: PIECE if service.blocks is None else BLOCKS}
    with torch.no_grad():
        per_node = macs.per_node(service.network, service.x, edges, service.index, edges=edges is not None)
    return {
        "n_parameters": predictor.n_parameters,
        "n_stored": predictor.n_stored,
        "hops": 0 if service.reach is None else service.reach[0],
        "macs": per_node,
        **fetched,
        **latency.measured(service),
    }


def outdated(found: Mapping[str, Any]) -> bool:
    """Whether stored costs are of a network with edges and do not say what it answered from.

    All such networks ran on one piece when those were measured, so their milliseconds are not comparable with `of`'s.
    """
    return bool(found.get("hops")) and FETCHED not in found


def untimed(found: Mapping[str, Any]) -> dict[str, Any]:
    """Costs without their milliseconds."""
    return {name: value for name, value in found.items() if name not in _TIMED}


def served(predictor: Predictor, task: NodeTask) -> Service:
    """The network with the nodes that it answers about, and the smallest neighbourhood from which it does so exactly.

    Rows alone will do where they give the logits that the whole graph gives; else as many hops as the network sums
    along edges, in blocks where its layers can be applied so, and, if it reads degrees from the edges it is given, one
    hop more.

    Raises:
        ValueError: none of these gives the logits that the whole graph gives.
    """
    network, task = predictor.network.cpu().eval(), task.to("cpu")
    data = task if task.whole is None else task.whole
    far = max(1, macs.hops(network, task.n_features))
    made = partial(Service, network, data.x, data.graph, data.index)
    blocks = Blocks.of(network, data.x)
    ways = [] if predictor.needs_graph else [made(None)]
    ways += [] if blocks is None else [made((far, 0), blocks)]
    for service in (*ways, made((far, 0)), made((far, 1))):
        if _exact(service):
            return service
    raise ValueError(f"{predictor.name} answers otherwise about a neighbourhood of {far} hops than about the graph")


@torch.no_grad()
def _exact(service: Service) -> bool:
    """Whether some rows get the logits from what is fetched that they get from the whole graph."""
    whole = ask(service.network, service.x, service.graph, service.index).logits
    nodes = _spread(service.n)
    return _close(service.answer(nodes)[0], whole[nodes])


def _spread(n: int) -> Tensor:
    return torch.randperm(n, generator=generator("compared rows", n))[:_COMPARED]


def _close(found: Tensor, want: Tensor) -> bool:
    return bool((found - want).abs().max() <= _CLOSE * max(1.0, float(want.abs().max())))
