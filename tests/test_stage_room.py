"""What a stage takes is estimated near what it takes, and refused with the estimate before anything is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gnnkd import batching, stage_room
from gnnkd.data import room
from gnnkd.data.dataset import NodeDataset
from gnnkd.data.task import NodeTask, task
from gnnkd.errors import UserError
from gnnkd.graph.split import random
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.layerwise import Layerwise
from gnnkd.nn.tables import Tables
from gnnkd.run import Config, resolve
from gnnkd.stages import train_student, train_teacher
from gnnkd.train.progress import Silent

C = 10
ROOMY = 10**12
STEP = """
import json, sys, torch
from pathlib import Path
from gnnkd import nn
from gnnkd.graph.structure import Graph
torch.set_num_threads(1)
name, options, n, edges, features = json.load(sys.stdin)
draws = torch.Generator().manual_seed(0)
x, y = torch.randn(n, features, generator=draws), torch.randint(10, (n,), generator=draws)
graph = Graph.from_edge_index(torch.randint(n, (2, edges), generator=draws), n)
network = nn.MODELS[name](features, 10, **options)
optimizer = torch.optim.Adam(network.parameters())
said = lambda word: 1024 * int(Path("/proc/self/status").read_text().split(word + ":")[1].split()[0])
before = said("VmRSS")
for _ in range(2):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(x, graph).logits, y).backward()
    optimizer.step()
