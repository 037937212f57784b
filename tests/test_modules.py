"""Users' own modules as teacher and student: what is asked of them, what is done with them, what is said."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gnnkd
from gnnkd import models
from gnnkd.data.graphs import from_pyg
from gnnkd.data.task import task
from gnnkd.errors import UserError
from gnnkd.nn.own import Own
from gnnkd.run import resolve
from gnnkd.train import checkpoint
from gnnkd.train.teacher import imitable

N, D, C = 240, 30, 3
FEW = {"train": {"epochs": 12}}


def _data(**changes: Any) -> Any:
    """A planted partition as a PyG `Data` with dense features."""
    from torch_geometric.data import Data

    rng, y = np.random.default_rng(0), np.arange(N) % C
    a, b = rng.integers(0, N, (2, 8 * N))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    x = rng.random((N, D)) + np.where(np.arange(D) % C == y[:, None], 0.3, 0.0)
    part = np.minimum(np.arange(N) // 30, 2)
    masks = {f"{name}_mask": torch.from_numpy(part == i) for i, name in enumerate(("train", "val", "test"))}
    edges = torch.from_numpy(np.stack([a, b])[:, near])
    return Data(**{"x": torch.from_numpy(x).float(), "edge_index": edges, "y": torch.from_numpy(y), **masks, **changes})


class Mlp(nn.Module):
    """An MLP with batch norm and dropout."""

    def __init__(self, columns: int = C) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(D, 16), nn.BatchNorm1d(16), nn.Linear(16, columns)

    def forward(self, x: Tensor) -> Any:
        return self.last(F.dropout(self.norm(self.first(x)).relu(), 0.2, self.training))


class Gcn(nn.Module):
    """Two of PyG's convolutions."""

    def __init__(self, width: int = 16, columns: int = C, inputs: int = D) -> None:
        from torch_geometric.nn import GCNConv

        super().__init__()
        self.conv1, self.conv2 = GCNConv(inputs, width), GCNConv(width, columns)

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


class Deep(nn.Module):
    """A layer of PyG whose matrix stands outside of any `weight`, between two maps."""

    def __init__(self) -> None:
        from torch_geometric.nn import GCN2Conv

        super().__init__()
        self.first, self.conv1, self.last = nn.Linear(D, 8), GCN2Conv(8, 0.1), nn.Linear(8, C)

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        h = self.first(x).relu()
        return self.last(self.conv1(h, h, edge_index).relu())


