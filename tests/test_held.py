"""One process at a time writes to a folder, whoever asks; the hold ends with the process that has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gnnkd.compare.__main__ import main as compare
from gnnkd.errors import UserError
from gnnkd.held import held
from gnnkd.main import main

fcntl = pytest.importorskip("fcntl", reason="Windows has no such holds")

HOLD = """
import sys
from pathlib import Path
from gnnkd.held import held
with held(Path(sys.argv[1]), what="trains"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other() -> Iterator[object]:
    """Starts a process that holds a folder until it is killed or told to end."""
    started: list[subprocess.Popen[str]] = []

    def hold(folder: Path) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        one = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=pipe, stdout=pipe, text=True)
        started.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == "held\n"
        return one

    yield hold
    for one in started:
        one.kill()
        one.communicate()


def test_a_held_folder_is_refused_and_a_killed_process_holds_nothing(other, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    one = other(folder)
    with pytest.raises(UserError, match=r"another process trains in .*run; wait"), held(folder, what="trains"):
        pytest.fail("it was held")
    assert folder.is_dir()
    one.kill()
    one.wait()
    with held(folder, what="trains"):
        (folder / "file").touch()
    with held(folder, what="trains"):  # again, by the same process
        pass
    assert [file.name for file in folder.iterdir()] == ["file"]


def test_a_folder_that_is_left_empty_goes(tmp_path: Path) -> None:
    with held(tmp_path / "run", what="trains"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), held(tmp_path / "file" / "run", what="trains"):
        pytest.fail("it was made")


@pytest.mark.parametrize("when", ["before it is opened", "before it is held"])
def test_a_folder_that_its_last_holder_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    folder, removed, really = tmp_path / "run", [], {"open": os.open, "flock": fcntl.flock}

    def first_without(name: str) -> object:
        def called(*args: object) -> object:
            if not removed:
                removed.append(folder.rmdir())
            return really[name](*args)

        return called

    of, name = (os, "open") if when == "before it is opened" else (fcntl, "flock")
    monkeypatch.setattr(of, name, first_without(name))
    with held(folder, what="trains"):
        assert folder.is_dir()
        with pytest.raises(UserError, match="another process"), held(folder, what="trains"):
            pytest.fail("it was held")
    assert removed == [None]


def test_a_disk_without_holds_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refused)
    with held(tmp_path / "run", what="trains"), held(tmp_path / "run", what="trains"):
        (tmp_path / "run" / "file").touch()


# -- commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """A command on a small graph."""
    rng, n = np.random.default_rng(0), 60
    y = np.arange(n) % 2
    ring = np.stack([np.arange(n), (np.arange(n) + 2) % n])
    masks = {f"{part}_mask": np.arange(n) // 20 == i for i, part in enumerate(("train", "val", "test"))}
    np.savez(tmp_path / "toy.npz", edge_index=ring, x=rng.normal(size=(n, 4)) + y[:, None], y=y, **masks)
    where = ["--dataset", str(tmp_path / "toy.npz"), "--out", str(tmp_path / "runs"), "--quiet"]
    return [*where, "--teacher", "gcn", "--set", "train.epochs=2"]


def test_two_trainings_of_one_place_are_one_too_many_and_reading_is_none(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "runs" / "toy" / "given-tran" / "gcn" / "teacher" / "seed0"
    with held(teacher, what="trains"):
        assert main([*base, "--method", "glnn"]) == 2
    assert f"another process trains in {teacher}" in capsys.readouterr().err
    assert main([*base, "--mode", "tea"]) == 0
    with held(teacher, what="trains"):
        assert main([*base, "--method", "glnn"]) == 0
        assert main([*base, "--mode", "tea", "--overwrite"]) == 2


def test_a_comparison_has_its_report_for_itself_and_a_held_cell_fails_with_the_reason(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, folder = tmp_path / "report", tmp_path / "runs" / "toy" / "given-tran" / "gcn" / "mlp" / "kd" / "seed0"
    command = [*base, "--methods", "mlp,kd", "--report", str(report), "--no-costs", "--jobs", "1"]
    with held(report, what="compares"):
        assert compare(command) == 2
    said = capsys.readouterr().err
    assert f"another process compares in {report}" in said
    assert "another --report" in said
    with held(folder, what="trains"):
        assert compare(command) == 1
    assert "another process trains in" in (report / "table.md").read_text()
    assert compare(command) == 0
    with held(folder, what="trains"), held(report, what="compares"):
        assert compare([*command, "--no-train"]) == 0
