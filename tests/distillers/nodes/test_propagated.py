"""GA-GLNN: GLNN where nothing is propagated, and a student that the edges tell more where something is."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.distillers.base import Distiller
from gnnkd.graph.structure import CSR, Graph
from gnnkd.train.settings import TrainSettings
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Operand, Output, Step

N, D, C = 90, 24, 3
Y = torch.arange(N) % C


def _problem() -> tuple[Tensor, Graph, Output]:
    """Features that say little, edges that say much."""
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randint(N, (2, 10 * N), generator=rng)
    graph = Graph.from_edge_index(torch.stack([a, b])[:, Y[a] == Y[b]], N)
    chance = torch.where(torch.arange(D) % C == Y[:, None], 0.16, 0.08)
    x = (torch.rand(N, D, generator=rng) < chance).float()
    return x, graph, Output(torch.nn.functional.one_hot(Y, C) * 4.0)


def _trained(distiller: Distiller, x: Operand, graph: Graph, teacher: Output, epochs: int = 30) -> Tensor:
    batch = Batch.of(x, Y, graph, torch.arange(N) < 15)
    torch.manual_seed(0)
    network = distiller.learner(lambda d: nn.MODELS["mlp"](d, C, layers=2, width=8), batch, C, 0)
    course = WholeBatch(network, batch, distiller, teacher, (Y, torch.arange(N) >= 60), TrainSettings(lr=0.02))
    for epoch in range(epochs):
        course.epoch(Step(epoch, epochs))
    network.eval()
    logits: Tensor = network(x, graph).logits.detach()
    return logits


def test_without_a_step_it_is_glnn_bit_for_bit() -> None:
    problem = _problem()
    assert torch.equal(
        *(_trained(m, *problem) for m in (distillers.build("gaglnn", on_graphs=True, hops=0), distillers.build("glnn")))
    )


def test_sparse_features_teach_the_same_as_dense_ones() -> None:
    x, graph, teacher = _problem()
    found = [
        _trained(distillers.build("gaglnn", on_graphs=True), form, graph, teacher, 5) for form in (x, CSR.from_dense(x))
    ]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_neighbours_tell_what_features_do_not() -> None:
    x, graph, _ = _problem()
    teacher = Output(torch.nn.functional.one_hot(Y, C) * 4.0 * (torch.arange(N) < 60)[:, None])
    right = [
        float((_trained(m, x, graph, teacher)[60:].argmax(1) == Y[60:]).double().mean())
        for m in (distillers.build("glnn"), distillers.build("gaglnn", on_graphs=True, hops=2))
    ]
    assert right[1] > max(right[0], 0.7)
