"""gnnkd as a library: a graph in, a student out, and the student back from its file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gnnkd
from gnnkd.api import Distilled
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.main import main
from gnnkd.predictor import Predictor
from gnnkd.train import checkpoint

LABELS = torch.tensor([3, 7, 40])
"""Labels of the three classes: neither from 0 nor without gaps."""
SMALL = {"train": {"epochs": 20, "width": 16}}


def _data(**changes: Any) -> Any:
    """A planted partition as a PyG `Data`, 10 labelled nodes a class."""
    from torch_geometric.data import Data

    rng, n = np.random.default_rng(0), 240
    y = np.arange(n) % 3
    a, b = rng.integers(0, n, (2, 8 * n))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    words = rng.random((n, 30)) < np.where(np.arange(30) % 3 == y[:, None], 0.4, 0.05)
    part = np.minimum(np.arange(n) // 30, 2)
    masks = {f"{name}_mask": torch.from_numpy(part == i) for i, name in enumerate(("train", "val", "test"))}
    x = torch.from_numpy(words * rng.integers(1, 4, words.shape)).float()
    edge_index = torch.from_numpy(np.stack([a, b])[:, near])
    return Data(**{"x": x, "edge_index": edge_index, "y": LABELS[torch.from_numpy(y)], **masks, **changes})


@cache
def _distilled(student: str = "mlp", normalise: str = "auto") -> Distilled:
    method = "dgd" if (student, normalise) == ("mlp", "auto") else "kd"
    options = SMALL | {"data": {"normalise": normalise}, "method": {"generators": method == "dgd"}}
    return gnnkd.distill(_data(), student=student, method=method, options=options, device="cpu", quiet=True)


def test_a_student_is_distilled() -> None:
    """Labels come back as they were given, and scores are shares of hits on the masks of the data."""
    data, done = _data(), _distilled()
    found = done.predict(data.x)
    assert set(found.tolist()) <= set(LABELS.tolist())
    for score, mask in ((done.test_acc, data.test_mask), (done.val_acc, data.val_mask)):
        assert score == pytest.approx(float((found == data.y)[mask].double().mean()))
    assert done.test_acc > 0.6, "chance is a third"
    assert done.teacher_test_acc > 0.6
    assert done.teacher.n_parameters > done.student.n_parameters > 0


def test_nothing_of_the_callers_is_changed() -> None:
    data, before = _data(), _data()
    torch.manual_seed(5)
    np.random.seed(5)
    random, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    gnnkd.distill(data, options={"train": {"epochs": 3, "width": 4}}, device="cpu", quiet=True)
    assert torch.equal(torch.get_rng_state(), random)
    assert (np.random.get_state()[1] == numpys).all()
    assert data.keys() == before.keys()
    for name, value in before:
        assert torch.equal(data[name], value), name


def test_the_callers_random_state_has_no_influence() -> None:
    few = {"train": {"epochs": 3, "width": 4}}
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(gnnkd.distill(_data(), seed=4, options=few, device="cpu", quiet=True).predict_proba(_data().x))
    assert torch.equal(*found)


def test_an_mlp_predicts_new_rows_without_a_graph() -> None:
    done, data = _distilled(), _data()
    alone = torch.cat([done.predict_proba(row[None]) for row in data.x[:5]])
    torch.testing.assert_close(alone, done.predict_proba(data.x)[:5])
    new = torch.zeros(1, 30)
    new[0, 1::3] = 1
    assert done.predict(new).tolist() == [LABELS[1]]
    torch.testing.assert_close(alone.sum(1), torch.ones(5))


@pytest.mark.parametrize("form", ["numpy", "double", "sparse", "integers"])
def test_rows_come_in_any_form(form: str) -> None:
    done, x = _distilled(), _data().x
    forms = {"numpy": x.numpy(), "double": x.double(), "sparse": CSR.from_dense(x), "integers": x.long()}
    torch.testing.assert_close(done.predict_proba(forms[form]), done.predict_proba(x))


@pytest.mark.parametrize("student", ["gcn", "sage"])
def test_a_student_on_the_graph_needs_the_graph(student: str) -> None:
    data, done = _data(), _distilled(student)
    with pytest.raises(UserError, match=f"a {student} network predicts along edges: give edge_index"):
        done.predict(data.x)
    both = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1).unique(dim=1)
    found = done.predict(data.x, both)
    assert done.test_acc == pytest.approx(float((found == data.y)[data.test_mask].double().mean()))
    assert done.test_acc > 0.6
    graph = Graph.from_edge_index(both, data.num_nodes)
    assert torch.equal(done.predict(data.x, graph), found)


KNOWING: dict[str, dict[str, Any]] = {"nosmog": {"walk_length": 10, "walks": 2, "dim": 6}, "cpf": {}}
"""Methods whose students know nodes of the training, with few walks."""


@cache
def _knowing(method: str, setting: str = "tran", weights: str | None = None) -> Distilled:
    options = SMALL | {"method": KNOWING[method] | ({} if weights is None else {"weights": weights})}
    return gnnkd.distill(_data(), method=method, setting=setting, options=options, device="cpu", quiet=True)


@pytest.mark.parametrize(("method", "weights"), [("nosmog", None), ("cpf", "ind"), ("cpf", "tra")])
def test_a_student_that_knows_nodes_is_told_which_the_rows_are(method: str, weights: str | None) -> None:
    """Then it scores as reported; otherwise all rows are new to it, which it says where it is no plain question."""
    data, done, ids = _data(), _knowing(method, weights=weights), torch.arange(240)
    assert done.index is not None
    assert torch.equal(done.index, ids)
    found = done.predict(data.x, data.edge_index, index=ids)
    assert done.test_acc == pytest.approx(float((found == data.y)[data.test_mask].double().mean()))
    shares = done.predict_proba(data.x, data.edge_index, index=ids.numpy())
    assert torch.equal(LABELS[shares.argmax(1)], found)
    with pytest.warns(UserWarning, match="all 240 rows are taken as new.*index="):
        new = done.predict_proba(data.x, data.edge_index)
    assert torch.equal(new, done.predict_proba(data.x, data.edge_index, index=torch.full((240,), -1)))
    assert not torch.allclose(new, shares)
    few = data.edge_index[:, (data.edge_index < 239).all(0)]
    assert done.predict(data.x[:239], few).shape == (239,), "fewer rows are a plain question"


def test_unseen_nodes_are_not_among_those_that_a_student_knows() -> None:
    data, done = _data(), _knowing("nosmog", "ind")
    assert done.index is not None
    seen = torch.isin(torch.arange(240), done.index)
    found = done.predict(data.x, data.edge_index, index=torch.arange(240)) == data.y
    assert done.scores["test_acc_ind"] == pytest.approx(float(found[~seen].double().mean()))
    with pytest.warns(UserWarning, match="taken as new"):
        done.predict(data.x[seen], torch.zeros(2, 0))


def test_what_is_around_a_network_is_named() -> None:
    with pytest.raises(UserError, match="a mlp network inside label propagation predicts along edges: give edge_index"):
        _knowing("cpf").predict(_data().x[:5])


@pytest.mark.parametrize("student", sorted(gnnkd.nn.MODELS))
@pytest.mark.parametrize("form", [torch.zeros(2, 0, dtype=torch.long), np.zeros((2, 0))])
def test_nodes_without_any_edge_can_be_asked_about(student: str, form: Any) -> None:
    """Cold nodes: each is answered alone as it is beside the others."""
    x = _data().x[:5]
    network = gnnkd.nn.MODELS[student](30, 3).eval()
    predictor = Predictor(network, student, {}, (3, 7, 40), "raw", 30)
    found = predictor.predict_proba(x, form)
    torch.testing.assert_close(found, torch.cat([predictor.predict_proba(row[None], form) for row in x]))
    assert set(predictor.predict(x, form).tolist()) <= set(LABELS.tolist())
    with pytest.raises(UserError, match="must be"):
        predictor.predict(x, torch.zeros(3, 0, dtype=torch.long))


@pytest.mark.parametrize("shape", [(5, 29), (5, 31), (30,), (1, 5, 30)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"this network reads rows of 30 features"):
        _distilled().predict(torch.zeros(shape))


# -- features ----------------------------------------------------------------------------------------------------


def test_the_choice_of_features_is_applied_again_on_prediction(tmp_path: Path) -> None:
    """Rows divided by their sum do not see the size of a row, raw ones do."""
    x = _data().x
    for normalise, same in (("row", True), ("raw", False)):
        done = _distilled(normalise=normalise)
        done.save(tmp_path / normalise)
        for network in (done.student, gnnkd.load(tmp_path / normalise)):
            assert network.features == normalise
            assert torch.allclose(network.predict_proba(3 * x), network.predict_proba(x), atol=1e-6) is same
    score = (_distilled(normalise="row").predict(x) == _data().y)[_data().test_mask].double().mean()
    assert _distilled(normalise="row").test_acc == pytest.approx(float(score))


def test_rows_that_cannot_be_normalised_are_refused() -> None:
    with pytest.raises(UserError, match="row normalisation divides by the row's sum"):
        _distilled(normalise="row").predict(-_data().x)


# -- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("student", ["mlp", "gcn", "sage"])
def test_a_saved_student_predicts_the_same(tmp_path: Path, student: str) -> None:
    data, done = _data(), _distilled(student)
    graph = None if student == "mlp" else data.edge_index
    done.save(tmp_path / "student")
    assert [f.name for f in (tmp_path / "student").iterdir()] == ["model.safetensors"]
    for place in (tmp_path / "student", tmp_path / "student" / "model.safetensors", str(tmp_path / "student")):
        loaded = gnnkd.load(place)
        assert torch.equal(loaded.predict_proba(data.x, graph), done.predict_proba(data.x, graph))
        assert torch.equal(loaded.predict(data.x, graph), done.predict(data.x, graph))
        assert not loaded.network.training


def test_a_folder_of_the_command_line_is_loaded(tmp_path: Path) -> None:
    data = _data()
    arrays = {name: value.numpy() for name, value in data}
    np.savez(tmp_path / "toy.npz", **arrays)
    few = ["--quiet", "--device", "cpu", "--set", "train.epochs=20", "train.width=8"]
    argv = ["--dataset", str(tmp_path / "toy.npz"), "--out", str(tmp_path), "--method", "glnn", *few]
    assert main(argv) == 0
    student = gnnkd.load(tmp_path / "toy" / "given-tran" / "gcn" / "mlp" / "glnn" / "seed0")
    found = student.predict(data.x)
    assert set(found.tolist()) <= set(LABELS.tolist())
    assert float((found == data.y)[data.test_mask].double().mean()) > 0.5


def _not_ours(file: Path, network: dict[str, Tensor], meta: dict[str, Any]) -> Path:
    checkpoint.save(file, network, meta)
    return file


def test_files_that_are_no_student_are_refused(tmp_path: Path) -> None:
    _distilled().save(tmp_path)
    tensors, meta = checkpoint.load(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="does not exist; give the folder of a finished run"):
        gnnkd.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="does not exist"):
        gnnkd.load(tmp_path / "empty")
    with pytest.raises(UserError, match="not written by this version"):
        gnnkd.load(_not_ours(tmp_path / "a.safetensors", tensors, {}))
    with pytest.raises(UserError, match="not written by this version"):
        gnnkd.load(_not_ours(tmp_path / "b.safetensors", tensors, meta | {"format": 99}))
    with pytest.raises(UserError, match="other tensors than its description says"):
        gnnkd.load(_not_ours(tmp_path / "c.safetensors", {"layers.0.weight": torch.ones(2)}, meta))
    with pytest.raises(UserError, match="other tensors than its description says"):
        gnnkd.load(_not_ours(tmp_path / "d.safetensors", tensors, meta | {"n_features": 31}))


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"teacher": "gccn"}, "unknown teacher model 'gccn'.*did you mean 'gcn'"),
        ({"student": "mpl"}, "unknown student model 'mpl'.*did you mean 'mlp'"),
        ({"method": "gdg"}, "unknown method 'gdg'.*did you mean 'dgd'"),
        ({"split": "obg"}, "unknown split 'obg'"),
        ({"split": "public"}, "has no split 'public'"),
        ({"options": {"studnet": {}}}, "unknown group of options 'studnet'.*did you mean 'student'"),
        ({"options": {"student": {"widht": 3}}}, "did you mean 'student.width'"),
        ({"options": {"train": {"epochs": 0}}}, "epochs is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_mistakes_are_answered_in_a_line(said: dict[str, Any], answer: str) -> None:
    with pytest.raises(UserError, match=answer):
        gnnkd.distill(_data(), quiet=True, **{"options": {"train": {"epochs": 1, "width": 2}}, **said})
