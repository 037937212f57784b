"""Laws of a user's module: how it is called, what its weights multiplied, and that watching it changes nothing."""

from __future__ import annotations

import copy
import gc
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import gnnkd.nn
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.own import Own, takes_edges
from gnnkd.types import Output

N, D, C = 14, 9, 3


def features() -> Tensor:
    return torch.randn(N, D)


def ring() -> Graph:
    nodes = torch.arange(N)
    return Graph.from_edge_index(torch.stack([nodes, (nodes + 1) % N]), N)


class Rows(nn.Module):
    """Three maps with dropout between them; the middle one is square."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.square, self.last = nn.Linear(D, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, C)

    def forward(self, x: Tensor) -> Any:
        h = F.dropout(self.first(x).relu(), 0.5, self.training)
        return self.last(self.square(h).relu())


class OnGraph(nn.Module):
    """A layer of PyG, one of the house, and a matrix outside of any layer."""

    def __init__(self) -> None:
        from torch_geometric.nn import SAGEConv

        super().__init__()
        self.conv, self.house = SAGEConv(D, 8), gnnkd.nn.gcn(8, 5, layers=1).layers[0]
        self.matrix = nn.Parameter(torch.randn(5, C))

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        return self.house(self.conv(x, edge_index).relu(), edge_index) @ self.matrix


# -- how it is called --------------------------------------------------------------------------------------------


def _module(forward: Any) -> nn.Module:
    return type("Made", (nn.Module,), {"forward": forward})()


@pytest.mark.parametrize(
    ("arguments", "edges"),
    [
        ("x", False),
        ("x, edge_index", True),
        ("x, second", True),
        ("x, mask=None", False),
        ("x, edge_index=None", True),
        ("x, adj=None", True),
        ("x, *, edge_index=None", False),
        ("*args", True),
        ("x, *rest", True),
        ("x, **rest", False),
    ],
)
def test_the_arguments_say_whether_it_takes_edges(arguments: str, edges: bool) -> None:
    module = _module(eval(f"lambda self, {arguments}: None"))
    assert takes_edges(module) is Own(module).graph is edges
    assert Own(module, graph=not edges).graph is not edges


@pytest.mark.parametrize("edges", [False, True])
def test_it_gets_dense_rows_and_pygs_edge_list(edges: bool) -> None:
    got: list[Any] = []

    def forward(self: Any, *args: Any) -> Tensor:
        got.append(args)
        return torch.zeros(N, C)

    x, graph = features() * (torch.rand(N, D) < 0.2), ring()
    own = Own(_module(forward), graph=edges)
    for form in (x, CSR.from_dense(x), CSR.from_dense(x)):
        own(form, graph)
    assert all(torch.equal(args[0], x) for args in got)
    assert [len(args) for args in got] == [1 + edges] * 3
    assert all(torch.equal(args[1], graph.edge_index) for args in got if edges)


def test_what_was_written_out_is_kept_as_long_as_its_source() -> None:
    own, x, graph = Own(_module(None), graph=True), CSR.from_dense(features()), ring()
    rows, edges = own._written(x), own._edge_index(graph)
    assert own._written(x) is rows
    assert own._edge_index(graph) is edges
    del x, graph
    gc.collect()
    assert not own._dense
    assert not own._edges


@pytest.mark.parametrize("name", sorted(gnnkd.nn.MODELS))
def test_a_network_of_the_house_is_a_module_too(name: str) -> None:
    """What it tells of itself is kept: operands that no hook sees, outputs before activation, averaged blocks."""
    net, x, graph = gnnkd.nn.MODELS[name](D, C).eval(), features(), ring()
    want, found = net(x, graph), Own(net)(x, graph)
    torch.testing.assert_close(found.logits, want.logits)
    for one, other in ((want.hidden, found.hidden), (want.raw, found.raw)):
        assert list(other) == [f"module.{name}" for name in one]
        for h, operand in zip(one.values(), other.values(), strict=True):
            torch.testing.assert_close(h, operand)
    assert want.hidden.keys() <= dict(net.named_parameters()).keys()
    assert found.averaged == {f"module.{name}": blocks for name, blocks in want.averaged.items()}


# -- operands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [False, True])
def test_operands_make_the_gradient(train: bool) -> None:
    """`dL/dW = (dL/dZ)^T H` with Z = H W^T + b, what the submodule returns."""
    own, outs = Own(Rows()).train(train), []
    for layer in own.module.children():
        layer.register_forward_hook(lambda *seen: outs.append(seen[2]))
    output = own(features())
    assert list(output.hidden) == ["module.first.weight", "module.square.weight", "module.last.weight"]
    weights = [own.get_parameter(name) for name in output.hidden]
    found = torch.autograd.grad(output.logits.square().sum(), [*weights, *outs])
    for gradient, by_output, h in zip(found[:3], found[3:], output.hidden.values(), strict=True):
        torch.testing.assert_close(gradient, by_output.t() @ h)


def test_operands_of_layers_on_a_graph_are_their_inputs() -> None:
    own = Own(OnGraph()).eval()
    x, graph = features(), ring()
    output = own(x, graph)
    assert set(output.hidden) == {
        "module.conv.lin_l.weight",
        "module.conv.lin_r.weight",
        "module.house.lin.weight",
    }
    found = output.hidden
    torch.testing.assert_close(found["module.conv.lin_r.weight"], x)
    mean = torch.zeros(N, D).index_add(0, graph.edge_index[1], x[graph.edge_index[0]])
    torch.testing.assert_close(found["module.conv.lin_l.weight"], mean)
    torch.testing.assert_close(found["module.house.lin.weight"], own.module.conv(x, graph.edge_index).relu())


def test_heads_that_are_averaged_are_told() -> None:
    own = Own(gnnkd.nn.gat(D, C, layers=2, width=8, heads=4)).eval()
    assert own(features(), ring()).averaged == {"module.layers.1.lin.weight": 4}


@pytest.mark.parametrize(
    ("kind", "values"),
    [("GATConv", "lin"), ("GATv2Conv", "lin_l"), ("SuperGATConv", "lin"), ("TransformerConv", "lin_value")],
)
def test_heads_that_pyg_averages_are_told(kind: str, values: str) -> None:
    import torch_geometric.nn

    conv = getattr(torch_geometric.nn, kind)
    for heads, concat, told in ((4, False, {f"module.{values}.weight": 4}), (4, True, {}), (1, False, {})):
        found = Own(conv(D, C, heads=heads, concat=concat), graph=True).eval()(features(), ring())
        assert f"module.{values}.weight" in found.hidden
        assert found.averaged == told


def test_what_only_looks_like_heads_is_none() -> None:
    """Blocks are equal parts of the rows of a weight."""
    for heads, told in ((4, {}), (3, {"module.lin.weight": 3}), (True, {}), ("4", {})):
        module = nn.Sequential(OrderedDict(lin=nn.Linear(D, 6)))
        module.heads, module.concat = heads, False
        assert Own(module)(features()).averaged == told


class Twice(nn.Module):
    """One layer called twice, one weight in two layers, a tower on other rows, a layer that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.a, self.b = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.b.weight = self.a.weight
        self.pooled, self.idle, self.last = nn.Linear(D, C), nn.Linear(D, C), nn.Linear(D, C)

    def forward(self, x: Tensor) -> Any:
        h = self.b(self.a(self.again(self.again(x))))
        return self.last(h) + self.pooled(h.mean(0, keepdim=True))