class Bare(nn.Module):
    """A matrix and no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(0.1 * torch.randn(D, C))

    def forward(self, x: Tensor) -> Any:
        return x @ self.matrix


def _distil(**said: Any) -> gnnkd.api.Distilled:
    """With a teacher of one matrix unless another one is named: these tests are about modules."""
    return gnnkd.distill(_data(), **{"device": "cpu", "quiet": True, "options": FEW, "teacher": "sgc", **said})


# -- what is done with them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["supervised", "kd", "glnn", "dgd"])
def test_a_module_teaches_a_module(method: str) -> None:
    torch.manual_seed(0)
    done = _distil(teacher=Gcn(), student=Mlp(), method=method)
    assert done.test_acc > 0.5, "chance is a third"
    assert done.teacher_test_acc > 0.5
    assert (done.student.name, done.student.needs_graph) == ("Mlp", False)
    found = done.predict(_data().x)
    assert done.test_acc == pytest.approx(float((found == _data().y)[_data().test_mask].double().mean()))
    assert done.notes == _distil(method="glnn").notes, "DGD reads all of these"


def test_nothing_of_the_callers_is_changed() -> None:
    torch.manual_seed(0)
    teacher, student = Gcn(), Mlp().train()
    before = [copy.deepcopy(m.state_dict()) for m in (teacher, student)]
    random = torch.get_rng_state()
    _distil(teacher=teacher, student=student)
    assert torch.equal(torch.get_rng_state(), random)
    for module, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(t, state[name]) for name, t in module.state_dict().items())
        assert module.training
        assert all(p.grad is None for p in module.parameters())
        assert not any(part._forward_hooks for part in module.modules())


def test_a_module_starts_from_the_weights_that_it_has() -> None:
    torch.manual_seed(0)
    student = Mlp()
    tiny = {"train": {"epochs": 1}, "student": {"lr": 1e-9}}
    found = _distil(student=student, method="supervised", options=tiny).student.network
    for name, p in student.named_parameters():
        torch.testing.assert_close(found.get_parameter(f"module.{name}"), p)


def test_what_a_module_froze_stays_frozen() -> None:
    torch.manual_seed(0)
    student = Mlp()
    student.first.requires_grad_(False)
    network = _distil(student=student, options={**FEW, "student": {"weight_decay": 0.1}}).student.network
    assert torch.equal(network.get_parameter("module.first.weight"), student.first.weight)
    assert not torch.equal(network.get_parameter("module.last.weight"), student.last.weight)


@pytest.mark.parametrize("method", ["glnn", "dgd"])
def test_a_module_that_is_a_network_of_the_house_learns_what_that_learns(method: str) -> None:
    """Through `Own`, with the same first weights and without dropout: the same scores and the same student."""
    sizes = {"layers": 2, "width": 8, "dropout": 0.0}
    groups = {"train": {"epochs": 15}, "teacher": sizes, "student": sizes}
    by_name = _distil(teacher="gcn", student="mlp", method=method, options=groups)
    made = []
    for make in (gnnkd.nn.gcn, gnnkd.nn.mlp):
        torch.manual_seed(0)
        made.append(make(D, C, **sizes))
    options = {"train": {"epochs": 15}}
    done = _distil(teacher=made[0], student=Own(made[1], graph=False), method=method, options=options)
    assert done.scores == pytest.approx(by_name.scores)
    torch.testing.assert_close(done.predict_proba(_data().x), by_name.predict_proba(_data().x), rtol=1e-4, atol=1e-5)


def test_lazy_layers_get_their_sizes() -> None:
    from torch_geometric.nn import GCNConv, Sequential

    teacher = Sequential("x, edge_index", [(Gcn(columns=16, inputs=-1), "x, edge_index -> x"), nn.LazyLinear(C)])
    student = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(C))
    done = _distil(teacher=teacher, student=student)
    assert done.test_acc > 0.4
    assert isinstance(student[0], nn.LazyLinear), "the caller's own is still lazy"
    assert GCNConv is type(teacher[0].conv1)


def test_features_that_are_kept_sparse_reach_a_module_dense() -> None:
    x = _data().x * (torch.rand(N, D, generator=torch.Generator().manual_seed(0)) < 0.1)
    torch.manual_seed(0)
    done = gnnkd.distill(_data(x=x), teacher="sgc", student=Mlp(), method="dgd", options=FEW, device="cpu", quiet=True)
    assert 0 < done.test_acc <= 1


def test_the_default_base_follows_what_a_module_takes() -> None:
    """KD for one on the graph, GLNN for one on rows; seen by the result of naming it."""
    for student, base in ((Gcn(), "kd"), (Mlp(), "glnn")):
        first, second = (_distil(student=student, options={**FEW, "method": m}) for m in ({}, {"base": base}))
        assert first.scores == second.scores


def test_a_module_under_the_inductive_setting() -> None:
    torch.manual_seed(0)
    done = _distil(teacher=Gcn(), student=Mlp(), setting="ind", method="kd")
    assert {"test_acc_tran", "test_acc_ind", "test_acc_cold", "teacher_test_acc_cold"} <= done.scores.keys()
    assert done.scores["test_acc_ind"] == done.scores["test_acc_cold"]


@pytest.mark.parametrize("name", ["sgc", "gcnii"])
@pytest.mark.parametrize("preset", ["tuned", "paper"])
def test_networks_of_the_house_whose_layers_no_hook_sees_learn_by_dgd(name: str, preset: str) -> None:
    options = {**FEW, "method": {"preset": preset}}
    done = _distil(teacher=gnnkd.nn.MODELS[name](D, C), student=gnnkd.nn.MODELS[name](D, C), options=options)
    assert not [note for note in done.notes if "operand" in note]


class Noisy(Mlp):
    """It drops features in evaluation, too."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(F.dropout(x, 0.5))


