"""GraphSAGE: the mean aggregator is PyG's, the GCN aggregator its formula."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import grad

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.sage import SAGEConv, sage

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
@pytest.mark.parametrize("kind", ["directed", "undirected", "loops", "duplicates", "none"])
def test_outputs_and_gradients_are_pygs(kind: str, width: int, bias: bool) -> None:
    from torch_geometric.nn import SAGEConv as Theirs

    edge_index = edges(kind)
    x = torch.randn(N, D, requires_grad=True)
    ours, theirs = SAGEConv(D, width, bias=bias), Theirs(D, width, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    want = theirs(x, edge_index)
    wanted = grad(want.square().sum(), [x, *theirs.parameters()])
    for given in (ours(x, edge_index), ours(x, Graph.from_edge_index(edge_index, N))):
        assert torch.allclose(given, want, atol=1e-5)
        for one, other in zip(grad(given.square().sum(), [x, *ours.parameters()]), wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)
    assert torch.allclose(ours(CSR.from_dense(x.detach()), edge_index), want, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["directed", "loops", "duplicates", "none"])
def test_the_gcn_aggregator_is_the_mean_of_a_node_and_its_neighbours(kind: str, weighted: bool) -> None:
    edge_index, x, conv = edges(kind), torch.randn(N, D), SAGEConv(D, 4, aggregator="gcn")
    weight = torch.rand(edge_index.shape[1]) if weighted else torch.ones(edge_index.shape[1])
    total, degree = x.clone(), torch.ones(N)
    for (source, target), w in zip(edge_index.t().tolist(), weight, strict=True):
        total[target] += w * x[source]
        degree[target] += w
    want = conv.lin_l(total / degree[:, None])
    assert torch.allclose(conv(x, edge_index, weight if weighted else None), want, atol=1e-5)


def test_state_dicts_load_both_ways() -> None:
    from torch_geometric.nn import SAGEConv as Theirs

    ours, theirs = SAGEConv(D, 4), Theirs(D, 4)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


def test_a_network_is_pygs_model() -> None:
    from torch_geometric.nn.models import GraphSAGE

    edge_index, x = edges("undirected"), torch.randn(N, D)
    ours, theirs = sage(D, 3, layers=3, width=8, dropout=0.0), GraphSAGE(D, 8, 3, out_channels=3)
    theirs.load_state_dict({name.replace("layers.", "convs."): value for name, value in ours.state_dict().items()})
    assert torch.allclose(ours(x, edge_index).logits, theirs(x, edge_index), atol=1e-5)


def test_operands_come_self_first_and_are_the_layers_input() -> None:
    x, edge_index = torch.randn(N, D), edges("directed")
    mean, gcn = (sage(D, 3, layers=1, aggregator=name)(x, edge_index).hidden for name in ("mean", "gcn"))
    assert list(mean) == ["layers.0.lin_r.weight", "layers.0.lin_l.weight"]
    assert list(gcn) == ["layers.0.lin_l.weight"]
    assert all(operand is x for operand in [*mean.values(), *gcn.values()])


def test_initial_weights_have_the_spread_of_pygs() -> None:
    from torch_geometric.nn import SAGEConv as Theirs

    torch.manual_seed(0)
    ours = SAGEConv(300, 100).state_dict()
    bound = 300**-0.5
    for name, value in Theirs(300, 100).state_dict().items():
        assert ours[name].shape == value.shape
        assert ours[name].abs().max() <= bound
        assert abs(ours[name].std() / value.std() - 1) < 0.2


def test_an_unknown_aggregator_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown aggregator 'men'.*did you mean 'mean'"):
        sage(D, 3, aggregator="men")
