"""The files of experiments/ on graphs: each runs as its head says, and methods of a cell differ in the method alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gnnkd.config import Request, parse

ROOT = Path(__file__).parents[1]
ELSEWHERE = ("cifar100", "imagenet", "together")
"""Folders that tests/test_image_experiments.py and tests/ktg/test_experiments.py are about."""
FILES = sorted(
    file
    for file in (ROOT / "experiments").rglob("*.yaml")
    if file.relative_to(ROOT / "experiments").parts[0] not in ELSEWHERE
)
GKDFD = {(dataset, f"gcn-{student}") for dataset in ("cora", "citeseer", "amazon-photo") for student in ("mlp", "gcn")}
"""Cells in sizes for a CPU that have a file for GK-DFD, too."""
SEVEN = {"cora", "citeseer", "pubmed", "amazon-photo", "coauthor-physics", "ogbn-arxiv", "ogbn-products"}


def read(file: Path) -> Request:
    return parse(["--config", str(file)])


def cells() -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for file in FILES:
        found.setdefault(file.parent, []).append(file)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "experiments")))
def test_a_file_is_what_its_name_says_and_its_head_tells_how_to_run_it(file: Path) -> None:
    head = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    assert head[0] == f"python -m gnnkd.main --config {file.relative_to(ROOT)} --seeds 10"
    for word in ("Expected: ", "Seeds: ", "Runtime: "):
        assert word in " ".join(head)
    request, names = read(file), file.parent.name
    config = request.config
    assert f"{config.teacher_model}-{config.student_model}" == names
    assert (config.method, config.dataset) == (file.stem, file.parent.parent.name)
    assert request.tag, "an experiment does not stand in the way of others"


@pytest.mark.parametrize("kind", ["", "cpu"])
def test_the_seven_datasets_have_a_cell_for_each_method(kind: str) -> None:
    folder = ROOT / "experiments" / kind
    found = {cell: files for cell, files in cells().items() if cell.parents[1] == folder}
    assert {cell.parent.name for cell in found} == SEVEN
    assert {cell.parent.name for cell in found if cell.name == "gcn-mlp"} == SEVEN
    for cell, files in found.items():
        more = {"gkdfd"} if kind == "cpu" and (cell.parent.name, cell.name) in GKDFD else set()
        assert {file.stem for file in files} == {"kd", "glnn", "dgd"} | more, cell


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: str(cell.relative_to(ROOT / "experiments")))
def test_methods_share_teacher_and_student_settings(cell: Path) -> None:
    configs = [read(file).config for file in cells()[cell]]
    for part in ("split", "teacher", "teacher_train", "student", "student_train", "generators", "data"):
        values = [getattr(config, part) for config in configs]
        assert all(value == values[0] for value in values), part


def test_expected_numbers_carry_seeds_and_spread() -> None:
    for file in FILES:
        (said,) = re.findall(r"Expected: (.*)", file.read_text(encoding="utf-8"))
        assert said.startswith("not ") or re.search(r"\d+\.\d\d \+- \d+\.\d\d % \(seeds 0-\d+\)", said), file
