"""GCNII: a convolution is PyG's with its weight transposed, the network is its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad

from gnnkd.errors import UserError
from gnnkd.graph import normalise
from gnnkd.graph.structure import Graph
from gnnkd.nn.gcn import gcn
from gnnkd.nn.gcnii import GCN2Conv, gcnii

N, D, C, W = 12, 6, 3, 5


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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("alpha", "theta", "layer"), [(0.1, 0.5, 1), (0.4, 1.5, 3), (0.0, 4.0, 1), (1.0, 0.5, 2)])
@pytest.mark.parametrize("kind", ["directed", "undirected", "loops", "duplicates", "none"])
def test_outputs_and_gradients_are_pygs(kind: str, alpha: float, theta: float, layer: int, weighted: bool) -> None:
    from torch_geometric.nn import GCN2Conv as Theirs

    edge_index = edges(kind)
    weight = torch.rand(edge_index.shape[1]) + 0.1 if weighted else None
    x, x_0 = (torch.randn(N, W, requires_grad=True) for _ in range(2))
    ours, theirs = GCN2Conv(W, alpha=alpha, theta=theta, layer=layer), Theirs(W, alpha, theta, layer)
    theirs.load_state_dict({"weight1": ours.lin.weight.t()})
    want = theirs(x, x_0, edge_index, weight)
    *wanted, by_weight = grad(want.square().sum(), [x, x_0, theirs.weight1])
    for graph in ((edge_index, weight), (Graph.from_edge_index(edge_index, N, weight),)):
        given = ours(x, x_0, *graph)
        assert torch.allclose(given, want, atol=1e-5)
        found = grad(given.square().sum(), [x, x_0, ours.lin.weight])
        for one, other in zip(found, [*wanted, by_weight.t()], strict=True):
            assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)


def test_a_network_is_its_formula() -> None:
    net, x = gcnii(D, C, layers=3, width=W, alpha=0.2, theta=0.7).eval(), torch.randn(N, D)
    graph = Graph.from_edge_index(edges("undirected"), N)
    a, w = graph.derived(normalise.gcn).dense(), dict(net.named_parameters())
    h = h_0 = (x @ w["first.weight"].t() + w["first.bias"]).relu()
    out = net(x, graph)
    for i in range(3):
        beta, matrix = math.log(0.7 / (i + 1) + 1), w[f"convs.{i}.lin.weight"]
        m = 0.8 * a @ h + 0.2 * h_0
        h = (m @ ((1 - beta) * torch.eye(W) + beta * matrix.t())).relu()
        assert torch.allclose(out.hidden[f"convs.{i}.lin.weight"], m, atol=1e-5)
    assert torch.allclose(out.hidden["last.weight"], h, atol=1e-5)
    assert torch.allclose(out.logits, h @ w["last.weight"].t() + w["last.bias"], atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_raw_is_the_layer_before_ahead_of_norm_and_activation(norm: str) -> None:
    net, x = gcnii(D, C, layers=2, width=W, dropout=0.0, norm=norm), torch.randn(N, D)
    graph = Graph.from_edge_index(edges("undirected"), N)
    a, out = graph.derived(normalise.gcn).dense(), net(x, graph)
    assert list(out.hidden) == ["first.weight", "convs.0.lin.weight", "convs.1.lin.weight", "last.weight"]
    assert list(out.raw) == list(out.hidden)[1:]
    h_0, h_1, h_2 = (n(z).relu() for n, z in zip(net.norms, out.raw.values(), strict=True))
    assert torch.allclose(out.hidden["convs.0.lin.weight"], 0.9 * a @ h_0 + 0.1 * h_0, atol=1e-5)
    assert torch.allclose(out.hidden["convs.1.lin.weight"], 0.9 * a @ h_1 + 0.1 * h_0, atol=1e-5)
    assert torch.allclose(out.hidden["last.weight"], h_2, atol=1e-5)


def test_without_strength_the_convolutions_are_a_personalised_pagerank_with_activations() -> None:
    net, x = gcnii(D, C, layers=4, width=W, theta=0.0).eval(), torch.randn(N, D)
    out = net(x, edges("directed"))
    assert torch.equal(out.raw["last.weight"], out.hidden["convs.3.lin.weight"])
    assert not any(grad(out.logits.sum(), net.convs[0].lin.weight)[0].flatten().tolist())


def test_depth_does_not_cut_the_first_layer_off() -> None:
    """The initial residual and the identity are there for that; plain convolutions lose its gradient."""
    torch.manual_seed(0)
    x, graph, kept = torch.randn(N, D), Graph.from_edge_index(edges("undirected"), N), []
    for network in (gcnii, gcn):
        nets = [network(D, C, layers=layers, width=16, dropout=0.0) for layers in (2, 64)]
        few, many = (grad(net(x, graph).logits.logsumexp(1).sum(), next(net.parameters()))[0].norm() for net in nets)
        kept.append(float(many / few))
    assert kept[0] > 0.1
    assert kept[1] < 1e-3


def test_dropout_stands_before_each_map() -> None:
    net, x, graph = gcnii(50, C, layers=1, width=200, dropout=0.5, input_dropout=0.5), torch.ones(N, 50), edges("none")
    out = net(x, graph)
    assert set(out.hidden["first.weight"].unique().tolist()) == {0.0, 2.0}
    h_0 = out.raw["convs.0.lin.weight"].relu()  # without edges a node mixes its own h, dropped or doubled, with h_0
    ratio = (out.hidden["convs.0.lin.weight"] / h_0)[h_0 > 0]
    assert torch.allclose(ratio, torch.where(ratio < 1, 0.1, 1.9), atol=1e-4)
    h_1 = out.raw["last.weight"].relu()
    assert abs((out.hidden["last.weight"] == 0)[h_1 > 0].float().mean() - 0.5) < 0.1
    assert torch.equal(net.eval()(x, graph).hidden["first.weight"], x)


def test_without_a_graph_it_says_so() -> None:
    with pytest.raises(ValueError, match="give it a Graph or an edge list"):
        gcnii(D, C)(torch.randn(N, D))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": 0}, "layers is 0; it must be at least 1"),
        ({"alpha": -0.1}, "alpha is -0.1; it must be at least 0 and at most 1"),
        ({"theta": -1.0}, "theta is -1.0; it must be at least 0"),
        ({"theta": float("nan")}, "theta is nan"),
        ({"norm": "bach"}, "unknown norm 'bach'.*did you mean 'batch'"),
    ],
)
def test_an_option_outside_its_range_is_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        gcnii(D, C, **options)