def test_what_is_ambiguous_has_no_operand() -> None:
    assert list(Own(Twice())(features()).hidden) == ["module.last.weight"]


class Turned(nn.Module):
    """A square weight [in, out], the other way round than `nn.Linear`'s."""

    def __init__(self, size: int, turned: bool) -> None:
        super().__init__()
        self.weight, self.turned = nn.Parameter(torch.randn(size, size)), turned

    def forward(self, x: Tensor) -> Any:
        return x @ (self.weight if self.turned else self.weight.t())


@pytest.mark.parametrize("turned", [True, False])
def test_a_square_weight_the_other_way_round_is_told_by_its_values(turned: bool) -> None:
    own = Own(nn.Sequential(Turned(D, turned), nn.Linear(D, C)))
    assert ("module.0.weight" in own(features()).hidden) is not turned


class Mixed(nn.Module):
    """Two maps in double precision around one in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(D, 6).double(), nn.Linear(6, 6), nn.Linear(6, C).double()

    def forward(self, x: Tensor) -> Any:
        return self.last(self.middle(self.first(x.double()).float()).double())


def test_logits_and_operands_are_of_the_features_type() -> None:
    found = Own(Mixed())(features())
    assert found.logits.dtype == torch.float32
    assert list(found.hidden) == ["module.middle.weight"]
    double = Own(Rows().double())(features().double())
    assert double.logits.dtype == torch.float64
    assert len(double.hidden) == 3


def test_an_operand_of_another_type_than_its_weight_is_turned() -> None:
    own = Own(nn.Sequential(nn.Linear(D, 6), nn.Linear(6, C))).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = own(features())
    assert len(found.hidden) == 2
    assert {t.dtype for t in (found.logits, *found.hidden.values())} == {torch.float32}


# -- what stands around a module, or is no module of Python's -----------------------------------------------------


def _compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("wrap", [_compiled, nn.DataParallel, lambda m: _compiled(nn.DataParallel(m))])
def test_what_is_wrapped_is_unwrapped(wrap: Any) -> None:
    module, x = Rows().eval(), features()
    own, plain = Own(wrap(module)), Own(module)
    assert own.module is module
    assert (own.name, own.graph) == ("Rows", False)
    assert list(own(x).hidden) == list(plain(x).hidden)


class Scripted(nn.Module):
    """Simple enough for TorchScript."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(D, C)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(x)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_has_arguments_and_a_name_but_shows_no_operand() -> None:
    module = Scripted()
    own, rows = Own(torch.jit.script(module)), Own(torch.jit.script(nn.Linear(D, C)))
    assert (own.name, own.graph, own.scripted) == ("Scripted", True, True)
    assert (rows.name, rows.graph) == ("Linear", False)
    found = own(features(), ring())
    assert found.hidden == {}
    assert found.logits.requires_grad
    beside = Own(nn.Sequential(torch.jit.script(nn.Linear(D, D)), nn.Linear(D, C)))
    assert list(beside(features()).hidden) == ["module.1.weight"]


