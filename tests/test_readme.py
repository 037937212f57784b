"""What the README tells people to type exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import gnnkd
from gnnkd import distillers, yaml_file
from gnnkd.compare import latency, measures, tuning_study
from gnnkd.compare.command import LISTS, NUMBERS, SWITCHES, WORDS
from gnnkd.compare.command import parse as comparison_of
from gnnkd.compare.rows import COSTS, FAILURES
from gnnkd.compare.tuning import DATABASE, REPORT
from gnnkd.compare.writing import LINES, PAGE, TABLES
from gnnkd.config import parse
from gnnkd.ktg.spec import Spec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
RUNS = [line for line in COMMANDS if line.startswith("python -m gnnkd.main")]
COMPARE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
COMPARISONS = [line for line in f"{README}\n{COMPARE}".splitlines() if line.startswith("python -m gnnkd.compare")]


def test_the_readme_has_commands() -> None:
    assert len(RUNS) >= 5


@pytest.mark.parametrize("line", RUNS)
def test_every_run_in_the_readme_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the files that some of them name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    np.save("teacher.npy", np.zeros((4, 2)))
    parse(shlex.split(line, comments=True)[3:])


@pytest.mark.parametrize("line", COMPARISONS)
def test_every_comparison_in_the_readme_and_its_page_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[3:]
    found = comparison_of(words)
    assert found.command == shlex.join(["python", "-m", "gnnkd.compare", *words])


def test_the_readme_lists_the_methods_as_their_classes_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("method_table")
    sys.modules.pop("method_table")
    assert script.written(README) == README, "write it anew with: python scripts/method_table.py"
    for name in distillers.graph_methods():
        assert README.count(f"\n| `{name}` | ") == 1


def test_the_page_of_comparisons_names_every_flag_and_file() -> None:
    flags = {f"--{name}" for name in (*LISTS, *WORDS, *NUMBERS, *SWITCHES)} - {"--resume"}
    assert {flag for flag in flags if flag not in COMPARE.replace("--no-", "--no_")} == set()
    for file in (LINES, PAGE, *TABLES, COSTS, FAILURES, DATABASE, REPORT):
        assert f"`{file}`" in COMPARE


def test_numbers_on_the_page_of_comparisons_are_those_in_the_code() -> None:
    said = (
        f"b {measures.BINS} bins",
        f"s = {', '.join(f'{s:g}' for s in measures.NOISES).replace('0.', '.')} |",
        f"share p = {', '.join(f'{p:g}' for p in measures.LOST).replace('0.', '.')} of",
        f"{latency.MOST}, or fewer where {latency.SECONDS:g} seconds for a configuration are used up, but "
        f"{latency.LEAST} at least",
        f"rounds of {tuning_study.ROUND} that",
        f"for {', '.join(map(str, latency.SIZES[:-1]))} and {latency.SIZES[-1]} rows",
    )
    plain = " ".join(COMPARE.split())
    assert [words for words in said if words not in plain] == []


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
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []
    heads = {re.sub(r"[^\w-]", "", head.lower().replace(" ", "-")) for head in re.findall(r"^#+ (.+)$", README, re.M)}
    assert set(re.findall(r"\]\([^)]*#([^)]+)\)", README + COMPARE)) <= heads


def test_the_yaml_in_the_readme_is_a_configuration_and_a_graph(tmp_path: Path) -> None:
    block, graph = [block for kind, block in BLOCKS if kind == "yaml"]
    assert Spec.of(yaml_file.value(graph, "README")).lack() is None
    file = tmp_path / "run.yml"
    file.write_text(block, encoding="utf-8")
    config = parse(["--config", str(file)]).config
    assert (config.method, config.base, config.student["width"], config.teacher_train.lr) == ("dgd", "kd", 128, 0.005)
