"""Samples layer by layer: what the seeds are told is what all nodes of the sample are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gnnkd import nn
from gnnkd.graph.layered import Layered
from gnnkd.graph.sampling import Sampler
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.taken_apart import apart

N, D, C = 80, 7, 3


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("model", "options", "hops"), [
    ("sage", {}, 2), ("sage", {"aggregator": "gcn"}, 3), ("gcn", {}, 2), ("gcn", {}, 3), ("gat", {"heads": 2}, 2),
    ("sage", {"layers": 3}, 3), ("sage", {"width": 2}, 2),
])  # fmt: skip
def test_seeds_are_told_the_same(model: str, options: dict[str, Any], hops: int, weighted: bool, sparse: bool) -> None:
    """Outputs and gradients; operands are the first rows of those of the sample."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.rand(400, generator=draws) if weighted else None
    graph = Graph.from_edge_index(torch.randint(N, (2, 400), generator=draws), N, weight)
    sample = Sampler(graph, [3] * hops).sample(torch.tensor([5, 2, 77, 30]), draws)
    torch.manual_seed(0)
    network = nn.MODELS[model](D, C, **{"layers": 2, "width": 8, **options}).eval()
    x = torch.randn(sample.ids.numel(), D, generator=draws).relu()
    given = CSR.from_dense(x) if sparse else x
    matrices = [layer.matrix for layer in apart(network, given)]
    seen = Layered.of(sample, matrices)
    n = seen.n_nodes
    first = CSR.from_dense(x[:n]) if sparse else x[:n]
    one, other = network(given, sample.weighed(matrices)), network(first, seen)
    torch.testing.assert_close(other.logits, one.logits[:4])
    for name, h in other.hidden.items():
        if isinstance(h, torch.Tensor):
            torch.testing.assert_close(h, one.hidden[name][: h.shape[0]])
    assert n < sample.ids.numel() or hops == options.get("layers", 2)
    params = list(network.parameters())
    for p, q in zip(
        torch.autograd.grad(one.logits[:4].square().sum(), params),
        torch.autograd.grad(other.logits.square().sum(), params),
        strict=True,
    ):
        torch.testing.assert_close(p, q)


def test_more_layers_than_hops_are_refused() -> None:
    graph = Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]), 2)
    sample = Sampler(graph, [3]).sample(torch.tensor([0]), torch.Generator())
    matrices = [layer.matrix for layer in apart(nn.sage(2, 2, layers=2, width=2), torch.randn(2, 2))]
    with pytest.raises(ValueError, match="2 layers look at edges, and 1 hops"):
        Layered.of(sample, matrices)