def test_it_can_be_pickled_without_what_was_made_of_inputs(tmp_path: Path) -> None:
    own, x, graph = Own(OnGraph()).eval(), CSR.from_dense(features()), ring()
    want = own(x, graph)
    assert own._dense
    torch.save(own, tmp_path / "own.pt")
    # A whole module is a pickle; this one was written a line above.
    for other in (pickle.loads(pickle.dumps(own)), torch.load(tmp_path / "own.pt", weights_only=False)):
        assert not other._dense
        assert not other._edges
        assert torch.equal(other(x, graph).logits, want.logits)


# -- watching changes nothing ------------------------------------------------------------------------------------


def test_outputs_and_gradients_are_those_of_the_module() -> None:
    module, x = Rows().train(), features()
    own, results = Own(module), []
    for call in (module, lambda x: own(x).logits):
        torch.manual_seed(3)
        out = call(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), list(module.parameters()))))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert not any(part._forward_hooks for part in own.modules())


def test_hooks_are_gone_after_a_failure() -> None:
    own = Own(Rows())
    with pytest.raises(RuntimeError, match="shapes"):
        own(torch.zeros(N, D + 1))
    assert not any(part._forward_hooks for part in own.modules())


def test_it_can_be_called_with_other_weights() -> None:
    own, x = Own(Rows()).eval(), features()
    other = {name: torch.randn_like(p) for name, p in own.named_parameters()}
    want = copy.deepcopy(own)
    want.load_state_dict(other)
    found: Output = functional_call(own, other, (x, None))
    torch.testing.assert_close(found.logits, want(x).logits)
    for name, h in want(x).hidden.items():
        torch.testing.assert_close(found.hidden[name], h)


def test_a_copy_is_on_its_own() -> None:
    own, x, graph = Own(OnGraph()).eval(), features(), ring()
    own(x, graph)
    other = copy.deepcopy(own)
    with torch.no_grad():
        other.module.matrix.zero_()
    assert (own(x, graph).logits != 0).any()
    assert (other(x, graph).logits == 0).all()


def test_lazy_layers_get_their_sizes_and_then_have_operands() -> None:
    from torch_geometric.nn import Linear

    own, x = Own(nn.Sequential(nn.LazyLinear(5), Linear(-1, C))), features()
    own(x)
    assert set(own(x).hidden) == {"module.0.weight", "module.1.weight"}


# -- what it may return ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "Made returns a NoneType; it must return logits"),
        ((torch.zeros(N, C),), "Made returns a tuple"),
        (torch.zeros(N), r"torch.float32 of shape \[14\]; .* of shape \[14, C\]"),
        (torch.zeros(N + 1, C), r"of shape \[15, 3\]"),
        (torch.zeros(N, C, dtype=torch.long), "torch.int64"),
        (torch.zeros(N, C).to_sparse(), "returns a sparse tensor; it must return dense logits"),
    ],
)
def test_other_things_than_logits_are_refused(returned: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Own(_module(lambda *_: returned), graph=False)(features())


def test_a_module_on_a_graph_needs_one() -> None:
    with pytest.raises(UserError, match="OnGraph takes edges: give edge_index"):
        Own(OnGraph())(features())
