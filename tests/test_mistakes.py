"""Ways in which a run's surroundings change or break, through the command line: one line, exit code 2, nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import gnnkd
from gnnkd.errors import UserError
from gnnkd.main import main
from gnnkd.train import checkpoint

FAST = ["--quiet", "--device", "cpu", "--set", "train.epochs=3", "train.width=6"]
TEACHER = "toy/given-tran/gcn/teacher/seed0"


def _arrays(*, flip: bool = False) -> dict[str, np.ndarray]:
    rng, y = np.random.default_rng(0), np.arange(90) % 3
    x = (rng.random((90, 12)) < np.where(np.arange(12) % 3 == y[:, None], 0.6, 0.1)).astype(np.float32)
    masks = {f"{part}_mask": np.arange(90) // 30 == i for i, part in enumerate(("train", "val", "test"))}
    return {"edge_index": rng.integers(0, 90, (2, 300)), "x": 1 - x if flip else x, "y": y, **masks}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "toy.npz", **_arrays())
    assert main(["--dataset", str(folder / "toy.npz"), "--out", str(folder / "runs"), "--method", "glnn", *FAST]) == 0
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def _fails(capsys: pytest.CaptureFixture[str], place: Path, *more: str) -> str:
    capsys.readouterr()
    assert main(["--dataset", str(place / "toy.npz"), "--out", str(place / "runs"), *FAST, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gnnkd: error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("mode", ["tea", "stu", "tea/stu"])
def test_features_changed_behind_a_teachers_back(place: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    """Same nodes, edges and masks; only the features differ."""
    np.savez(place / "toy.npz", **_arrays(flip=True))
    error = _fails(capsys, place, "--mode", mode, "--method", "kd")
    assert "content" in error or "other features or labels" in error


@pytest.mark.parametrize("mode", ["tea", "stu"])
def test_a_result_without_its_entries(place: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    (place / "runs" / TEACHER / "result.json").write_text("{}")
    assert "lacks dataset" in _fails(capsys, place, "--mode", mode, "--method", "kd")


def test_generators_that_are_something_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "runs" / TEACHER
    shutil.copy(folder / "model.safetensors", folder / "generators.safetensors")
    assert "holds no generators" in _fails(capsys, place, "--mode", "stu", "--method", "dgd")


def test_outputs_that_are_something_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "runs" / TEACHER
    shutil.copy(folder / "model.safetensors", folder / "outputs.safetensors")
    assert "--mode tea --overwrite" in _fails(capsys, place, "--mode", "stu", "--method", "kd")


def test_dgd_without_generators_is_refused_before_a_teacher_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "toy.npz", **_arrays())
    assert "method.generators" in _fails(capsys, tmp_path, "--set", "method.generators=false")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("method", "more"), [("fitnet", []), ("dgd", ["method.base=rkd"]), ("gsp", [])])
def test_hidden_rows_of_a_student_without_any_are_refused_before_a_teacher_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, more: list[str]
) -> None:
    np.savez(tmp_path / "toy.npz", **_arrays())
    error = _fails(capsys, tmp_path, "--method", method, "--set", "student.layers=1", *more)
    assert "compares hidden rows, and mlp with one layer of weights has none; use student.layers=2" in error
    assert not (tmp_path / "runs").exists()


def test_a_disk_that_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    np.savez(tmp_path / "toy.npz", **_arrays())
    monkeypatch.setattr(checkpoint, "_replace", full)
    assert "No space left on device" in _fails(capsys, tmp_path)


def test_names_that_no_file_can_have(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", "x" * 300, *FAST]) == 2
    assert main(["--dataset", "x" * 300 + ".npz", *FAST]) == 2
    assert main(["--dataset", str(place / "toy.npz"), "--out", "y" * 300, *FAST]) == 2
    assert capsys.readouterr().err.count("gnnkd: error: ") == 3


def test_more_generators_than_are_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "kept 8" in _fails(capsys, place, "--mode", "stu", "--method", "dgd", "--set", "method.k=20")


def test_a_description_that_does_not_fit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model.safetensors", {"a": torch.zeros(2)}, {"format": 1})
    with pytest.raises(UserError, match="other tensors than its description"):
        gnnkd.load(tmp_path)


def test_a_graph_network_predicts_on_the_graph_it_knows(place: Path) -> None:
    """Training mirrored the edges, so prediction does: a list, its mirror image and both together mean the same."""
    network = gnnkd.load(place / "runs" / TEACHER)
    arrays = _arrays()
    edges, x = arrays["edge_index"], arrays["x"]
    one = network.logits(x, edges)
    torch.testing.assert_close(network.logits(x, torch.as_tensor(edges).flip(0)), one)
    torch.testing.assert_close(network.logits(x, np.concatenate([edges, edges[::-1]], axis=1)), one)
    stored, _ = checkpoint.load(place / "runs" / TEACHER / "outputs.safetensors")
    torch.testing.assert_close(one, stored["logits"])
    with pytest.raises(UserError, match=r"outside 0\.\.89"):
        network.logits(x, np.array([[0], [90]]))
    with pytest.raises(UserError, match="not finite"):
        network.logits(np.where(x == x.max(), np.nan, x), edges)


def test_edges_that_were_directed_stay_directed(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.npz", **_arrays())
    options = [*FAST[:-1], "train.width=6", "data.undirected=false", "method.generators=false"]
    assert main(["--dataset", str(tmp_path / "toy.npz"), "--out", str(tmp_path), "--mode", "tea", *options]) == 0
    network = gnnkd.load(tmp_path / TEACHER)
    arrays = _arrays()
    stored, _ = checkpoint.load(tmp_path / TEACHER / "outputs.safetensors")
    torch.testing.assert_close(network.logits(arrays["x"], arrays["edge_index"]), stored["logits"])
    assert json.loads((tmp_path / TEACHER / "config.json").read_text())["data"]["undirected"] is False
