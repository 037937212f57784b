"""Graphs made of features, from the command line to a prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnkd
from gnnkd.claims import differences
from gnnkd.data.dataset import from_arrays
from gnnkd.data.graphs import load
from gnnkd.data.task import task
from gnnkd.errors import UserError
from gnnkd.graph.build import Neighbourhood
from gnnkd.graph.structure import Graph
from gnnkd.main import main
from gnnkd.run import resolve
from gnnkd.stages import train_student, train_teacher
from gnnkd.train import checkpoint
from gnnkd.train.progress import Silent

REAL = Path(__file__).parents[2] / "shared" / "data"
FEW = ["--device", "cpu", "--set", "train.epochs=3", "train.width=6"]


def _arrays(n: int = 120) -> dict[str, np.ndarray]:
    """Three kinds of rows that their features tell apart, with masks and no edges."""
    rng, y = np.random.default_rng(0), np.arange(n) % 3
    x = rng.random((n, 12)) * 0.4 + np.where(np.arange(12) % 3 == y[:, None], 0.6, 0.1)
    masks = {f"{part}_mask": np.arange(n) * 3 // n == i for i, part in enumerate(("train", "val", "test"))}
    return {"x": x.astype(np.float32), "y": y, **masks}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "toy.npz", **_arrays())
    return tmp_path / "toy.npz"


def _run(dataset: str, out: Path, *more: str) -> Path:
    assert main(["--dataset", dataset, "--out", str(out), "--method", "kd", "--student", "gcn", *FEW, *more]) == 0
    (teacher,) = out.rglob("teacher")
    return teacher / "seed0"


# -- from the command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["knn", "uem"])
def test_a_file_without_edges_trains(
    file: Path, tmp_path: Path, graph: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [] if graph == "knn" else ["data.graph=uem", "data.k=10"]
    place = _run(str(file), tmp_path / "runs", *said)
    assert f"by its features (data.graph={graph})" in capsys.readouterr().out
    data = json.loads((place / "config.json").read_text())["data"]
    assert (data["graph"], data["k"]) == ((None, None) if graph == "knn" else ("uem", 10))
    network, x = gnnkd.load(place), _arrays()["x"]
    assert network.made == Neighbourhood(graph, 8 if graph == "knn" else 10)
    stored, _ = checkpoint.load(place / "outputs.safetensors")
    torch.testing.assert_close(network.logits(x), stored["logits"])


@pytest.mark.parametrize("name", ["digits-graph", "cora"])
def test_the_datasets_of_the_house_train_on_edges_with_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNNKD_CACHE", str(tmp_path / "cache"))
    if name == "cora" and not (REAL / "planetoid" / "Cora").is_dir():
        pytest.skip("the raw files of cora are not in ../shared/data")
    place = _run(name, tmp_path / "runs", "data.graph=uem", "data.k=10", "--data_root", str(REAL))
    data = load(name, root=REAL, graph="uem", k=10)
    network = gnnkd.load(place)
    stored, _ = checkpoint.load(place / "outputs.safetensors")
    ids = stored["index"]
    assert ids.numel() == data.graph.n_nodes
    torch.testing.assert_close(network.logits(data.x), stored["logits"], rtol=1e-3, atol=1e-4)
    bare = Graph(data.graph.adjacency.with_value(None))
    assert not torch.allclose(network.logits(data.x, bare), stored["logits"], atol=1e-3), "the weights do something"


def test_a_network_that_takes_no_weights_says_so(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(str(file), tmp_path / "runs", "data.graph=uem", "train.width=8", "--teacher", "gat")
    assert "toy: gat looks at the edges, not at their weights" in capsys.readouterr().out
    _run(str(file), tmp_path / "more", "data.graph=knn", "train.width=8", "--teacher", "gat")
    assert "their weights" not in capsys.readouterr().out


def _fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main([*argv, *FEW]) == 2
    return capsys.readouterr().err


def test_mistakes_are_said_in_a_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = ["--dataset", str(file)]
    assert "did you mean 'uem'" in _fails(capsys, *on, "--set", "data.graph=uen")
    assert "data.k is 5, and data.graph=given" in _fails(capsys, *on, "--set", "data.graph=given", "data.k=5")
    assert "has no edges of its own" in _fails(capsys, *on, "--set", "data.graph=given")
    assert "change data.k" in _fails(capsys, *on, "--set", "data.k=120")
    assert "no edges of its own" in _fails(capsys, "--dataset", "digits-graph", "--set", "data.graph=given")


def test_a_description_from_before_the_option_is_the_same_run(file: Path, tmp_path: Path) -> None:
    place = _run(str(file), tmp_path / "runs")
    new = json.loads((place / "config.json").read_text())
    old = new | {"data": {k: v for k, v in new["data"].items() if k != "graph"}}
    assert differences(old, new) == []
    assert [key for key, _, _ in differences(old, new | {"data": new["data"] | {"graph": "knn"}})] == ["data.graph"]
    (place / "config.json").write_text(json.dumps(old))
    before = (place / "model.safetensors").stat().st_mtime_ns
    _run(str(file), tmp_path / "runs")
    assert (place / "model.safetensors").stat().st_mtime_ns == before, "the finished teacher stays"


# -- predictions ---------------------------------------------------------------------------------------------------


def _data(**changes: Any) -> Any:
    from torch_geometric.data import Data

    return Data(**{name: torch.from_numpy(a) for name, a in _arrays().items()}, **changes)


def _distilled(graph: str, teacher: Any = "gcn", **more: Any) -> Any:
    options = {"train": {"epochs": 3}, "data": {"graph": graph, "k": 6}, "method": {"generators": False}}
    return gnnkd.distill(
        _data(), teacher=teacher, student="sage", method="kd", options=options, quiet=True, device="cpu", **more
    )


@pytest.mark.parametrize("graph", ["knn", "uem"])
@pytest.mark.parametrize("normalise", ["row", "raw"])
def test_a_saved_network_makes_its_graph_itself(tmp_path: Path, graph: str, normalise: str) -> None:
    options = {"train": {"epochs": 3}, "data": {"graph": graph, "k": 6, "normalise": normalise}}
    options["method"] = {"generators": False}
    done = gnnkd.distill(_data(), student="sage", method="kd", options=options, quiet=True, device="cpu")
    done.save(tmp_path)
    loaded, x = gnnkd.load(tmp_path), _arrays()["x"]
    assert loaded.made == Neighbourhood(graph, 6)
    whole = loaded.made.graph(torch.from_numpy(x))
    assert torch.equal(loaded.logits(x), loaded.logits(x, whole))
    assert torch.equal(loaded.logits(x), done.student.logits(x))
    known = task(from_arrays(_arrays(), graph=graph, k=6), seed=0, normalise=normalise)
    assert torch.equal(loaded.logits(x), loaded.network(known.x, known.graph).logits)
    with pytest.raises(UserError, match=r"x has 6 rows, and the edges are made of the 6 nearest"):
        loaded.predict(x[:6])
    assert loaded.predict(x[:7]).shape == (7,)


@pytest.mark.parametrize("graph", ["knn", "uem"])
def test_edges_are_made_for_a_student_that_reads_those_of_new_rows_alone(graph: str) -> None:
    options = {"train": {"epochs": 3}, "data": {"graph": graph, "k": 6}}
    options["method"] = {"walk_length": 10, "walks": 2, "dim": 6}
    done = gnnkd.distill(_data(), student="mlp", method="nosmog", options=options, quiet=True, device="cpu")
    x, ids, mixed = _arrays()["x"], torch.arange(120), torch.arange(120)
    mixed[:30] = -1
    assert done.student.made is not None
    whole, none = done.student.made.graph(torch.from_numpy(x)), np.zeros((2, 0))
    found = done.predict_proba(x, index=mixed)
    assert torch.equal(found, done.predict_proba(x, whole, index=mixed))
    assert not torch.allclose(found[:30], done.predict_proba(x, none, index=mixed)[:30]), "they have neighbours"
    assert torch.equal(done.predict_proba(x, index=ids), done.predict_proba(x, none, index=ids))
    assert done.predict(x[:3], index=ids[:3]).shape == (3,), "known rows need no edges"
    with pytest.raises(UserError, match=r"x has 3 rows, and the edges are made of the 6 nearest"):
        done.predict(x[:3])


def test_an_edge_list_cannot_stand_for_edges_with_weights() -> None:
    x, edges = _arrays()["x"], np.array([[0, 1], [1, 2]])
    weighted, plain = _distilled("uem").student, _distilled("knn").student
    with pytest.raises(UserError, match="this sage learnt on edges with weights"):
        weighted.predict(x, edges)
    assert weighted.predict(x, np.zeros((2, 0))).shape == (120,), "nodes without edges need no weights"
    graph = Graph.from_edge_index(torch.from_numpy(edges), 120, torch.tensor([0.5, 0.2]))
    assert weighted.predict(x, graph).shape == plain.predict(x, edges).shape == (120,)


def test_networks_that_take_no_weights_take_an_edge_list() -> None:
    done = _distilled("uem", teacher="monet")
    assert "monet looks at the edges, not at their weights" in done.notes
    assert done.teacher.predict(_arrays()["x"], np.array([[0], [1]])).shape == (120,)


def test_a_library_user_is_told_how_the_edges_were_made() -> None:
    assert any("data.graph=uem" in note for note in _distilled("uem").notes)
    given = gnnkd.distill(
        _data(edge_index=torch.randint(0, 120, (2, 300))), options={"train": {"epochs": 2}}, quiet=True, device="cpu"
    )
    assert given.student.made is None


# -- nothing leaks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["knn", "uem"])
@pytest.mark.parametrize("split", ["given", "cpf"])
def test_features_of_unseen_nodes_change_no_weight(graph: str, split: str) -> None:
    arrays = _arrays(330)

    def weights(x: np.ndarray) -> tuple[Any, list[torch.Tensor]]:
        data = task(from_arrays(arrays | {"x": x}, graph=graph, k=3), seed=0, setting="ind", protocol=split)
        levels = ({"train": {"epochs": 4, "width": 6}, "method": {"generators": False}},)
        config = resolve("data", student_model="gcn", method="kd", levels=levels)
        taught = train_teacher(data, config, Silent())
        learnt = train_student(data, config, taught.logits, None, Silent())
        found = (taught.predictor.network, learnt.predictor.network)
        return data, [t for network in found for t in network.state_dict().values()]

    data, plain = weights(arrays["x"])
    changed = arrays["x"].copy()
    unseen = data.whole.index[data.whole.unseen].numpy()
    changed[unseen] = changed[unseen][:, ::-1] * np.where(np.arange(unseen.size) % 2 == 0, 50, 0.01)[:, None]
    other, same = weights(changed.astype(np.float32))
    assert data.content != other.content
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    seen = arrays["x"].copy()
    seen[data.index[:3].numpy()] += 0.1
    _, moved = weights(seen)
    assert not all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True))


@pytest.mark.parametrize("name", sorted(gnnkd.nn.MODELS))
def test_weights_matter_to_the_networks_that_say_so(name: str) -> None:
    if not gnnkd.nn.needs_graph(name):
        assert not gnnkd.nn.reads_weights(name)
        return
    data = from_arrays(_arrays(), graph="uem", k=4)
    network, bare = gnnkd.nn.MODELS[name](12, 3).eval(), Graph(data.graph.adjacency.with_value(None))
    same = torch.equal(network(data.x, data.graph).logits, network(data.x, bare).logits)
    assert same is not gnnkd.nn.reads_weights(name)
