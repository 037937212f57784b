"""What is reported under each setting: the scores of the parts, what they are combined to, and where they are shown."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnkd
from gnnkd import report, scores
from gnnkd.data.graphs import load
from gnnkd.data.task import NodeTask, task
from gnnkd.graph.structure import Graph
from gnnkd.main import main

FAST = ["--device", "cpu", "--quiet", "--set", "train.epochs=4", "train.width=8"]
PARTS = ["test_acc_tran", "test_acc_ind", "test_acc_cold"]


def _graph(folder: Path, n: int = 120) -> Path:
    """A planted partition with masks."""
    rng, y = np.random.default_rng(0), np.arange(n) % 3
    words = rng.random((n, 30)) < np.where(np.arange(30) % 3 == y[:, None], 0.4, 0.05)
    a, b = rng.integers(0, n, (2, 8 * n))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    masks = {f"{part}_mask": np.minimum(np.arange(n) // 30, 2) == i for i, part in enumerate(("train", "val", "test"))}
    np.savez(folder / "toy.npz", edge_index=np.stack([a, b])[:, near], x=words.astype(np.float32), y=y, **masks)
    return folder / "toy.npz"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, and a GCN that teaches a GCN on it: two seeds under `ind`, one under `tran`."""
    folder = tmp_path_factory.mktemp("settings")
    fixed = ["--dataset", str(_graph(folder)), "--out", str(folder / "runs"), "--method", "kd", "--student", "gcn"]
    assert main([*fixed, "--setting", "ind", "--seeds", "2", *FAST]) == 0
    assert main([*fixed, *FAST]) == 0
    return folder


def _result(finished: Path, place: str, setting: str = "ind", seed: int = 0) -> Any:
    folder = finished / "runs" / "toy" / f"given-{setting}" / "gcn" / place / f"seed{seed}"
    return json.loads((folder / "result.json").read_text())


def _task(finished: Path, seed: int) -> NodeTask:
    return task(load(finished / "toy.npz"), seed=seed, setting="ind")


@pytest.mark.parametrize("place", ["teacher", "gcn/kd"])
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_are_those_of_the_saved_network(finished: Path, place: str, seed: int) -> None:
    """Counted by hand: each part on the graph that belongs to it."""
    result, data = _result(finished, place, seed=seed), _task(finished, seed)
    whole = data.whole
    assert whole is not None
    unseen = ~whole.observed
    source, target = edges = whole.graph.edge_index
    observed = edges[:, whole.observed[source] & whole.observed[target]]
    network = gnnkd.load(finished / "runs" / "toy" / "given-ind" / "gcn" / place / f"seed{seed}")

    def share(graph: Graph, x: Any, y: torch.Tensor, mask: torch.Tensor) -> Any:
        return pytest.approx(float((network.logits(x, graph).argmax(dim=1) == y)[mask].double().mean()))

    cold = Graph.from_edge_index(observed, whole.observed.numel())
    assert result["test_acc_tran"] == share(data.graph, data.x, data.y, data.split.test)
    assert result["test_acc_ind"] == share(whole.graph, whole.x, whole.y, unseen)
    assert result["test_acc_cold"] == share(cold, whole.x, whole.y, unseen)
    assert result["test_acc"] == pytest.approx(0.8 * result["test_acc_tran"] + 0.2 * result["test_acc_ind"])


def test_a_student_tells_its_teachers_scores(finished: Path) -> None:
    teacher, student = _result(finished, "teacher"), _result(finished, "gcn/kd")
    for name in ("test_acc", *PARTS):
        assert teacher[name] == teacher[f"teacher_{name}"] == student[f"teacher_{name}"]


def test_the_transductive_setting_has_one_score(finished: Path) -> None:
    for place in ("teacher", "gcn/kd"):
        found = [name for name in _result(finished, place, "tran") if "test_acc" in name]
        assert sorted(found) == ["teacher_test_acc", "test_acc"]


def test_a_row_network_needs_no_edges_of_an_unseen_node(finished: Path) -> None:
    """`ind` and `cold` differ in edges only, which an MLP does not look at."""
    data = _task(finished, 0)
    network = gnnkd.nn.mlp(data.n_features, data.n_classes, layers=2, width=4)
    found = scores.of_network(network, data)
    assert found["test_acc_ind"] == found["test_acc_cold"]
    assert not network.training


def test_a_summary_has_the_spread_of_each(finished: Path) -> None:
    results = [_result(finished, "gcn/kd", seed=seed) for seed in (0, 1)]
    folder = finished / "runs" / "toy" / "given-ind" / "gcn" / "gcn" / "kd"
    summary = json.loads((folder / "summary.json").read_text())
    names = ["test_acc", *PARTS]
    for name in [*names, *(f"teacher_{name}" for name in names), "val_acc"]:
        values = [result[name] for result in results]
        assert summary[name]["mean"] == pytest.approx(statistics.fmean(values))
        assert summary[name]["std"] == pytest.approx(statistics.stdev(values))
    assert (summary["mean"], summary["std"]) == (summary["test_acc"]["mean"], summary["test_acc"]["std"])


def test_the_report_has_columns_of_parts_where_a_row_has_them(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(finished / "runs")]) == 0
    head, *lines = (line for line in capsys.readouterr().out.splitlines() if line.strip() and "──" not in line)
    assert all(f"{part} %" in head for part in ("tran", "ind", "cold"))
    (row,) = (line for line in lines if "given-ind" in line and " kd " in line)
    values = [100 * _result(finished, "gcn/kd", seed=seed)["test_acc_cold"] for seed in (0, 1)]
    assert f"{statistics.fmean(values):.2f} +- {statistics.stdev(values):.2f}" in row
    assert any("given-tran" in line for line in lines)
    assert report.main([str(finished / "runs" / "toy" / "given-tran")]) == 0
    assert "cold" not in capsys.readouterr().out


def test_the_line_of_a_run_says_what_its_score_is_made_of(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = _result(finished, "teacher")
    fixed = ["--dataset", str(finished / "toy.npz"), "--out", str(finished / "runs"), "--mode", "tea", *FAST]
    for setting in ("ind", "tran"):
        assert main([*fixed, "--setting", setting]) == 0
    ind, tran = capsys.readouterr().out.splitlines()
    tested, parts = f"test {result['test_acc']:.2%}", [result[name] for name in PARTS]
    assert f"{tested} (tran {parts[0]:.2%}, ind {parts[1]:.2%}, cold {parts[2]:.2%})" in ind
    assert "cold" not in tran


def test_a_missing_teacher_is_made_in_the_same_setting(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ["--dataset", str(finished / "toy.npz"), "--out", str(finished / "runs"), *FAST]
    assert main([*fixed, "--mode", "stu", "--setting", "ind", "--teacher", "sage"]) == 2
    assert "--mode tea --seed 0 --setting ind" in capsys.readouterr().err


def test_the_library_has_the_same_scores(finished: Path) -> None:
    from torch_geometric.data import Data

    with np.load(finished / "toy.npz") as arrays:
        data = Data(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    options = {"train": {"epochs": 4, "width": 8}}
    done = gnnkd.distill(data, student="gcn", method="kd", setting="ind", options=options, device="cpu", quiet=True)
    result = _result(finished, "gcn/kd")
    names = [name for name in result if name.endswith(("_acc", "_tran", "_ind", "_cold"))]
    assert len(names) == 9
    assert done.scores == {name: result[name] for name in names}
    assert (done.test_acc, done.val_acc) == (result["test_acc"], result["val_acc"])
    assert done.teacher_test_acc == result["teacher_test_acc"]
