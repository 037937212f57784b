"""The simple graph convolution is PyG's, on either side of its weight."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.autograd import grad

from gnnkd.errors import UserError
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.linear import linear
from gnnkd.nn.sgc import SGC, sgc

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


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("classes", [3, D, 11])  # narrower and wider than the features: both orders of computing
@pytest.mark.parametrize("kind", ["directed", "undirected", "loops", "duplicates", "none"])
def test_outputs_gradients_and_state_dicts_are_pygs(kind: str, classes: int, k: int) -> None:
    from torch_geometric.nn import SGConv as Theirs

    edge_index, x = edges(kind), torch.randn(N, D, requires_grad=True)
    ours, theirs = sgc(D, classes, k=k), Theirs(D, classes, K=k)
    theirs.load_state_dict(ours.state_dict())
    want = theirs(x, edge_index)
    wanted = grad(want.square().sum(), [x, *theirs.parameters()])
    for graph in (edge_index, Graph.from_edge_index(edge_index, N)):
        logits = ours(x, graph).logits
        assert torch.allclose(logits, want, atol=1e-5)
        for one, other in zip(grad(logits.square().sum(), [x, *ours.parameters()]), wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)
    assert torch.allclose(ours(CSR.from_dense(x.detach()), edge_index).logits, want, atol=1e-5)


def test_without_steps_it_is_a_linear_map() -> None:
    net, x = sgc(D, 3, k=0), torch.randn(N, D)
    assert torch.allclose(net(x, edges("directed")).logits, linear(x, net.lin.weight, net.lin.bias), atol=1e-6)


@pytest.mark.parametrize("classes", [3, 11])
def test_the_gradient_of_its_weight_is_of_the_order_of_transforming_first(classes: int) -> None:
    """logits = A^k (X W^T) + b, so dL/dW = D^T X with D the loss's gradient at X W^T, whichever way it was computed."""
    net, x, a = sgc(D, classes), torch.randn(N, D), Graph.from_edge_index(edges("directed"), N)
    out = net(x, a)
    (found,) = grad(out.logits.logsumexp(1).sum(), net.lin.weight)
    mapped = (x @ net.lin.weight.t()).detach().requires_grad_()
    identity = sgc(classes, classes)
    torch.nn.init.eye_(identity.lin.weight)
    identity.lin.bias = net.lin.bias
    (delta,) = grad(identity(mapped, a).logits.logsumexp(1).sum(), mapped)
    assert torch.allclose(found, delta.t() @ out.hidden["lin.weight"], atol=1e-4)


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("classes", [3, 11])
def test_the_steps_are_taken_on_the_narrower_side(monkeypatch: pytest.MonkeyPatch, classes: int, sparse: bool) -> None:
    """Sparse features are always mapped first: one step would fill them."""
    widths = []

    def noted(a: CSR, x: torch.Tensor) -> torch.Tensor:
        widths.append(x.shape[1])
        return neighbour_sum(a, x)

    monkeypatch.setattr(sys.modules[SGC.__module__], "neighbour_sum", noted)  # the package has a function of that name
    x = torch.randn(N, D)
    sgc(D, classes, k=2)(CSR.from_dense(x) if sparse else x, edges("directed"))
    assert widths == [classes if sparse else min(classes, D)] * 2


def test_features_are_dropped_in_training_only() -> None:
    net, x, graph = sgc(50, 3, input_dropout=0.5), torch.ones(N, 50), edges("directed")
    assert set(net(x, graph).hidden["lin.weight"].unique().tolist()) == {0.0, 2.0}
    assert net.eval()(x, graph).hidden["lin.weight"] is x


def test_without_a_graph_it_says_so() -> None:
    with pytest.raises(ValueError, match="give it a Graph or an edge list"):
        sgc(D, 3)(torch.randn(N, D))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": -1}, "k is -1; it must be at least 0"),
        ({"input_dropout": 1.0}, "input_dropout is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_an_option_outside_its_range_is_named(options: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        sgc(D, 3, **options)
    with pytest.raises(UserError, match="out_channels is 0; it must be at least 1"):
        sgc(D, 0)
