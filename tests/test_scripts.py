"""The shell scripts over datasets: what is absent is skipped with a line, any other mistake ends them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ("--method", "glnn", "--set", "method.generators=false", "train.epochs=2", "train.width=8")
CHECK = "import importlib.metadata as m, importlib.util as u; print(u.find_spec('gnnkd').origin, m.version('ruff'))"


@pytest.fixture
def script(tmp_path):
    """Runs a script of scripts/ with the interpreter of these tests; its results lie in the test's own folder."""
    asked = subprocess.run([sys.executable, "-I", "-c", CHECK], capture_output=True, text=True, check=False)
    if str(ROOT / "gnnkd") not in asked.stdout or not Path(sys.prefix, "bin", "python").exists():
        pytest.skip("this checkout is not installed in an environment of its own, so a script would make one")

    def run(name: str, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "VIRTUAL_ENV": sys.prefix, "OUT": str(tmp_path), **variables}
        command = ["bash", str(ROOT / "scripts" / name), *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return run


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder in which nobody can make one")
def test_seven_skips_what_is_not_there_and_ends_with_a_table(script) -> None:
    done = script("run_seven.sh", *SMALL, DATASETS="digits cora", ROOT="/proc/nowhere")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (skipped,) = [line for line in lines if "skipped" in line]
    assert skipped.startswith("cora: skipped, dataset 'cora' is not in /proc/nowhere")
    assert done.stderr == ""
    table = [line.split() for line in lines if line.lstrip().startswith("digits ") and "seed" not in line]
    assert [row[2] for row in table[-2:]] == ["teacher", "glnn"]


def test_seven_ends_at_any_other_mistake(script) -> None:
    done = script("run_seven.sh", *SMALL, DATASETS="dijits digits")
    assert done.returncode == 2
    assert "did you mean 'digits'" in done.stderr
    assert "skipped" not in done.stdout


def test_one_dataset_teacher_then_student(script, tmp_path) -> None:
    out = ("--out", str(tmp_path))
    for name in ("run_teacher.sh", "run_student.sh"):
        done = script(name, "digits", *SMALL, *out)
        assert done.returncode == 0, done.stderr
        assert "digits cpf-tran gcn" in done.stdout
    assert script("run_student.sh").returncode == 2
