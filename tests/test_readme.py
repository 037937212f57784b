"""What the README tells people to type exists."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import gnnkd
from gnnkd import yaml_file
from gnnkd.config import parse
from gnnkd.ktg.spec import Spec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
RUNS = [line for line in COMMANDS if line.startswith("python -m gnnkd.main")]


def test_the_readme_has_commands() -> None:
    assert len(RUNS) >= 5


@pytest.mark.parametrize("line", RUNS)
def test_every_run_in_the_readme_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the files that some of them name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    np.save("teacher.npy", np.zeros((4, 2)))
    parse(shlex.split(line, comments=True)[3:])


def test_the_library_calls_in_the_readme_have_arguments_that_exist() -> None:
    calls = [
        node
        for kind, block in BLOCKS
        if kind == "python"
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    ours = [call for call in calls if call.func.attr in ("distill", "load")]
    assert len(ours) >= 5
    for call in ours:
        inspect.signature(getattr(gnnkd, call.func.attr)).bind(*call.args, **{k.arg: k.value for k in call.keywords})


def test_the_scripts_in_the_readme_exist_and_can_run() -> None:
    scripts = re.findall(r"^bash (\S+)", "\n".join(COMMANDS), flags=re.MULTILINE)
    assert set(scripts) == {f"scripts/{name}.sh" for name in ("quickstart", "test", "run_seven", "run_teacher")}
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_links_within_the_repository_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_yaml_in_the_readme_is_a_configuration_and_a_graph(tmp_path: Path) -> None:
    block, graph = [block for kind, block in BLOCKS if kind == "yaml"]
    assert Spec.of(yaml_file.value(graph, "README")).lack() is None
    file = tmp_path / "run.yml"
    file.write_text(block, encoding="utf-8")
    config = parse(["--config", str(file)]).config
    assert (config.method, config.base, config.student["width"], config.teacher_train.lr) == ("dgd", "kd", 128, 0.005)