def test_looking_for_operands_takes_nothing_from_the_random_state() -> None:
    torch.manual_seed(0)
    student, data = Noisy(), task(from_pyg(_data()), seed=0)
    before = torch.get_rng_state()
    assert len(imitable(Own(student), data.batch(data.split.train)).hidden) == 2
    assert torch.equal(torch.get_rng_state(), before)
    weights = [_distil(teacher=student, method=method).teacher.network.state_dict() for method in ("dgd", "glnn")]
    assert all(torch.equal(t, weights[1][name]) for name, t in weights[0].items()), "with and without generators"


@pytest.mark.parametrize("method", ["glnn", "dgd"])
def test_a_module_in_double_precision(method: str) -> None:
    class Double(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.double()

        def forward(self, x: Tensor) -> Any:
            return super().forward(x.double())

    torch.manual_seed(0)
    if method == "glnn":
        assert _distil(student=Double(), teacher=Double(), method=method).test_acc > 0.4
        return
    with pytest.raises(UserError, match=r"no weight matrix in the student Double .*float32.*use method=\"glnn\""):
        _distil(student=Double(), method=method)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_learns_and_teaches_without_operands(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.jit.script(nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, C)))
    done = _distil(teacher=module, student=module, method="glnn")
    assert done.test_acc > 0.4
    done.save(tmp_path)
    loaded = gnnkd.load(tmp_path, network=module)
    assert torch.equal(loaded.predict_proba(_data().x), done.predict_proba(_data().x))
    assert all(p.is_leaf for p in loaded.network.parameters())
    for role in ("teacher", "student"):
        with pytest.raises(UserError, match=f"in the {role} Sequential .*TorchScript shows none.*use method="):
            _distil(**{role: module}, method="dgd")


# -- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Mlp, Gcn])
def test_a_module_is_brought_back_from_its_weights(tmp_path: Path, make: Any) -> None:
    done, data = _distil(student=make(), method="kd"), _data()
    done.save(tmp_path)
    given = make()
    before = copy.deepcopy(given.state_dict())
    graph = data.edge_index if done.student.needs_graph else None
    loaded = gnnkd.load(tmp_path, network=given)
    assert torch.equal(loaded.predict_proba(data.x, graph), done.predict_proba(data.x, graph))
    assert loaded.needs_graph is done.student.needs_graph
    assert all(torch.equal(t, before[name]) for name, t in given.state_dict().items())
    with pytest.raises(UserError, match=rf"holds a {make.__name__}, .* give gnnkd.load\(folder, network="):
        gnnkd.load(tmp_path)
    with pytest.raises(UserError, match="holds other weights than network= has"):
        gnnkd.load(tmp_path, network=make(columns=C + 1))


@pytest.mark.parametrize(("network", "said"), [("mlp", "'mlp'"), (Mlp, "the class Mlp")])
def test_a_network_to_load_into_is_an_instance(tmp_path: Path, network: Any, said: str) -> None:
    # What users call has no check of types in front of it.
    with pytest.raises(UserError, match=f"network is {said}; it must be an instance of a torch.nn.Module"):
        inspect.unwrap(gnnkd.load)(tmp_path, network=network)


def test_what_was_said_of_edges_is_kept(tmp_path: Path) -> None:
    done = _distil(student=Own(gnnkd.nn.mlp(D, C), graph=False), method="glnn")
    done.save(tmp_path)
    loaded = gnnkd.load(tmp_path, network=gnnkd.nn.mlp(D, C))
    assert not loaded.needs_graph
    assert torch.equal(loaded.predict(_data().x), done.predict(_data().x))


def test_a_network_of_the_house_wants_no_module(tmp_path: Path) -> None:
    _distil(method="glnn").save(tmp_path)
    assert "own" not in checkpoint.load(tmp_path / "model.safetensors")[1]
    with pytest.raises(UserError, match="gnnkd's own mlp: leave network= out"):
        gnnkd.load(tmp_path, network=Mlp())


