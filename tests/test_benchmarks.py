"""The benchmarks run, on graphs too small to measure anything: nothing here asks how fast something is."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gnnkd.data.graphs import load, task
from gnnkd.run import resolve

SCRIPTS = Path(__file__).parents[1] / "scripts"
TINY = {"cora": (100, 400, 0.0), "photo": (120, 900, 0.0)}
WORDS = {"cora": (30, 0.05, 3), "photo": (12, 0.4, 4)}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of scripts/ as a module, on small graphs and one thread."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    graphs = importlib.import_module("sample_graphs")
    monkeypatch.setattr(graphs, "SIZES", TINY)
    monkeypatch.setattr(graphs, "FEATURES", WORDS)
    yield importlib.import_module
    for name in ("bench_kernels", "bench_step", "bench_cell", "printed", "sample_graphs", "step_work", "timing"):
        sys.modules.pop(name, None)


def run(module: Any, monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *args])
    module.main()


def tables(text: str) -> list[list[str]]:
    """Rows of the printed tables."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|") and "---" not in line]


def test_kernels_and_attention(script, monkeypatch, capsys) -> None:
    args = ("--sizes", "cora,photo", "--repeats", "1", "--features", "8", "--sections", "kernels,attention")
    run(script("bench_kernels"), monkeypatch, *args)
    rows = tables(capsys.readouterr().out)
    ratios = {(row[0], row[1]): row[3] for row in rows}
    assert ratios["random, size of photo", "gnnkd"] == "1"
    assert float(ratios["random, size of photo", "PyG GATConv"]) > 0


def test_steps(script, monkeypatch, capsys) -> None:
    run(script("bench_step"), monkeypatch, "--sizes", "cora", "--repeats", "1")
    assert len(tables(capsys.readouterr().out)) > 6


def test_the_plain_loop_of_a_cell_does_what_ours_does(script) -> None:
    """The same settings, and about the same accuracy: on two seeds of digits both teach a student."""
    cell = script("bench_cell")
    level = {"method": {"generators": False}, "train": {"epochs": 40}}
    config = resolve("digits", split="cpf", method="glnn", levels=(level,))
    data = task(load("digits"), protocol="cpf", seed=0)
    (seconds, ours), (plain_seconds, plain) = cell.ours(data, config), cell.plain(data, config)
    assert set(seconds) == set(plain_seconds) == {"teacher", "student"}
    assert abs(ours - plain) < 0.03
    assert plain > 0.9
