"""`torchrun` on a graph: both stages are shared by two processes, or refused before anything is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnkd import processes
from gnnkd.main import main

ROOT = Path(__file__).parents[1]
OPTIONS = ["train.epochs=2", "teacher.width=8", "teacher.layers=2", "student.width=8"]
TEACHER, STUDENT = ["teacher.batch_size=8", "teacher.fanouts=[2,2]"], ["student.batch_size=16"]


def _command(folder: Path, *batches: str) -> list[str]:
    """A ring of two classes, a SAGE teacher and DGD on an MLP."""
    file, rng, n = folder / "toy.npz", np.random.default_rng(0), 60
    y = np.arange(n) % 2
    masks = {f"{part}_mask": np.arange(n) // 20 == i for i, part in enumerate(("train", "val", "test"))}
    ring = np.stack([np.arange(n), (np.arange(n) + 2) % n])
    np.savez(file, edge_index=ring, x=rng.normal(size=(n, 4)) + y[:, None], y=y, **masks)
    words = ["--dataset", str(file), "--out", str(folder / "runs"), "--teacher", "sage", "--device", "cpu"]
    return [*words, "--set", *OPTIONS, *batches]


def _fails(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    return capsys.readouterr().err.splitlines()[-1]


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def test_two_processes_share_both_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = _command(tmp_path, *TEACHER, *STUDENT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "gnnkd.main", *argv]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test ") == 2, "one process speaks"
    results = [*(tmp_path / "runs").rglob("result.json")]
    assert len(results) == 2
    for file in results:
        assert _json(file)["processes"] == _json(file)["config"]["processes"] == 2
        assert (file.parent / "model.safetensors").exists()
        assert not (file.parent / "checkpoint.safetensors").exists()
    assert len([*(tmp_path / "runs").rglob("generators.safetensors")]) == 1
    assert not [*(tmp_path / "runs").rglob(".*")], "no drafts of files are left"

    line = _fails(capsys, argv)
    assert "processes is 2 there and null here" in line, "what one process makes is another result"
    assert main([*argv, "--mode", "stu", "--tag", "alone"]) == 0, "one process learns from what two have taught"
    alone = tmp_path / "runs" / "toy" / "given-tran" / "sage" / "mlp" / "dgd@alone" / "seed0" / "config.json"
    assert "processes" not in _json(alone)
    assert _json(alone)["teacher"]["processes"] == 2


def test_a_student_on_all_nodes_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    line = _fails(capsys, _command(tmp_path, *TEACHER))
    assert "cannot share the student's training" in line
    assert "without torchrun" in line
    assert "student.batch_size" in line
    assert "must be at least 4" in _fails(capsys, _command(tmp_path, *TEACHER, "student.batch_size=3"))
    assert not (tmp_path / "runs").exists()


def test_a_teacher_on_all_nodes_is_refused_unless_it_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = _command(tmp_path, *STUDENT)
    with monkeypatch.context() as several:
        several.setenv("LOCAL_RANK", "0")
        several.setattr(processes, "world", lambda: 2)
        several.setattr(processes, "any_of", lambda flag: flag)
        line = _fails(capsys, argv)
        assert "cannot share the teacher's training" in line
        assert "teacher.batch_size" in line
        assert not [*(tmp_path / "runs").rglob("config.json")]
    assert main([*argv, "--mode", "tea"]) == 0
    with monkeypatch.context() as several:
        several.setenv("LOCAL_RANK", "0")
        several.setattr(processes, "world", lambda: 2)
        several.setattr(processes, "any_of", lambda flag: flag)
        assert main([*argv, "--mode", "tea"]) == 0
        assert "reused" in capsys.readouterr().out
        assert "the teacher's training" in _fails(capsys, [*argv, "--overwrite"])
