"""APPNP: the propagation is PyG's, and between its limits it is personalised PageRank."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import grad

from gnnkd.errors import UserError
from gnnkd.graph import normalise
from gnnkd.graph.structure import Graph
from gnnkd.nn.appnp import appnp, personalised_pagerank
from gnnkd.nn.mlp import mlp

N, D, C = 12, 6, 3


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def edges(kind: str) -> torch.Tensor:
    """Edge lists whose last two nodes are isolated."""
    edge_index = torch.randint(N - 2, (2, 30), generator=torch.Generator().manual_seed(0))
    off = edge_index[:, edge_index[0] != edge_index[1]]
    return {
        "directed": off,
        "undirected": torch.cat([off, off.flip(0)], 1),
        "loops": torch.cat([off, torch.tensor([[2, 4], [2, 4]])], 1),
        "duplicates": torch.cat([off, off[:, :7]], 1),
        "none": off[:, :0],
    }[kind]


def ring(n: int = N) -> Graph:
    nodes = torch.arange(n)
    return Graph.from_edge_index(torch.stack([nodes, (nodes + 1) % n]), n)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.1), (10, 0.1), (3, 0.8), (4, 0.0)])
@pytest.mark.parametrize("kind", ["directed", "undirected", "loops", "duplicates", "none"])
def test_outputs_and_gradients_are_pygs(kind: str, k: int, alpha: float) -> None:
    import torch_geometric.nn

    edge_index, x = edges(kind), torch.randn(N, D)
    net = appnp(D, C, width=5, dropout=0.0, k=k, alpha=alpha)
    want = torch_geometric.nn.APPNP(k, alpha)(net.mlp(x).logits, edge_index)
    wanted = grad(want.square().sum(), list(net.parameters()))
    for graph in (edge_index, Graph.from_edge_index(edge_index, N)):
        logits = net(x, graph).logits
        assert torch.allclose(logits, want, atol=1e-5)
        for one, other in zip(grad(logits.square().sum(), list(net.parameters())), wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)


def test_many_steps_reach_the_closed_form() -> None:
    a, h = Graph.from_edge_index(edges("undirected"), N).derived(normalise.gcn), torch.randn(N, C)
    want = 0.2 * torch.linalg.solve(torch.eye(N) - 0.8 * a.dense(), h)
    assert torch.allclose(personalised_pagerank(a, h, k=100, alpha=0.2), want, atol=1e-5)


@pytest.mark.parametrize("limit", [{"k": 0}, {"alpha": 1.0}, {"k": 7}])
def test_without_steps_with_full_return_or_without_edges_it_is_the_perceptron(limit: dict[str, float]) -> None:
    """Without edges A is the identity, which keeps what it is given."""
    graph = Graph.from_edge_index(edges("none"), N) if limit == {"k": 7} else ring()
    net, x = appnp(D, C, width=5, **limit).eval(), torch.randn(N, D)
    plain = mlp(D, C, layers=2, width=5).eval()
    plain.load_state_dict(net.mlp.state_dict())
    assert torch.allclose(net(x, graph).logits, plain(x).logits, atol=1e-6)


def test_its_operands_are_the_perceptrons() -> None:
    net, x = appnp(D, C, layers=3, width=5, dropout=0.0, norm="batch"), torch.randn(N, D)
    alone, out = net.mlp(x), net(x, ring())
    for ours, theirs in ((out.hidden, alone.hidden), (out.raw, alone.raw)):
        assert list(ours) == [f"mlp.{name}" for name in theirs]
        for name, tensor in theirs.items():
            assert torch.equal(ours[f"mlp.{name}"], tensor)


def test_each_step_drops_edges_anew() -> None:
    """Then k steps are A^k on average; a mask used twice would keep too much of the way back to a node itself."""
    copies = 20_000
    pair = torch.tensor([[0, 1], [1, 0]]).repeat(1, copies) + 2 * torch.arange(copies).repeat_interleave(2)
    a = Graph.from_edge_index(pair, 2 * copies).derived(normalise.gcn)
    h = torch.tensor([1.0, 0.0]).repeat(copies)[:, None]
    torch.manual_seed(0)
    for k in (1, 2, 3):
        out = personalised_pagerank(a, h, k=k, alpha=0.0, edge_dropout=0.5, training=True)
        means = out.view(copies, 2).mean(0)
        spread = out.view(copies, 2).std(0) / copies**0.5
        assert ((means - 0.5).abs() < 5 * spread).all()
        assert (spread > 0).all()


def test_edges_are_dropped_in_training_only() -> None:
    net, plain, x = appnp(D, C, dropout=0.0, edge_dropout=0.5), appnp(D, C, dropout=0.0), torch.randn(N, D)
    plain.load_state_dict(net.state_dict())
    want = plain(x, ring()).logits
    assert not torch.allclose(net(x, ring()).logits, want, atol=1e-3)
    assert torch.equal(net.eval()(x, ring()).logits, want)


def test_without_a_graph_it_says_so() -> None:
    with pytest.raises(ValueError, match="give it a Graph or an edge list"):
        appnp(D, C)(torch.randn(N, D))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": -1}, "k is -1; it must be at least 0"),
        ({"alpha": 1.1}, "alpha is 1.1; it must be at least 0 and at most 1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"edge_dropout": 1.0}, "edge_dropout is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_an_option_outside_its_range_is_named(options: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        appnp(D, C, **options)