# -- what DGD could not read -------------------------------------------------------------------------------------


def test_dgd_says_what_it_could_not_read() -> None:
    done = _distil(teacher=Deep(), student=Deep(), method="dgd")
    assert "DGD found no operand of conv1.weight1 [8, 8]: it keeps its own gradient" in done.notes
    assert "DGD found no operand of conv1.weight1 [8, 8] of the teacher: its gradient is not imitated" in done.notes
    assert len([note for note in done.notes if "operand" in note]) == 2
    assert not [note for note in _distil(teacher=Deep(), student=Deep(), method="kd").notes if "operand" in note]


def test_only_matrices_are_said_to_be_unread() -> None:
    """Attention vectors of PyG, [1, H, F], and vectors that are written as matrices multiply no rows."""
    from torch_geometric.nn import GATConv, Sequential

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.mix = nn.Parameter(torch.ones(1, D)), nn.Parameter(torch.eye(D))

        def forward(self, x: Tensor) -> Any:
            return (self.scale * x) @ self.mix

    teacher = Sequential(
        "x, edge_index", [(Scaled(), "x -> x"), (GATConv(D, C, heads=2, concat=False), "x, edge_index -> x")]
    )
    done = _distil(teacher=teacher, method="dgd", options={"train": {"epochs": 3}})
    found = [note.split(" of ", 1)[1] for note in done.notes if "operand" in note]
    assert found == ["module_0.mix [30, 30] of the teacher: its gradient is not imitated"]


def test_a_module_without_any_operand_cannot_do_dgd() -> None:
    with pytest.raises(UserError, match=r'no weight matrix in the student Bare .*use method="glnn"'):
        _distil(student=Bare(), method="dgd")
    with pytest.raises(UserError, match=r'no weight matrix in the teacher Bare .*use method="glnn"'):
        _distil(teacher=Bare(), method="dgd")
    assert _distil(teacher=Bare(), student=Bare(), method="glnn").test_acc > 0.4


class Beside(Mlp):
    """A layer is called, and what it says is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(D, 4)

    def forward(self, x: Tensor) -> Any:
        self.extra(x)
        return super().forward(x)


def test_a_layer_without_influence_is_no_hindrance() -> None:
    torch.manual_seed(0)
    done = _distil(teacher=Beside(), student=Beside(), method="dgd")
    assert done.test_acc > 0.4
    assert sum("extra.weight [4, 30]" in note for note in done.notes) == 2


# -- mistakes ----------------------------------------------------------------------------------------------------


class Fails(nn.Module):
    """It raises on any rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(D + 1, C)

    def forward(self, x: Tensor) -> Any:
        return self.first(x)


class Forwarded(nn.Module):
    """A map with something done to its input and to its logits."""

    def __init__(self, after: Any, before: Any = lambda x, _: x) -> None:
        super().__init__()
        self.lin, self.before, self.after = nn.Linear(D, C), before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.lin(self.before(x, self.training)))


def _idle() -> nn.Module:
    return nn.Sequential(nn.Linear(D, C).requires_grad_(False))


def _list() -> nn.Module:
    class Listed(Mlp):
        def forward(self, x: Tensor) -> Any:
            return [super().forward(x)]

    return Listed()


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Mlp(5), "the {}: Mlp returns 5 columns; the data has 3 classes"),
        (lambda: Forwarded(torch.Tensor.detach), "the {}: Forwarded returns logits that no weight has a gradient of"),
        (lambda: Forwarded(lambda h: h.new_zeros(N, C).requires_grad_()), "the {}: Forwarded returns logits that no"),
        (
            lambda: Forwarded(lambda h: h.sigmoid().mul_(h).sigmoid_().mul_(2)),
            "the {} Forwarded fails.*inplace operation",
        ),
        (lambda: Forwarded(lambda h: h, lambda x, _: x.mul_(2)), "the {}: Forwarded changes x in place; .*x.clone"),
        (lambda: Forwarded(lambda h: h, lambda x, t: F.dropout(x, 0.5, t, inplace=True)), "the {}: .* changes x in"),
        (lambda: Own(Mlp(), graph=True), r"the {} Mlp fails on .*, edge_index: TypeError.*no edges.*graph=False\)"),
        (lambda: Own(Gcn(), graph=False), r"the {} Gcn fails on .*TypeError.*if it takes edges.*graph=True\)"),
        (lambda: nn.Flatten(0), r"the {}: Flatten returns torch.float32 of shape \[7200\]"),
        (_list, "the {}: Listed returns a list"),
        (Fails, r"the {} Fails fails on x \[240, 30\]: RuntimeError: mat1 and mat2"),
        (_idle, "the {}: Sequential has no weight to train"),
    ],
)
def test_a_module_that_does_not_fit(role: str, make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said.format(role)):
        _distil(**{role: make()}, method="glnn")


