"""The topology adaptive convolution is PyG's, on either side of its weights, and reads the weights of edges."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import grad

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.tag import TAGConv, tag

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
        "loops": torch.cat([off, torch.tensor([[2, 4], [2, 4]])], 1),
        "duplicates": torch.cat([off, off[:, :7]], 1),
        "none": off[:, :0],
    }[kind]


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("out", [3, D, 11])  # narrower and wider than the features: both orders of computing
@pytest.mark.parametrize("kind", ["directed", "loops", "duplicates", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_outputs_gradients_and_state_dicts_are_pygs(kind: str, out: int, k: int, weighted: bool) -> None:
    from torch_geometric.nn import TAGConv as Theirs

    edge_index, x = edges(kind), torch.randn(N, D, requires_grad=True)
    weight = torch.rand(edge_index.shape[1]) + 0.1 if weighted else None
    ours, theirs = TAGConv(D, out, k=k), Theirs(D, out, K=k)
    torch.nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    want = theirs(x, edge_index, weight)
    wanted = grad(want.square().sum(), [x, *theirs.parameters()])
    for y in (ours(x, edge_index, weight), ours(x, Graph.from_edge_index(edge_index, N, weight))):
        assert torch.allclose(y, want, atol=1e-5)
        for one, other in zip(grad(y.square().sum(), [x, *ours.parameters()]), wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)
    assert torch.allclose(ours(CSR.from_dense(x.detach()), edge_index, weight), want, atol=1e-5)


@pytest.mark.parametrize("out", [2, 5])
def test_it_is_differentiable_by_the_weights_of_the_edges(out: int) -> None:
    edge_index, conv = edges("directed"), TAGConv(3, out, k=2).double()
    x = torch.randn(N, 3, dtype=torch.double)
    weight = (torch.rand(edge_index.shape[1], dtype=torch.double) + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: conv(x, Graph.from_edge_index(edge_index, N, w)), weight)


def test_the_network_has_a_weight_matrix_for_each_step() -> None:
    network = tag(D, 3, layers=2, width=5, k=2)
    output = network(torch.randn(N, D), edges("directed"))
    assert output.logits.shape == (N, 3)
    assert list(output.hidden) == [f"layers.{layer}.lins.{hop}.weight" for layer in (0, 1) for hop in (0, 1, 2)]


def test_an_option_outside_its_range_is_named() -> None:
    with pytest.raises(UserError, match="k is -1; it must be at least 0"):
        tag(D, 3, k=-1)
