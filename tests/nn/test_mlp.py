"""Laws of the MLP and of `Network`, whatever its layers are."""

from __future__ import annotations

import pytest
import torch

import gnnkd.nn
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.linear import linear

N, D, C = 14, 9, 3
MODELS = ["gcn", "mlp", "sage"]
"""Stacks whose only matrices are those of their maps; `test_models.py` holds the laws of every network."""


def features() -> torch.Tensor:
    return torch.randn(N, D) * (torch.rand(N, D) < 0.3)


def ring() -> Graph:
    nodes = torch.arange(N)
    return Graph.from_edge_index(torch.stack([nodes, (nodes + 1) % N]), N)


def test_its_parameters_have_the_names_of_a_checkpoint() -> None:
    names = [name for name, _ in gnnkd.nn.mlp(D, C, layers=2, norm="batch").named_parameters()]
    layers = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert names == [*layers, "norms.0.weight", "norms.0.bias"]


def test_it_equals_its_formula() -> None:
    net, x = gnnkd.nn.mlp(D, C, layers=2, width=5).eval(), features()
    w = dict(net.named_parameters())
    want = (x @ w["layers.0.weight"].t() + w["layers.0.bias"]).relu() @ w["layers.1.weight"].t() + w["layers.1.bias"]
    assert torch.allclose(net(x).logits, want, atol=1e-6)
    assert torch.allclose(net(x, ring()).logits, want, atol=1e-6)


def test_its_rows_do_not_see_each_other() -> None:
    net, x = gnnkd.nn.mlp(D, C).eval(), features()
    assert torch.allclose(net(x[3:5]).logits, net(x).logits[3:5], atol=1e-6)


def test_a_linear_map_of_sparse_rows_equals_that_of_dense_ones() -> None:
    x = features()
    weight, bias = torch.randn(4, D, requires_grad=True), torch.randn(4, requires_grad=True)
    dense, sparse = linear(x, weight, bias), linear(CSR.from_dense(x), weight, bias)
    assert torch.allclose(dense, sparse, atol=1e-6)
    for one, other in zip(
        *(torch.autograd.grad(y.square().sum(), (weight, bias)) for y in (dense, sparse)), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_hidden_and_raw_are_the_operands_of_each_matrix(name: str, norm: str, layers: int) -> None:
    net = gnnkd.nn.MODELS[name](D, C, layers=layers, width=5, norm=norm, dropout=0.0)
    x = features()
    out = net(x, ring())
    weights = {key: value for key, value in net.named_parameters() if value.dim() == 2}
    assert out.logits.shape == (N, C)
    assert set(out.hidden) == set(weights)
    assert set(out.raw) == {key for key in weights if not key.startswith("layers.0.")}
    for key, weight in weights.items():
        assert out.hidden[key].shape == (N, weight.shape[1])
        if key in out.raw:
            normed = net.norms[int(key.split(".")[1]) - 1](out.raw[key])
            assert torch.allclose(out.hidden[key], normed.relu())
    assert all(out.hidden[key] is x for key in weights if key.startswith("layers.0."))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_raw_and_hidden(name: str) -> None:
    net = gnnkd.nn.MODELS[name](D, C, width=5, input_dropout=0.2)
    out = net(features(), ring())
    by = torch.autograd.grad(out.logits.sum(), list(out.raw.values()), retain_graph=True)
    assert all(g.shape == (N, 5) for g in by)
    out.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_operand_kept_is_the_one_after_dropout(name: str) -> None:
    net, x = gnnkd.nn.MODELS[name](D, C, input_dropout=0.5, dropout=0.5, width=50), torch.ones(N, D)
    first, *others = net(x, ring()).hidden.values()
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert all((h == 0).float().mean() > 0.3 for h in others)


@pytest.mark.parametrize("name", MODELS)
def test_sparse_and_dense_features_give_the_same(name: str) -> None:
    net, x = gnnkd.nn.MODELS[name](D, C, width=5, dropout=0.0), features()
    grads = []
    for operand in (x, CSR.from_dense(x)):
        out = net(operand, ring())
        grads.append([out.logits, *torch.autograd.grad(out.logits.square().sum(), list(net.parameters()))])
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_decides(name: str) -> None:
    seen = []
    for _ in range(2):
        torch.manual_seed(5)
        net = gnnkd.nn.MODELS[name](D, C, input_dropout=0.3)
        seen.append(net(torch.ones(N, D), ring()).logits)
    assert torch.equal(*seen)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": 0}, "layers is 0; it must be at least 1"),
        ({"width": 0}, "width is 0; it must be at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
        ({"input_dropout": -0.5}, "input_dropout is -0.5; it must be at least 0 and below 1"),
        ({"norm": "bach"}, "unknown norm 'bach'.*did you mean 'batch'"),
    ],
)
def test_an_option_outside_its_range_is_named(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        gnnkd.nn.MODELS[name](D, C, **options)


def test_which_models_need_a_graph() -> None:
    assert [name for name in gnnkd.nn.MODELS if not gnnkd.nn.needs_graph(name)] == ["mlp"]
    with pytest.raises(UserError, match=r"unknown model 'gcnn'.*did you mean 'gcn'"):
        gnnkd.nn.needs_graph("gcnn")
