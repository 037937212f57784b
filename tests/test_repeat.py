"""The same seed is the same run: equal bytes in every file of weights, wherever and whenever it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gnnkd import distillers
from gnnkd.main import main

METHODS = sorted(distillers.graph_methods())
TINY = ["--quiet", "--device", "cpu", "--set", "train.epochs=4", "train.width=8"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted partition with masks."""
    rng, n = np.random.default_rng(0), 120
    y = np.arange(n) % 3
    a, b = rng.integers(0, n, (2, 8 * n))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    words = rng.random((n, 30)) < np.where(np.arange(30) % 3 == y[:, None], 0.4, 0.05)
    masks = {f"{part}_mask": np.minimum(np.arange(n) // 30, 2) == i for i, part in enumerate(("train", "val", "test"))}
    file = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez(file, edge_index=np.stack([a, b])[:, near], x=words.astype(np.float32), y=y, **masks)
    return file


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr("gnnkd.results.draw", lambda *_, **__: None)


def _command(graph: Path, out: Path, method: str, *more: str) -> list[str]:
    student = "mlp" if distillers.graph_methods()[method].on_rows else "gcn"
    return ["--dataset", str(graph), "--out", str(out), "--method", method, "--student", student, *TINY, *more]


def _bytes(out: Path) -> dict[str, bytes]:
    """Content by place of what a run computed; clocks stand in the results only."""
    kinds = (".safetensors", ".jsonl")
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.suffix in kinds}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, graph: Path, method: str) -> None:
    one, two = tmp_path / "one", tmp_path / "some" / "where" / "else"
    assert main(_command(graph, one, method, "--seed", "3")) == 0
    # Two commands, and the random state of the process elsewhere, make no difference.
    np.random.seed(5)
    assert main(_command(graph, two, method, "--seed", "3", "--mode", "tea")) == 0
    assert main(_command(graph, two, method, "--seed", "3", "--mode", "stu")) == 0
    found = _bytes(one)
    assert {Path(place).name for place in found} >= {"model.safetensors", "outputs.safetensors"}
    assert found == _bytes(two)


@pytest.mark.parametrize("method", METHODS)
def test_another_seed_gives_other_weights(tmp_path: Path, graph: Path, method: str) -> None:
    assert main(_command(graph, tmp_path, method, "--seeds", "2")) == 0
    found = _bytes(tmp_path)
    pairs = [(place, place.replace("seed0", "seed1")) for place in found if "seed0" in place]
    assert len(pairs) == len(found) / 2
    assert all(found[one] != found[other] for one, other in pairs)


def test_a_seed_does_not_depend_on_the_seeds_before_it(tmp_path: Path, graph: Path) -> None:
    assert main(_command(graph, tmp_path / "both", "dgd", "--seeds", "2")) == 0
    assert main(_command(graph, tmp_path / "one", "dgd", "--seed", "1")) == 0
    both = {place: content for place, content in _bytes(tmp_path / "both").items() if "seed1" in place}
    assert both == _bytes(tmp_path / "one")


def test_another_process_gives_the_same_bytes(tmp_path: Path, graph: Path) -> None:
    """Where sets and dictionaries of words would come in another order."""
    assert main(_command(graph, tmp_path / "here", "dgd")) == 0
    environment = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "gnnkd.main", *_command(graph, tmp_path / "there", "dgd")]
    done = subprocess.run(argv, cwd=Path(__file__).parents[1], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert _bytes(tmp_path / "here") == _bytes(tmp_path / "there")
