"""Laws of every network by name, whatever it computes."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn import Module

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn import MODELS
from gnnkd.options import of

N, D, C = 12, 6, 3
SMALL = {"layers": 3, "width": 8, "heads": 2}
STILL = {"dropout": 0.0, "input_dropout": 0.0, "edge_dropout": 0.0, "attention_dropout": 0.0}

pytestmark = pytest.mark.parametrize("name", sorted(MODELS))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def made(name: str, **options: object) -> Module:
    """A small network; options that it does not have are left out."""
    known = of(MODELS[name])
    return MODELS[name](D, C, **{key: value for key, value in {**SMALL, **options}.items() if key in known})


def features() -> Tensor:
    return torch.randn(N, D) * (torch.rand(N, D) < 0.6)


def edges() -> Tensor:
    """Directed, with loops and duplicates, the last two nodes isolated."""
    drawn = torch.randint(N - 2, (2, 30), generator=torch.Generator().manual_seed(0))
    return torch.cat([drawn, drawn[:, :5], torch.tensor([[2, 4], [2, 4]])], 1)


def graph() -> Graph:
    return Graph.from_edge_index(edges(), N)


def loss(logits: Tensor) -> Tensor:
    return logits.logsumexp(1).square().sum()


# What a network tells about itself


def test_hidden_names_weight_matrices_with_their_operands_and_gradients(name: str) -> None:
    net, x = made(name), features()
    out, params = net(x, graph()), dict(net.named_parameters())
    assert out.logits.shape == (N, C)
    assert out.hidden
    assert set(out.averaged) <= set(out.hidden)
    gradients = grad(loss(out.logits), [params[key] for key in out.hidden])
    for (key, operand), g in zip(out.hidden.items(), gradients, strict=True):
        assert operand.shape == (N, params[key].shape[1]), key
        assert g.any(), key


def test_every_parameter_has_a_gradient(name: str) -> None:
    net = made(name, norm="batch", **STILL)
    keys, params = zip(*net.named_parameters(), strict=True)
    for key, g in zip(keys, grad(loss(net(features(), graph()).logits), params), strict=True):
        assert g.isfinite().all(), key


def test_hidden_is_in_forward_order(name: str) -> None:
    """No operand depends on a weight that comes later, and each on the first weight but for the features themselves."""
    net, x = made(name, **STILL), features()
    out, params = net(x, graph()), dict(net.named_parameters())
    keys = list(out.hidden)
    assert out.hidden[keys[0]] is x
    for i, key in enumerate(keys):
        if out.hidden[key] is x:
            continue
        by = grad(out.hidden[key].sum(), [params[k] for k in keys], retain_graph=True, allow_unused=True)
        assert by[0] is not None
        assert all(g is None for g in by[i:])


def test_raw_is_what_the_operand_was_made_from_channel_by_channel(name: str) -> None:
    """A change of one channel of `raw` reaches the operand in that channel only."""
    net, x = made(name, **STILL).eval(), features()
    out = net(x, graph())
    made_later = [key for key, operand in out.hidden.items() if operand is not x]
    assert list(out.raw) == made_later
    for key, raw in out.raw.items():
        operand = out.hidden[key]
        assert raw.shape == operand.shape
        for channel in range(raw.shape[1]):
            (by,) = grad(operand[:, channel].sum(), raw, retain_graph=True)
            others = [c for c in range(raw.shape[1]) if c != channel]
            assert not by[:, others].any()
            assert by[:, channel].any() or not (raw[:, channel] > 0).any()


# Symmetries


def test_an_evaluation_repeats_and_the_seed_decides_about_training(name: str) -> None:
    seen = []
    for _ in range(2):
        torch.manual_seed(5)
        net = made(name, input_dropout=0.3, dropout=0.3, edge_dropout=0.3)
        x = torch.ones(N, D)
        seen.append(net(x, graph()).logits)
        assert not torch.equal(net(x, graph()).logits, seen[-1])
        still = net.eval()(x, graph()).logits
        assert torch.equal(net(x, graph()).logits, still)
    assert torch.equal(*seen)


def test_sparse_and_dense_features_give_the_same(name: str) -> None:
    net, x, found = made(name, **STILL), features(), []
    for operand in (x, CSR.from_dense(x)):
        logits = net(operand, graph()).logits
        found.append([logits, *grad(loss(logits), list(net.parameters()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_an_edge_list_is_as_good_as_its_graph(name: str) -> None:
    net, x = made(name).eval(), features()
    assert torch.equal(net(x, edges()).logits, net(x, graph()).logits)


def test_renaming_nodes_renames_outputs(name: str) -> None:
    net, x = made(name).eval(), features()
    order = torch.randperm(N)
    renamed = net(x[order], torch.argsort(order)[edges()]).logits
    torch.testing.assert_close(renamed, net(x, edges()).logits[order], atol=1e-5, rtol=1e-4)


def test_a_graph_without_edges_is_no_special_case(name: str) -> None:
    net = made(name, **STILL)
    logits = net(features(), edges()[:, :0]).logits
    assert logits.isfinite().all()
    assert all(g.isfinite().all() for g in grad(loss(logits), list(net.parameters())))


# Second derivatives


def test_second_derivatives_are_those_of_finite_differences(name: str) -> None:
    """H v against (g(w + e v) - g(w - e v)) / 2e, for a direction v in all parameters at once."""
    net, x = made(name, width=4, **STILL).double(), features().double()
    params, along = list(net.parameters()), graph()
    v = [torch.randn_like(p) for p in params]

    def gradients(*, keep: bool = False) -> tuple[Tensor, ...]:
        return grad(loss(net(x, along).logits), params, create_graph=keep)

    def moved(by: float) -> None:
        with torch.no_grad():
            for p, d in zip(params, v, strict=True):
                p += by * d

    moved(0.1)  # away from zero biases, where a node without features and neighbours stands at the kink of the ReLU
    found = grad(sum((g * d).sum() for g, d in zip(gradients(keep=True), v, strict=True)), params)
    moved(1e-6)
    ahead = gradients()
    moved(-2e-6)
    sides = ahead, gradients()
    for curvature, up, down in zip(found, *sides, strict=True):
        torch.testing.assert_close(curvature, (up - down) / 2e-6, atol=1e-4, rtol=1e-4)


def test_each_matrix_has_the_curvature_that_dgd_reads(name: str) -> None:
    """The gradient by W of the sum of all entries of all G, through the operands kept in `hidden`."""
    net = made(name, **STILL)
    out = net(features(), graph())
    weights = [net.get_parameter(key) for key in out.hidden]
    first = grad(loss(out.logits), weights, create_graph=True)
    second = grad(sum(g.sum() for g in first), weights)
    for w, g in zip(weights, second, strict=True):
        assert g.shape == w.shape
        assert g.isfinite().all()
        assert g.any()


# Construction


def test_every_option_is_a_keyword_with_a_default(name: str) -> None:
    first, second, *others = inspect.signature(MODELS[name]).parameters.values()
    assert (first.name, second.name) == ("in_channels", "out_channels")
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in others)


def test_it_can_be_built_without_memory(name: str) -> None:
    with torch.device("meta"):
        net = MODELS[name](1, 2)
    assert {p.device.type for p in net.parameters()} == {"meta"}


def test_its_weights_are_all_of_it(name: str) -> None:
    one, other, x = made(name).eval(), made(name).eval(), features()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, graph()).logits, other(x, graph()).logits)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("layers", 0, "layers is 0; it must be at least 1"),
        ("width", 0, "width is 0; it must be at least 1"),
        ("dropout", 1.0, "dropout is 1.0; it must be at least 0 and below 1"),
        ("input_dropout", -0.5, "input_dropout is -0.5; it must be at least 0 and below 1"),
        ("edge_dropout", 1.5, "edge_dropout is 1.5; it must be at least 0 and below 1"),
        ("norm", "bach", "unknown norm 'bach'.*did you mean 'batch'"),
        ("k", -1, "k is -1; it must be at least 0"),
        ("alpha", 1.5, "alpha is 1.5; it must be at least 0 and at most 1"),
        ("theta", -1.0, "theta is -1.0; it must be at least 0"),
        ("kernels", 0, "kernels is 0; it must be at least 1"),
        ("heads", 0, "heads is 0; it must be at least 1"),
    ],
)
def test_an_option_outside_its_range_is_named(name: str, option: str, value: object, said: str) -> None:
    if option not in of(MODELS[name]):
        with pytest.raises(TypeError, match=option):
            MODELS[name](D, C, **{option: value})
        return
    with pytest.raises(UserError, match=said):
        MODELS[name](D, C, **{option: value})


def test_sizes_below_one_are_named(name: str) -> None:
    with pytest.raises(UserError, match="in_channels is 0; it must be at least 1"):
        MODELS[name](0, C)
    with pytest.raises(UserError, match="out_channels is 0; it must be at least 1"):
        MODELS[name](D, 0)
