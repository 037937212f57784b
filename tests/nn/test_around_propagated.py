"""Features passed along the edges: equal to the dense product, and nothing at all for no step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gnnkd import nn
from gnnkd.graph import normalise
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around.propagated import Propagated, propagated

N, D, C = 60, 50, 3


def _data() -> tuple[Tensor, Graph]:
    rng = torch.Generator().manual_seed(0)
    edges = torch.randint(N - 1, (2, 60), generator=rng)  # the last node has none
    x = torch.rand(N, D, generator=rng) * (torch.rand(N, D, generator=rng) < 0.02)
    return x.double(), Graph.from_edge_index(torch.cat([edges, edges.flip(0)], 1), N)


def _mlp(inputs: int) -> torch.nn.Module:
    return nn.MODELS["mlp"](inputs, C, layers=2, width=6)


@pytest.mark.parametrize("k", [0, 1, 2, 5])
@pytest.mark.parametrize("way", [normalise.gcn, normalise.symmetric])
def test_sparse_and_dense_features_are_those_of_the_dense_product(way: object, k: int) -> None:
    x, graph = _data()
    a = way(graph.adjacency)  # type: ignore[operator]
    want = torch.linalg.matrix_power(a.dense().double(), k) @ x
    torch.testing.assert_close(propagated(a, x, k), want)
    sparse = propagated(a, CSR.from_dense(x), k)
    torch.testing.assert_close(sparse.dense() if isinstance(sparse, CSR) else sparse, want, rtol=1e-6, atol=1e-7)


def test_features_stay_sparse_while_that_pays() -> None:
    x, graph = _data()
    a = normalise.gcn(graph.adjacency)
    assert isinstance(propagated(a, CSR.from_dense(x), 1), CSR)
    assert isinstance(propagated(a, CSR.from_dense(x), 20), Tensor)


def test_no_step_is_the_network_itself() -> None:
    x, graph = _data()
    torch.manual_seed(0)
    network = Propagated(_mlp(D), k=0, loops=True).double().eval()
    assert torch.equal(network(x, graph).logits, network.inner(x).logits)


def test_a_lone_node_keeps_its_features_with_loops_and_has_none_without() -> None:
    x, graph = _data()
    assert torch.equal(propagated(normalise.gcn(graph.adjacency), x, 3)[-1], x[-1])
    assert not propagated(normalise.symmetric(graph.adjacency), x, 3)[-1].any()


def test_the_features_of_one_graph_are_not_kept_for_another() -> None:
    x, graph = _data()
    torch.manual_seed(0)
    network = Propagated(_mlp(D), k=1, loops=True).double().eval()
    one = network(x, graph).logits
    assert torch.equal(network(x, graph).logits, one)
    other = network(x, Graph.from_edge_index(graph.edge_index[:, :10], N)).logits
    assert not torch.equal(other, one)
    assert torch.equal(network(x, graph.edge_index).logits, one)


def test_weights_and_options_are_all_that_a_copy_needs() -> None:
    x, graph = _data()
    network = Propagated(_mlp(D), k=2, loops=False).double().eval()
    again = Propagated.restored(_mlp, D, C, network.options).double().eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x, graph).logits, network(x, graph).logits)
