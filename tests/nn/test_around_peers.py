"""Attention among peers is that of a dense softmax, and takes no more memory than there are edges."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd import nn
from gnnkd.graph import normalise
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import kinds
from gnnkd.nn.around.peers import Peers, attended

N, D, C = 20, 7, 3


def _make(inputs: int, model: str = "gcn") -> torch.nn.Module:
    return nn.MODELS[model](inputs, C, layers=2, width=8)


def _graph() -> Graph:
    """Without multiple edges; the last two nodes have none."""
    dense = torch.rand(N, N, generator=torch.Generator().manual_seed(0)) < 0.2
    dense[-2:] = False
    dense[:, -2:] = False
    return Graph.from_edge_index(dense.nonzero().t().flip(0), N)


def _dense(graph: Graph, h: Tensor) -> Tensor:
    there = torch.eye(N, dtype=torch.bool)
    there[graph.adjacency.row.long(), graph.adjacency.col.long()] = True
    scores = (h @ h.t() / h.shape[1] ** 0.5).masked_fill(~there, -torch.inf)
    return scores.softmax(1) @ h


def test_it_is_the_dense_softmax_over_neighbours_and_the_node_itself() -> None:
    graph, h = _graph(), torch.randn(N, 5, dtype=torch.float64, requires_grad=True)
    given, want = attended(graph.derived(normalise.looped), h), _dense(graph, h)
    torch.testing.assert_close(given, want)
    weight = torch.randn(N, 5, dtype=torch.float64)
    grads = [torch.autograd.grad((out * weight).sum(), h)[0] for out in (given, want)]
    torch.testing.assert_close(*grads)
    torch.testing.assert_close(given[-2:], h[-2:], msg="a node alone attends to itself")


def test_equal_rows_stay_what_they_are() -> None:
    graph, h = _graph(), torch.randn(1, 5).expand(N, 5)
    torch.testing.assert_close(attended(graph.derived(normalise.looped), h), h)


@pytest.mark.parametrize("model", ["gcn", "sage", "gat"])
def test_the_network_inside_reads_the_sum_and_names_are_parameters(model: str) -> None:
    torch.manual_seed(0)
    peers, graph, x = Peers(partial(_make, model=model), D, dim=5).eval(), _graph(), torch.rand(N, D)
    output = peers(x, graph)
    h = peers.project(x)
    torch.testing.assert_close(output.logits, peers.inner(F.relu(h + _dense(graph, h)), graph).logits)
    params = dict(peers.named_parameters())
    assert next(iter(output.hidden)) == "project.weight"
    for name, operand in output.hidden.items():
        assert operand.shape[1] == params[name].shape[1]
    assert set(output.raw) <= set(output.hidden)
    torch.testing.assert_close(peers(CSR.from_dense(x), graph).logits, output.logits)
    torch.testing.assert_close(peers(x, graph.edge_index).logits, output.logits)


def test_order_of_nodes_does_not_matter() -> None:
    torch.manual_seed(0)
    peers, graph, x, order = Peers(_make, D, dim=5).eval(), _graph(), torch.rand(N, D), torch.randperm(N)
    torch.testing.assert_close(peers(x[order], graph.subgraph(order)).logits, peers(x, graph).logits[order])


def test_without_edges_it_says_so() -> None:
    with pytest.raises(ValueError, match="passes messages"):
        Peers(_make, D, dim=5)(torch.rand(N, D), None)


def test_a_restored_one_gives_the_same_logits_bit_for_bit() -> None:
    peers, graph, x = Peers(_make, D, dim=5).eval(), _graph(), torch.rand(N, D)
    other = kinds()["peers"].restored(_make, D, C, peers.options)
    other.load_state_dict(peers.state_dict())
    assert torch.equal(other.eval()(x, graph).logits, peers(x, graph).logits)