print(said("VmHWM") - before)  # getrusage would tell of the process that started this one, too
"""
"""Training steps in a process of their own, and the bytes by which it grew."""


def _task(n: int = 300, edges: int = 3000, features: int = 20, *, sparse: bool = False) -> NodeTask:
    draws = torch.Generator().manual_seed(0)
    x: Any = torch.randn(n, features, generator=draws)
    x = CSR.from_dense(x * (torch.rand(n, features, generator=draws) < 0.05)) if sparse else x
    y = torch.randint(C, (n,), generator=draws)
    graph = Graph.from_edge_index(torch.randint(n, (2, edges), generator=draws), n)
    return task(NodeDataset("toy", x, y, graph, tuple(range(C)), random(y, 0, (0.5, 0.2, 0.3))), seed=0)


def _config(model: str = "sage", learner: str = "mlp", **groups: Any) -> Config:
    levels = {"train": {"epochs": 1}, **groups}
    return resolve("data", teacher_model=model, student_model=learner, method="glnn", levels=(levels,))


SAMPLED = {"batch_size": 50, "fanouts": [3, 3], "layers": 2, "width": 8}


@pytest.mark.skipif(sys.platform != "linux", reason="how much a process has grown is told in /proc")
@pytest.mark.parametrize(("name", "layers"), [("gcn", 3), ("gat", 2)])
def test_the_estimate_on_all_nodes_is_within_twice_what_is_taken(name: str, layers: int) -> None:
    sizes, options = {"n": 10_000, "edges": 100_000, "features": 100}, {"layers": layers}
    options |= {} if name == "gat" else {"width": 256}
    said = json.dumps([name, options, *sizes.values()])
    done = subprocess.run([sys.executable, "-c", STEP], input=said, capture_output=True, text=True, check=True)
    data, config = _task(**sizes), _config(name, teacher=options)
    need = stage_room.memory(data, config, "teacher")
    # A network's first backward pass takes some for torch itself, however small the graph is.
    assert 0.5 <= need / (int(done.stdout) - 20e6) <= 2


def test_sparse_features_count_by_their_entries() -> None:
    dense, sparse = (
        stage_room.memory(_task(features=1000, sparse=sparse), _config(teacher={"width": 8}), "teacher")
        for sparse in (False, True)
    )
    assert dense > 4 * sparse


@pytest.mark.parametrize(
    ("model", "teacher", "way"),
    [
        ("sage", {}, r"set teacher\.batch_size and teacher\.fanouts, or give a narrower network"),
        ("mlp", {}, r"set teacher\.batch_size, or give a narrower network"),
        ("gcnii", {}, r"give a narrower network, or gcn, sage or gat with teacher\.batch_size"),
        ("sage", SAMPLED, r"give a smaller teacher\.batch_size, fewer teacher\.fanouts, or a narrower network"),
    ],
)
def test_a_stage_without_memory_is_refused(monkeypatch, model: str, teacher: dict[str, Any], way: str) -> None:
    data, config = _task(), _config(model, teacher=teacher)
    monkeypatch.setattr(room, "memory", lambda: 1000)
    with pytest.raises(UserError, match=rf"the teacher takes about .* of memory and 0\.0 GB are free; .*{way}"):
        train_teacher(data, config, Silent())
    with pytest.raises(UserError, match=r"the student takes about .* set student\.batch_size, or give"):
        train_student(data, config, torch.zeros(data.n_nodes, C), None, Silent())
    monkeypatch.setattr(room, "memory", lambda: None)
    stage_room.check(data, config, None, teacher=True, student=True)


def test_a_module_has_no_estimate(monkeypatch) -> None:
    monkeypatch.setattr(room, "memory", lambda: 1000)
    config = resolve("data", teacher_model=torch.nn.Linear(20, C), student_model=torch.nn.Linear(20, C), method="glnn")
    stage_room.check(_task(), config, None, teacher=True, student=True)


def test_a_disk_without_room_is_said_before_the_training(monkeypatch, tmp_path: Path) -> None:
    data, config = _task(), _config(teacher=SAMPLED)
    monkeypatch.setattr(room, "memory", lambda: ROOMY)
    monkeypatch.setattr(room, "disk", lambda _: 100)
    with pytest.raises(UserError, match=r"outputs take .* choose another --out, or data\.storage=float16"):
        stage_room.check(data, config, tmp_path, teacher=True, student=True)
    stage_room.check(data, config, None, teacher=True, student=True)  # outputs stay in memory
    monkeypatch.setattr(stage_room, "MEMORY", 100)
    between = stage_room.tables(data, config, "teacher")
    monkeypatch.setattr(room, "disk", lambda _: between)
    with pytest.raises(UserError, match="the teacher's outputs and what lies between its layers take"):
        stage_room.check(data, config, tmp_path, teacher=True, student=False)
    monkeypatch.setattr(room, "disk", lambda _: between - 1)
    with pytest.raises(UserError, match=r"the teacher's inference takes .* choose another TMPDIR$"):
        stage_room.check(data, config, None, teacher=True, student=False)
    monkeypatch.setattr(room, "disk", lambda _: 2 * between)
    stage_room.check(data, config, None, teacher=True, student=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")  # each process has its own
    with pytest.raises(UserError, match=r"the teacher's inference takes"):
        stage_room.check(data, config, None, teacher=True, student=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(room, "disk", lambda _: between - 1)
    student = _config("sage", "sage", student=SAMPLED)
    with pytest.raises(UserError, match=r"the student's inference takes .* choose another --out$"):
        stage_room.check(data, student, tmp_path, teacher=False, student=True)
    stage_room.check(data, config, tmp_path, teacher=False, student=True)  # a student of rows keeps nothing


def test_what_is_estimated_is_what_inference_asks_for(monkeypatch) -> None:
    """The budget is one, and the tables are those of the formula."""
    data, config, asked = _task(), _config(teacher=SAMPLED), []
    budget = batching.layerwise(config.teacher_train)
    assert isinstance(budget, Layerwise)
    assert budget.memory == batching.MEMORY == stage_room.MEMORY
    for free in (10**9, 10**12):
        monkeypatch.setattr(room, "memory", lambda free=free: free)
        assert batching.layerwise(config.teacher_train) == budget
    check = Tables.check
    monkeypatch.setattr(Tables, "check", lambda tables, peak: (asked.append(peak), check(tables, peak)))
    train_teacher(data, config, Silent())
    assert max(asked) == stage_room.tables(data, config, "teacher")


def test_files_of_inference_lie_beside_the_results(tmp_path: Path) -> None:
    found = batching.layerwise(_config(teacher=SAMPLED).teacher_train, tmp_path)
    assert found is not None
    assert found.folder == tmp_path
