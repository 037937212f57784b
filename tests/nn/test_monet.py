"""The mixture layer is PyG's on degree coordinates."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import grad

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.monet import GMMConv, gaussians, monet, pseudo_coordinates

N, D = 12, 6


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


def slow_coordinates(edge_index: torch.Tensor) -> torch.Tensor:
    arriving = [edge_index[1].tolist().count(i) for i in range(N)]
    scale = torch.tensor([d**-0.5 if d else 0.0 for d in arriving])
    return torch.stack([scale[edge_index[1]], scale[edge_index[0]]], 1)


@pytest.mark.parametrize("kernels", [1, 3])
@pytest.mark.parametrize("width", [3, 11])
@pytest.mark.parametrize("kind", ["directed", "undirected", "loops", "duplicates", "none"])
def test_outputs_and_gradients_are_pygs(kind: str, width: int, kernels: int) -> None:
    from torch_geometric.nn import GMMConv as Theirs

    edge_index, x = edges(kind), torch.randn(N, D, requires_grad=True)
    ours, theirs = GMMConv(D, width, kernels=kernels), Theirs(D, width, dim=2, kernel_size=kernels)
    torch.nn.init.uniform_(ours.sigma, 0.3, 2.0)
    torch.nn.init.normal_(ours.bias)
    state = {name: value for name, value in ours.state_dict().items() if name in theirs.state_dict()}
    theirs.load_state_dict(state | {"g": ours.lin.weight.t()})
    u = ours.coordinates(slow_coordinates(edge_index)).tanh()
    want = theirs(x, edge_index, u)
    names = ["root.weight", "mu", "sigma", "bias"]
    shared = [x, *ours.coordinates.parameters()]
    places = [theirs.g, *map(theirs.get_parameter, names)]
    *wanted, by_g, by_root, by_mu, by_sigma, by_bias = grad(want.square().sum(), [*shared, *places])
    wanted += [by_g.t(), by_root, by_mu, by_sigma, by_bias]
    for graph in (edge_index, Graph.from_edge_index(edge_index, N)):
        given = ours(x, graph)
        assert torch.allclose(given, want, atol=1e-5)
        found = grad(given.square().sum(), [*shared, ours.lin.weight, *map(ours.get_parameter, names)])
        for name, one, other in zip(["x", "P", "q", "g", *names], found, wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-3, rtol=1e-4), name
    assert torch.allclose(ours(CSR.from_dense(x.detach()), edge_index), want, atol=1e-5)


def test_coordinates_are_the_degrees_of_target_and_source() -> None:
    """Edges 0 -> 1, 2 -> 1, 1 -> 2: nodes 0, 1, 2 have 0, 2, 1 of them arriving."""
    a = Graph.from_edge_index(torch.tensor([[0, 2, 1], [1, 1, 2]]), 3).adjacency
    half = 0.5**0.5
    assert torch.allclose(pseudo_coordinates(a), torch.tensor([[half, 0.0], [half, 1.0], [1.0, half]]))


def test_a_kernel_is_one_at_its_centre_and_less_elsewhere() -> None:
    mu, sigma = torch.rand(3, 2), torch.rand(3, 2) + 0.1
    assert torch.allclose(gaussians(mu, mu, sigma).diag(), torch.ones(3))
    away = gaussians(mu + torch.tensor([1.0, -2.0]) * sigma, mu, sigma).diag()
    assert torch.allclose(away, torch.full((3,), -2.5).exp())
    assert torch.equal(gaussians(mu, mu, torch.zeros(3, 2)), torch.eye(3))


def test_very_wide_kernels_make_it_a_mean_over_neighbours() -> None:
    """Then all kernels are 1 everywhere, and their matrices add up."""
    from torch_geometric.nn import SAGEConv

    edge_index, x = edges("directed"), torch.randn(N, D)
    ours, sage = GMMConv(D, 4), SAGEConv(D, 4)
    torch.nn.init.constant_(ours.sigma, 1e6)
    state = {"lin_l.weight": ours.lin.weight.view(3, 4, D).sum(0), "lin_r.weight": ours.root.weight}
    sage.load_state_dict(state | {"lin_l.bias": ours.bias})
    assert torch.allclose(ours(x, edge_index), sage(x, edge_index), atol=1e-5)


def test_no_kernel_is_blind_at_the_start() -> None:
    graph = Graph.from_edge_index(edges("undirected"), N)
    for seed in range(50):
        torch.manual_seed(seed)
        conv = GMMConv(D, 4)
        seen = gaussians(conv.coordinates(pseudo_coordinates(graph.adjacency)).tanh(), conv.mu, conv.sigma)
        assert seen.min() > 0.01


def test_its_matrices_have_glorots_spread_and_no_bias() -> None:
    torch.manual_seed(0)
    conv = GMMConv(300, 100)
    for weight in (conv.root.weight, conv.lin.weight):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert weight.abs().max() <= bound
        assert abs(weight.std() * 3**0.5 / bound - 1) < 0.02
    assert not conv.bias.any()


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_both_matrices_of_a_layer_share_operand_and_raw(norm: str) -> None:
    net, x = monet(D, 3, layers=3, width=5, dropout=0.0, norm=norm, kernels=2), torch.randn(N, D)
    out = net(x, edges("undirected"))
    assert list(out.hidden) == [f"layers.{i}.{part}.weight" for i in range(3) for part in ("root", "lin")]
    for i in range(3):
        root, lin = (f"layers.{i}.{part}.weight" for part in ("root", "lin"))
        assert out.hidden[root] is out.hidden[lin]
        if i:
            assert out.raw[root] is out.raw[lin]
            assert torch.allclose(net.norms[i - 1](out.raw[root]).relu(), out.hidden[root])
    assert out.averaged == {}


def test_without_a_graph_it_says_so() -> None:
    with pytest.raises(ValueError, match="give it a Graph or an edge list"):
        monet(D, 3)(torch.randn(N, D))


def test_a_number_of_kernels_outside_its_range_is_named() -> None:
    with pytest.raises(UserError, match="kernels is 0; it must be at least 1"):
        monet(D, 3, kernels=0)
