"""Memory of a step is linear in rows and edges: no method makes a matrix of all pairs of nodes."""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.distillers.base import Lesson
from gnnkd.graph.structure import Graph
from gnnkd.nn.around import ask
from gnnkd.train.update import update
from gnnkd.types import Batch, Output, Step

N, E, D, C = 50_000, 500_000, 16, 5
LIMIT = 1 << 30
"""Bytes above those at the start; a float for each pair of nodes would take ten times as many."""
SHORT: dict[str, dict[str, Any]] = {
    "nosmog": {"walks": 1, "walk_length": 5, "iterations": 1},
    "vqgraph": {"tokenizer_epochs": 1, "codes": 64},
}
"""Options with which a long preparation is a short one of the same memory."""
CLEAR = Path("/proc/self/clear_refs")
METHODS = [name for name, kind in distillers.graph_methods().items() if not kind.wraps]


def _status(key: str) -> int:
    """Bytes of an entry of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def _again(features: Tensor, x: Tensor) -> Output:
    return Output(features[:, :C] + x[:, :C], pooled=features)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize("method", METHODS)
def test_a_step_on_a_large_graph_takes_memory_linear_in_rows_and_edges(method: str) -> None:
    draw = torch.Generator().manual_seed(0)
    edges = torch.randint(0, N, (2, E), generator=draw)
    x, y = torch.rand(N, D, generator=draw), torch.randint(0, C, (N,), generator=draw)
    batch = Batch.of(x, y, Graph.from_edge_index(edges, N), torch.arange(N) < N // 2)
    distiller = distillers.build(method, on_graphs=True, **SHORT.get(method, {}))
    model = "mlp" if distiller.on_rows else "gcn"
    features = torch.rand(N, 64, generator=draw)
    teacher = Output(torch.rand(N, C, generator=draw), pooled=features if distiller.reads_maps else None)
    gc.collect()
    CLEAR.write_text("5")  # the peak begins anew
    start = _status("VmRSS")

    torch.manual_seed(0)
    network = distiller.learner(lambda inputs: nn.MODELS[model](inputs, C, layers=2, width=64), batch, C, 0)
    with torch.no_grad():
        seen = ask(network.eval(), batch.x, batch.graph, batch.index)
    says = partial(_again, features) if distiller.asks_teacher else None
    distiller.prepare(Lesson(seen, teacher, (), batch.y, 0, 0, 0, batch, says))
    parts = [] if distiller.part is None else list(distiller.part.parameters())
    optimizer = torch.optim.SGD([*network.parameters(), *parts], lr=0.01)
    terms = update(network, optimizer, distiller, batch, teacher if distiller.needs_teacher else None, Step(60, 100))

    assert all(bool(t.isfinite()) for t in terms.values())
    assert _status("VmHWM") - start < LIMIT
