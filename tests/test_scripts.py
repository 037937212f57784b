"""The shell scripts: what is absent is skipped with a line, any other mistake ends them; what long ones would run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from gnnkd.config import Request, parse
from gnnkd.distillers import image_methods

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


@pytest.fixture
def asked(tmp_path) -> Callable[..., tuple[list[Request], list[str]]]:
    """What a script would run: its calls of `gnnkd.main`, understood, and the last command; nothing is run."""
    record, python = tmp_path / "commands", tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$1" = -I ] && exit\nprintf "%s\\t" "$@" >>{record}\necho >>{record}\n')
    python.chmod(0o755)

    def read(name: str, *args: str, **variables: str) -> tuple[list[Request], list[str]]:
        env = {**os.environ, "VIRTUAL_ENV": str(tmp_path), "OUT": "there", **variables}
        subprocess.run(["bash", str(ROOT / "scripts" / name), *args], env=env, check=True)
        *calls, last = [line.split("\t")[:-1] for line in record.read_text().splitlines()]
        assert all(call[:2] == ["-m", "gnnkd.main"] for call in calls)
        return [parse(call[2:]) for call in calls], last

    return read


def test_the_ablation_has_a_cell_for_each_choice(asked) -> None:
    """18 cells that differ in what their tags say, and in nothing else."""
    calls, last = asked("ablate_gkdfd.sh", "--device", "cpu", SEEDS="2", RECIPE="prototype")
    assert last[:2] == ["scripts/ablation_table.py", "there"]
    assert [call.mode for call in calls] == ["tea", *["stu"] * 22]
    assert {(call.seeds, str(call.out), call.device, call.resume) for call in calls} == {((0, 1), "there", "cpu", True)}
    plain = [(call.config.method, call.tag, call.config.student_train.per_class) for call in calls[1:5]]
    assert plain == [
        (name, tag, size) for name in ("supervised", "kd") for tag, size in ((None, None), ("balanced", 8))
    ]
    cells = {call.tag: call.config for call in calls[5:]}
    wanted = product(("cosine", "euclidean", "both"), ("cac", "nocac"), ("graph", "dfd", "both"))
    assert set(cells) == {"-".join(choice) for choice in wanted}
    default = parse(["--dataset", "digits-images", "--method", "gkdfd", "--set", "method.recipe=prototype"]).config
    for tag, config in cells.items():
        metric, classes, terms = tag.split("-")
        without = {"graph": {"dfd_weight": 0}, "dfd": {"graph_weight": 0}, "both": {}}[terms]
        told = {"parts": metric, "cac": 0.5 if classes == "cac" else 1, **without}
        assert config.options == {**default.options, **told}, tag
        assert config.student_train == default.student_train
        assert (config.teacher_model, config.student_model) == ("cnn", "cnn_small")


def test_the_ablation_on_other_images(asked) -> None:
    calls, _ = asked("ablate_gkdfd.sh", "--teacher", "resnet56", "--student", "resnet20", DATASET="cifar100")
    found = {(call.config.dataset, call.config.teacher_model, call.config.student_model) for call in calls}
    assert found == {("cifar100", "resnet56", "resnet20")}


def test_every_method_of_images_is_run(asked) -> None:
    calls, last = asked("run_images.sh")
    assert last[:2] == ["scripts/image_tables.py", "there"]
    assert calls[0].mode == "tea"
    assert {call.config.method for call in calls[1:]} == set(image_methods())
    presets = {call.tag: call.config.options["recipe"] for call in calls if call.config.method == "gkdfd"}
    assert presets == {None: "paper", "kd": "paper+kd", "prototype": "prototype"}
    assert len({(call.config.method, call.tag) for call in calls[1:]}) == len(calls) - 1, "a place for each"
