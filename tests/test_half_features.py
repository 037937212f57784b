"""Features of float16 on the disk give what the same numbers as float32 in memory give, and are cast where needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gnnkd import batching
from gnnkd.data import mapped, synthetic
from gnnkd.data.dataset import NodeDataset
from gnnkd.data.features import row_normalised
from gnnkd.data.plan import Plan
from gnnkd.data.task import task
from gnnkd.main import main
from gnnkd.run import Config, resolve
from gnnkd.scores import of_network
from gnnkd.stages import train_student, train_teacher
from gnnkd.train.progress import Silent

PLAN = Plan(nodes=300, edges=1500, features=16, classes=3, communities=6, half=True)
BATCHES: dict[str, Any] = {"batch_size": 40, "fanouts": [3, 3], "layers": 2}


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> NodeDataset:
    folder = tmp_path_factory.mktemp("half") / "graph"
    synthetic.make(PLAN, folder)
    return mapped.read(folder)


def _config(model: str, student: str, method: str, **learner: Any) -> Config:
    groups = {"train": {"epochs": 2, "width": 8}, "teacher": BATCHES, "student": {"batch_size": 100, **learner}}
    return resolve("data", teacher_model=model, student_model=student, method=method, levels=(groups,))


@pytest.mark.parametrize("setting", ["tran", "ind"])
@pytest.mark.parametrize(
    ("model", "student", "method", "learner"),
    [
        ("sage", "mlp", "dgd", {}),
        ("gcn", "sage", "dgd", BATCHES | {"batch_size": 150}),
        ("gat", "mlp", "vqgraph", {"fanouts": [3]}),
    ],
)
def test_both_stages_are_those_of_the_same_numbers(
    half: NodeDataset, setting: str, model: str, student: str, method: str, learner: dict[str, Any]
) -> None:
    config, found = _config(model, student, method, **learner), []
    assert batching.casts_rows(config)
    for dataset in (half, half.in_full()):
        data = task(dataset, seed=0, setting=setting)
        taught = train_teacher(data, config, Silent())
        learnt = train_student(data, config, taught.logits, taught.bank, Silent())
        layerwise = batching.layerwise(config.student_train)
        found.append((taught, learnt, of_network(learnt.predictor.network, data, layerwise=layerwise)))
    assert (found[0][2], found[0][0].reached.best_score) == (found[1][2], found[1][0].reached.best_score)
    assert torch.equal(found[0][0].logits, found[1][0].logits)
    for one, other in zip(found[0][:2], found[1][:2], strict=True):
        for name, weight in one.predictor.network.state_dict().items():
            assert torch.equal(weight, other.predictor.network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("groups", "method", "wanted"),
    [
        ({"teacher": BATCHES, "student": {"batch_size": 40}}, "glnn", True),
        ({"teacher": BATCHES, "student": {"batch_size": 40, "fanouts": [3]}}, "krd", False),
        ({"teacher": BATCHES}, "glnn", False),
        ({"student": {"batch_size": 40}}, "glnn", False),
    ],
)
def test_they_stay_on_the_disk_where_no_stage_reads_all_at_once(groups: Any, method: str, wanted: bool) -> None:
    config = resolve("data", teacher_model="sage", student_model="mlp", method=method, levels=(groups,))
    assert batching.casts_rows(config) == wanted


def test_rows_are_normalised_in_full_precision() -> None:
    x = torch.rand(20, 3000).half()
    found = row_normalised(x, "x")
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, row_normalised(x.float(), "x"))


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., int]:
    synthetic.make(replace(PLAN, popular=False), tmp_path / "graph")
    fixed = ["--dataset", str(tmp_path / "graph" / mapped.CARD), "--out", str(tmp_path / "runs"), "--quiet"]
    fixed += ["--teacher", "sage", "--method", "glnn", "--device", "cpu", "--set", "train.epochs=2", "train.width=8"]
    return lambda *more: main([*fixed, *more])


def test_a_student_on_all_nodes_learns_from_a_teacher_on_batches(command: Callable[..., int], tmp_path: Path) -> None:
    """One command leaves the features as they are, the other one reads them in full: they are the same data."""
    sampled = ("teacher.batch_size=40", "teacher.fanouts=[3,3]")
    assert command(*sampled, "student.batch_size=40", "--mode", "tea") == 0
    assert command(*sampled, "--mode", "stu") == 0
    (result,) = tmp_path.glob("runs/*/*/sage/mlp/glnn/seed0/result.json")
    assert json.loads(result.read_text())["teacher_test_acc"] > 0