@pytest.mark.parametrize(("student", "method"), [(Mlp(5), "glnn"), (Bare(), "dgd")])
def test_a_student_that_does_not_fit_costs_no_teacher(
    student: nn.Module, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnnkd.api.train_teacher", None)
    with pytest.raises(UserError, match="the student"):
        _distil(student=student, method=method)


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_a_layer_that_keeps_its_graph_is_refused(role: str, setting: str) -> None:
    module = Gcn()
    module.conv1.cached = True
    with pytest.raises(UserError, match=f"the {role} keeps the first graph.*make it with cached=False"):
        _distil(**{role: module}, setting=setting, method="kd")


@pytest.mark.parametrize(("role", "way_out"), [("teacher", "give its logits"), ("student", "set requires_grad=True")])
def test_what_cannot_be_trained_has_a_way_out(role: str, way_out: str) -> None:
    with pytest.raises(UserError, match=f"the {role}: Sequential has no weight to train; {way_out}"):
        _distil(**{role: _idle()}, method="glnn")


def test_a_trial_leaves_the_data_and_the_first_weights_alone() -> None:
    """Of batch norm, which counts in training, and of what a module does to its inputs."""
    data = _data()
    x, edges = data.x.clone(), data.edge_index.clone()
    module = Gcn()
    module.register_forward_pre_hook(lambda _, args: (args[0], args[1].copy_(args[1].flip(1))))
    with pytest.raises(UserError, match="changes edge_index in place"):
        gnnkd.distill(data, student=module, teacher="sgc", method="kd", device="cpu", quiet=True)
    assert torch.equal(data.x, x)
    assert torch.equal(data.edge_index, edges)
    student = Mlp()
    config = resolve("data", student_model=student, levels=(FEW,))
    made = models.built(config.student_network, {}, task(from_pyg(data), seed=0), "student")
    assert made.module.norm.num_batches_tracked == 0
    assert not made.training
    assert not made.module.training
    assert all(torch.equal(t, made.module.state_dict()[name]) for name, t in student.state_dict().items())


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"student": Mlp}, "student model is the class Mlp; give a name, or a torch.nn.Module made already"),
        ({"student": [1]}, "student model is a list"),
        ({"teacher": Gcn}, "teacher model is the class Gcn"),
        ({"teacher": None}, "teacher model is a NoneType"),
        ({"options": {"student": {"layers": 2}}}, "student.layers is an option of gnnkd's own networks, and Mlp"),
        ({"options": {"train": {"width": 2}}}, "train.width is an option of gnnkd's own networks, and Mlp"),
        ({"options": {"student": {"lrr": 2}}}, "unknown option 'student.lrr'.*did you mean 'student.lr'"),
        ({"options": {"student": {"epochs": 0}}}, "student: epochs is 0"),
    ],
)
def test_mistakes_are_answered_in_a_line(said: dict[str, Any], answer: str) -> None:
    with pytest.raises(UserError, match=answer):
        _distil(**{"student": Mlp(), "method": "glnn", **said})


def test_options_of_training_reach_a_module() -> None:
    longer = [_distil(student=nn.Linear(D, C), method="glnn", options={"student": {"epochs": n}}) for n in (1, 60)]
    assert longer[0].scores["val_acc"] < longer[1].scores["val_acc"]
