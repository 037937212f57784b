"""The same seed is the same run on images: equal bytes in every file of weights, wherever and whenever it is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnkd import distillers
from gnnkd.main import main

METHODS = sorted(distillers.image_methods())
NETWORKS = ["--teacher", "cnn_small", "--student", "cnn_small"]
SMALL = ["--quiet", "--device", "cpu", "--set", "train.epochs=2", "train.batch_size=32", "train.lr=0.02"]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr("gnnkd.images.results.draw", lambda *_, **__: None)


def _command(folder: Path, out: Path, method: str, *more: str) -> list[str]:
    return ["--dataset", str(folder), "--out", str(out), "--method", method, *NETWORKS, *SMALL, *more]


def _bytes(out: Path) -> dict[str, bytes]:
    """Content by place of what a run computed; clocks stand in the results only."""
    kinds = (".safetensors", ".jsonl")
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.suffix in kinds}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, folder: Path, method: str) -> None:
    one, two = tmp_path / "one", tmp_path / "some" / "where" / "else"
    assert main(_command(folder, one, method, "--seeds", "2")) == 0
    # Two commands, and the random state of the process elsewhere, make no difference; nor does the seed before.
    np.random.seed(5)
    torch.manual_seed(5)
    assert main(_command(folder, two, method, "--seed", "1", "--mode", "tea")) == 0
    assert main(_command(folder, two, method, "--seed", "1", "--mode", "stu")) == 0
    found, again = _bytes(one), _bytes(two)
    assert {Path(place).name for place in found} >= {"model.safetensors", "metrics.jsonl"}
    assert {place: content for place, content in found.items() if "seed1" in place} == again
    for place in again:
        other = place.replace("seed1", "seed0")
        assert found.get(other) != again[place]


def test_another_process_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    """Where sets and dictionaries of words would come in another order."""
    assert main(_command(folder, tmp_path / "here", "reviewkd")) == 0
    environment = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "gnnkd.main", *_command(folder, tmp_path / "there", "reviewkd")]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert _bytes(tmp_path / "here") == _bytes(tmp_path / "there")
