"""Our graph convolution is PyG's."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import grad

from gnnkd.graph import normalise
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.gcn import GCNConv, gcn

N, D = 12, 6


def edges(kind: str) -> torch.Tensor:
    """Edge lists whose last two nodes are isolated."""
    edge_index = torch.randint(N - 2, (2, 30), generator=torch.Generator().manual_seed(0))
    off = edge_index[:, edge_index[0] != edge_index[1]]
    return {
        "directed": off,
        "undirected": torch.cat([off, off.flip(0)], 1),
        "loops": torch.cat([off, torch.tensor([[2, 4, 4], [2, 4, 4]])], 1),
        "duplicates": torch.cat([off, off[:, :7]], 1),
        "none": off[:, :0],
    }[kind]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [3, D, 11])  # narrower and wider: both orders of transforming and aggregating
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["directed", "undirected", "loops", "duplicates", "none"])
def test_outputs_and_gradients_are_pygs(kind: str, weighted: bool, width: int, bias: bool) -> None:
    from torch_geometric.nn import GCNConv as Theirs

    edge_index = edges(kind)
    weight = torch.rand(edge_index.shape[1]) + 0.1 if weighted else None
    x = torch.randn(N, D, requires_grad=True)
    ours, theirs = GCNConv(D, width, bias=bias), Theirs(D, width, bias=bias)
    torch.nn.init.normal_(theirs.lin.weight)
    ours.load_state_dict(theirs.state_dict())
    want = theirs(x, edge_index, weight)
    want_grads = grad(want.square().sum(), [x, *theirs.parameters()])
    wanted = dict(zip(["x", *dict(theirs.named_parameters())], want_grads, strict=True))
    for given in (ours(x, edge_index, weight), ours(x, Graph.from_edge_index(edge_index, N, weight))):
        assert torch.allclose(given, want, atol=1e-5)
        grads = grad(given.square().sum(), [x, *ours.parameters()])
        for name, value in zip(["x", *dict(ours.named_parameters())], grads, strict=True):
            assert torch.allclose(value, wanted[name], atol=1e-3, rtol=1e-4), name
    sparse = ours(CSR.from_dense(x.detach()), edge_index, weight)
    assert torch.allclose(sparse, want, atol=1e-5)


@pytest.mark.parametrize("kind", ["directed", "loops", "duplicates", "none"])
def test_without_added_loops_it_is_pygs_too(kind: str) -> None:
    from torch_geometric.nn import GCNConv as Theirs

    edge_index, x = edges(kind), torch.randn(N, D)
    weight = torch.rand(edge_index.shape[1]) + 0.1
    ours, theirs = GCNConv(D, 4, add_self_loops=False), Theirs(D, 4, add_self_loops=False)
    ours.load_state_dict(theirs.state_dict())
    assert torch.allclose(ours(x, edge_index, weight), theirs(x, edge_index, weight), atol=1e-5)


def test_a_graph_with_all_loops_needs_none_added() -> None:
    nodes = torch.arange(N)
    edge_index = torch.cat([edges("directed"), torch.stack([nodes, nodes])], 1)
    graph, x = Graph.from_edge_index(edge_index, N, torch.rand(edge_index.shape[1]) + 0.1), torch.randn(N, D)
    some, none = GCNConv(D, 4), GCNConv(D, 4, add_self_loops=False)
    none.load_state_dict(some.state_dict())
    torch.testing.assert_close(none(x, graph), some(x, graph))


def test_state_dicts_load_both_ways() -> None:
    from torch_geometric.nn import GCNConv as Theirs

    ours, theirs = GCNConv(D, 4), Theirs(D, 4)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


def test_a_network_is_pygs_model() -> None:
    from torch_geometric.nn.models import GCN

    edge_index, x = edges("undirected"), torch.randn(N, D)
    ours, theirs = gcn(D, 3, layers=3, width=8, dropout=0.0), GCN(D, 8, 3, out_channels=3)
    theirs.load_state_dict({name.replace("layers.", "convs."): value for name, value in ours.state_dict().items()})
    assert torch.allclose(ours(x, edge_index).logits, theirs(x, edge_index), atol=1e-5)


def test_initial_weights_have_glorots_spread_and_no_bias() -> None:
    torch.manual_seed(0)
    conv = GCNConv(300, 100)
    bound = (6 / 400) ** 0.5
    assert conv.lin.weight.abs().max() <= bound
    assert abs(conv.lin.weight.std() * 3**0.5 / bound - 1) < 0.02
    assert not conv.bias.any()


def test_renaming_nodes_renames_outputs() -> None:
    edge_index, x, conv = edges("loops"), torch.randn(N, D), GCNConv(D, 4)
    order = torch.randperm(N)
    place = torch.argsort(order)
    assert torch.allclose(conv(x[order], place[edge_index]), conv(x, edge_index)[order], atol=1e-5)


def test_a_second_derivative_through_the_graph_is_that_of_the_dense_network() -> None:
    net = gcn(D, 3, layers=2, width=5, dropout=0.0)
    graph, x = Graph.from_edge_index(edges("directed"), N), torch.randn(N, D)
    a, (first, second) = graph.derived(normalise.gcn).dense(), net.layers
    hidden = (a @ (x @ first.lin.weight.t()) + first.bias).relu()
    dense = a @ (hidden @ second.lin.weight.t()) + second.bias
    params = list(net.parameters())
    seconds = []
    for logits in (net(x, graph).logits, dense):
        gradients = grad(logits.logsumexp(1).sum(), params, create_graph=True)
        seconds.append(grad(sum(g.square().sum() for g in gradients), params))
    for one, other in zip(*seconds, strict=True):
        assert torch.allclose(one, other, atol=1e-3, rtol=1e-3)


def test_weights_beside_a_graph_are_refused() -> None:
    graph = Graph.from_edge_index(edges("loops"), N)
    with pytest.raises(ValueError, match="holds its own weights"):
        GCNConv(D, 4)(torch.randn(N, D), graph, torch.ones(graph.n_edges))
