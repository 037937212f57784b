"""The cost curves: each work runs, finished points stay, what is too large is said; nothing asks how fast it is."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gnnkd.errors import UserError

SCRIPTS = Path(__file__).parents[1] / "scripts"
EDGES = 4000


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of scripts/ as a module, on one thread, that leaves the allocator of these tests alone."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    work = importlib.import_module("scale_work")
    monkeypatch.setattr(work, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(work, "COPIED", 1 << 16)
    yield importlib.import_module
    for name in ("bench_scale", "printed", "scale_report", "scale_work"):
        sys.modules.pop(name, None)


@pytest.fixture
def asked(script, monkeypatch, tmp_path):
    """The script's `main` with these flags, on a cache of the test's own."""

    def run(*flags: str) -> None:
        base = ("--cache", str(tmp_path), "--edges", str(EDGES), "--degree", "16", "--threads", "1", "--seconds", "0")
        monkeypatch.setattr(sys, "argv", ["bench_scale", *base, "--steps", "2", *flags])
        script("bench_scale").main()

    return run


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "scale.jsonl").read_text().splitlines()]


@pytest.fixture
def here(script, monkeypatch):
    """Points are measured in this process: a process each would take seconds to begin."""
    bench, work = script("bench_scale"), script("scale_work")

    class Done:
        returncode, stderr = 0, ""

        def __init__(self, said: str) -> None:
            asked = json.loads(said)
            self.stdout = json.dumps(work.measured(work.Point(**{**asked, "fanouts": tuple(asked["fanouts"])})))

    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **said: Done(said["input"]))
    return bench


def test_all_works_run_and_finished_ones_are_not_repeated(here, asked, tmp_path, capsys, monkeypatch) -> None:
    table, plots = tmp_path / "table.md", tmp_path / "plots"
    asked()
    found = records(tmp_path)
    assert [r["work"] for r in found] == list(here.WORKS)
    assert all(r["seconds"] > 0 and r["peak_bytes"] > 0 and r["repeats"] >= 1 for r in found)
    assert {r["work"] for r in found if r["floor_bytes"]} == {"sum-64", "sum-256", "gcn-step", "layerwise"}
    monkeypatch.setattr(here.subprocess, "run", lambda *_, **__: pytest.fail("measured again"))
    asked("--table", str(table), "--plots", str(plots), "--time", "processor")
    assert records(tmp_path) == found
    assert len(table.read_text().splitlines()) == 2 + len(found)
    assert {p.name for p in plots.iterdir()} == {"scale_time.png", "scale_memory.png"}
    asked_about = capsys.readouterr().out
    assert asked_about.count("ns an edge,") == len(found)


def test_a_point_has_a_process_of_its_own(asked, tmp_path) -> None:
    asked("--only", "sum-64")
    (found,) = records(tmp_path)
    assert found["peak_bytes"] > found["peak_before_bytes"] > 1e7
    assert found["settings"]["work"] == "sum-64"


def test_what_does_not_fit_is_skipped_with_the_estimate_and_asked_again(asked, here, tmp_path, capsys) -> None:
    asked("--only", "gcn-step", "--max-memory", "0.1")
    (found,) = records(tmp_path)
    assert "takes about 0.3 GB of memory; 0.1 GB may be taken" in found["skipped"]
    assert found["skipped"] in capsys.readouterr().out
    with (tmp_path / "scale.jsonl").open("a") as file:
        file.write('{"work": "gcn-')  # as an interrupted run leaves it
    asked("--only", "gcn-step")
    assert "seconds" in json.loads((tmp_path / "scale.jsonl").read_text().splitlines()[-1])


def test_a_failure_is_said_and_the_others_go_on(asked, here, tmp_path, monkeypatch) -> None:
    class Done:
        returncode, stdout, stderr = -9, "", ""

    monkeypatch.setattr(here.subprocess, "run", lambda *_, **__: Done())
    asked("--only", "sum-64,sum-256")
    assert [r["failed"] for r in records(tmp_path)] == ["killed by signal 9"] * 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--only", "sum-46"), "did you mean 'sum-64'"),
        (("--max-edges", "10"), "leaves none"),
        (("--steps", "0"), "--steps: '0' is no whole number from 1 on"),
        (("--edges", "1e4,abc"), "--edges: 'abc' is no number from 1 on"),
        (("--edges", "inf"), "--edges: 'inf' is no finite number"),
        (("--fanouts", "5,x,3"), "--fanouts: 'x' is no whole number from 1 on"),
        (("--fanouts", "5,3"), "--fanouts has 2 numbers; give one for each of three layers"),
        (("--max-memory", "-1"), "--max-memory: '-1' is no number from 0 on"),
        (("--seconds", "nan"), "--seconds: 'nan' is no number from 0 on"),
    ],
)
def test_mistakes(asked, flags, said) -> None:
    with pytest.raises(UserError, match=said):
        asked(*flags)


def test_the_floor_counts_each_edge(script) -> None:
    """Two nodes and three edges of 5 columns: 3 (index + weight + 5), 2 (pointer + 5), 4 bytes each."""
    assert script("scale_work").sums(2, 3, [5]) == 4 * (3 * 7 + 2 * 6)


@pytest.mark.parametrize("held", [3798761472, 3804377088])
def test_points_of_one_height_are_drawn(script, held) -> None:
    """Of these numbers of bytes, matplotlib's own limits are apart in their last bits alone, which divides by zero."""
    known = {"edges": EDGES, "floor_bytes": None, "seconds": 1.0, "processor_seconds": 1.0}
    known.update(peak_bytes=held, peak_before_bytes=held)
    figures = script("scale_report").draw(
        [{**known, "work": work} for work in script("scale_work").WORKS], processor=True
    )
    for figure in figures.values():
        figure.draw_without_rendering()
        for axes in figure.axes:
            (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
            assert left < EDGES / 1.1 < 1.1 * EDGES < right
            assert high > 1.2 * low


def test_the_share_of_an_epoch_is_what_the_steps_are_of_it(here, asked, tmp_path) -> None:
    asked("--only", "glnn-epoch,sage-epoch", "--rows", "10", "--batch-size", "5", "--fanouts", "2,2,2")
    shares = {r["work"]: r["share_measured"] for r in records(tmp_path)}
    nodes = EDGES // 16
    assert shares["glnn-epoch"] == pytest.approx(2 * 10 / nodes)
    assert shares["sage-epoch"] == pytest.approx(2 * 5 / (nodes // 10))
