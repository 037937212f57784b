"""Our graph attention is PyG's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import grad

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.gat import GATConv, gat

N, D = 12, 6


def edges(kind: str) -> Tensor:
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


def pair(heads: int, width: int, concat: bool, **options: Any) -> tuple[GATConv, Any]:
    """Our layer and PyG's, with the same weights; `width` is that of a head."""
    from torch_geometric.nn import GATConv as Theirs

    theirs = Theirs(D, width, heads=heads, concat=concat, **options)
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    ours = GATConv(D, heads * width if concat else width, heads=heads, concat=concat, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("heads", "concat"), [(1, True), (4, True), (3, False)])
@pytest.mark.parametrize("kind", ["directed", "undirected", "loops", "duplicates", "none"])
def test_outputs_and_gradients_are_pygs(kind: str, heads: int, concat: bool, bias: bool) -> None:
    ours, theirs = pair(heads, 5, concat, bias=bias)
    edge_index, x = edges(kind), torch.randn(N, D, requires_grad=True)
    want = theirs(x, edge_index)
    want_grads = grad(want.square().sum(), [x, *theirs.parameters()])
    wanted = dict(zip(["x", *dict(theirs.named_parameters())], want_grads, strict=True))
    for given in (ours(x, edge_index), ours(x, Graph.from_edge_index(edge_index, N))):
        assert torch.allclose(given, want, atol=1e-5)
        grads = grad(given.square().sum(), [x, *ours.parameters()])
        for name, value in zip(["x", *dict(ours.named_parameters())], grads, strict=True):
            assert torch.allclose(value, wanted[name], atol=1e-3, rtol=1e-3), name
    sparse = ours(CSR.from_dense(x.detach()), edge_index)
    assert torch.allclose(sparse, want, atol=1e-5)


def test_a_second_derivative_is_pygs() -> None:
    ours, theirs = pair(2, 3, concat=True)
    edge_index, x = edges("undirected"), torch.randn(N, D)
    seconds = []
    for conv in (ours, theirs):
        params = dict(conv.named_parameters())
        firsts = grad(conv(x, edge_index).logsumexp(1).sum(), list(params.values()), create_graph=True)
        total = torch.stack([g.square().sum() for g in firsts]).sum()
        seconds.append(
            dict(
                zip(params, grad(total, list(params.values()), materialize_grads=True, allow_unused=True), strict=True)
            )
        )
    for name, value in seconds[0].items():
        assert torch.allclose(value, seconds[1][name], atol=1e-3, rtol=1e-2), name


def test_initial_weights_have_pygs_spread() -> None:
    from torch_geometric.nn import GATConv as Theirs

    torch.manual_seed(0)
    ours, theirs = GATConv(300, 8 * 50, heads=8), Theirs(300, 50, heads=8)
    for name, p in ours.named_parameters():
        assert abs(p.std() - theirs.get_parameter(name).std()) <= 0.1 * p.std(), name


def test_equal_scores_make_a_mean_over_the_node_and_its_neighbours() -> None:
    conv, edge_index, x = GATConv(D, 4, bias=False), edges("undirected"), torch.randn(N, D)
    torch.nn.init.zeros_(conv.att_src)
    torch.nn.init.zeros_(conv.att_dst)
    a = torch.zeros(N, N).index_put((edge_index[1], edge_index[0]), torch.ones(()), accumulate=True) + torch.eye(N)
    assert torch.allclose(conv(x, edge_index), a / a.sum(1, keepdim=True) @ conv.lin(x), atol=1e-5)


def test_attention_dropout_drops_in_training_only_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    conv, x = GATConv(D, 4, attention_dropout=0.5), torch.randn(N, D)
    graph = Graph.from_edge_index(edges("undirected"), N)
    still = conv.eval()(x, graph)
    assert torch.equal(conv(x, graph), still)
    drawn = torch.stack([conv.train()(x, graph) for _ in range(4000)])
    assert not torch.allclose(drawn[0], still)
    assert torch.allclose(drawn.mean(0), still, atol=0.1)


def test_a_network_concatenates_heads_and_averages_the_last() -> None:
    net = gat(D, 3, layers=3, width=8, heads=4)
    shapes = [tuple(layer.lin.weight.shape) for layer in net.layers]
    assert shapes == [(8, D), (8, 8), (12, 8)]
    output = net(torch.randn(N, D), edges("undirected"))
    assert output.logits.shape == (N, 3)
    assert output.averaged == {"layers.2.lin.weight": 4}
    assert list(output.hidden) == ["layers.0.lin.weight", "layers.1.lin.weight", "layers.2.lin.weight"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, "heads is 0"),
        ({"heads": 3, "width": 8}, "3 heads side by side need a multiple of 3"),
        ({"attention_dropout": 1.0}, "attention_dropout is 1.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gat(D, 3, **options)
