"""The cells of a comparison: places and configurations are those of the main command."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gnnkd import config, distillers
from gnnkd.compare.cells import Cell, cells, impossible
from gnnkd.compare.command import parse
from gnnkd.compare.comparison import Comparison
from gnnkd.errors import UserError
from gnnkd.places import Branch


def _comparison(*argv: str) -> Comparison:
    return parse(["--device", "cpu", *argv])


def _cell(comparison: Comparison, label: str, seed: int = 0, student: str = "mlp") -> Cell:
    of = (student if label != "teacher" else None, label, seed)
    return next(cell for cell in cells(comparison) if (cell.student_model, cell.label, cell.seed) == of)


def test_every_combination_is_a_cell_once_and_teachers_come_first() -> None:
    words = ("--dataset", "digits", "cora", "--setting", "tran,ind", "--teacher", "gcn,sage", "--students", "mlp,gcn")
    found = cells(_comparison(*words, "--methods", "mlp,glnn,kd", "--seeds", "3"))
    assert len(found) == 2 * 2 * 2 * 3 * (1 + 3 + 2)  # the word mlp concerns the student mlp
    assert len({cell.key for cell in found}) == len(found)
    where = {cell.key: i for i, cell in enumerate(found)}
    assert all(where[cell.teacher_key] < where[cell.key] for cell in found if cell.entry)


@pytest.mark.parametrize(
    ("label", "argv"),
    [
        ("mlp", ["--method", "supervised"]),
        ("glnn:label_weight=0.2", ["--method", "glnn", "--set", "method.label_weight=0.2"]),
        ("glnn:student.lr=0.1", ["--method", "glnn", "--set", "student.lr=0.1"]),
        ("dgd", ["--method", "dgd", "--set", "method.buckets=64"]),
        ("dgd(kd)", ["--method", "dgd", "--set", "method.buckets=64", "method.base=kd"]),
    ],
)
def test_a_cell_is_what_the_main_command_makes_of_it(label: str, argv: list[str]) -> None:
    shared = ["--dataset", "digits", "--split", "cpf", "--setting", "ind", "--set", "train.epochs=7", "teacher.width=8"]
    every = "mlp,glnn:label_weight=0.2,glnn:student.lr=0.1,dgd,dgd(kd)"
    comparison = _comparison(*shared, "method.buckets=64", "--methods", every)
    mine: Any = _cell(comparison, label).plan()
    main: Any = config.parse([*shared, *argv]).config
    for name in ("method", "base", "base_given", "options", "student", "student_train", "data", "student_network"):
        assert getattr(mine, name) == getattr(main, name), name
    taught: Any = _cell(comparison, "teacher").plan()
    generated: Any = config.parse([*shared, "--method", "dgd", "--set", "method.buckets=64"]).config
    for name in ("teacher", "teacher_train", "teacher_network", "generators"):
        assert getattr(taught, name) == getattr(generated, name), name


def test_places_are_those_of_the_main_command() -> None:
    comparison = _comparison("--methods", "glnn", "dgd(kd):beta=.5")
    branch = Branch.of(Path("runs"), "digits", "cpf", "tran", "gcn")
    teacher = branch.teacher(0)
    assert _cell(comparison, "teacher").place(Path("runs"), "digits", "cpf") == teacher
    assert _cell(comparison, "glnn").place(Path("runs"), "digits", "cpf") == branch.student(0, "mlp", "glnn", teacher)
    found = _cell(comparison, "dgd(kd):beta=.5").place(Path("runs"), "digits", "cpf")
    assert found == branch.student(0, "mlp", "dgd", teacher, base="kd", tag="beta-0.5")


def test_generators_learn_beside_a_teacher_only_where_they_are_read() -> None:
    assert not _cell(_comparison("--methods", "glnn,kd"), "teacher").generators
    without: Any = _cell(_comparison("--methods", "glnn,kd"), "teacher").plan()
    assert without.generators is None
    assert not _cell(_comparison("--methods", "glnn,dgd:beta=0"), "teacher").generators
    wanted: Any = _cell(_comparison("--methods", "glnn,dgd:preset=paper"), "teacher").plan()
    assert wanted.generators.preset == "paper"
    with pytest.raises(UserError, match="dgd and dgd:preset=paper want different generators"):
        _comparison("--methods", "dgd,dgd:preset=paper")
    with pytest.raises(UserError, match=r"method\.generators is false"):
        _comparison("--methods", "dgd", "--set", "method.generators=false")


def test_an_option_of_a_method_reaches_those_that_have_it() -> None:
    comparison = _comparison("--methods", "glnn,kd,mlp", "--set", "method.label_weight=0.3")
    assert _cell(comparison, "glnn").config().options["label_weight"] == 0.3
    assert all("label_weight" not in _cell(comparison, label).config().options for label in ("kd", "mlp"))
    with pytest.raises(UserError, match=r"unknown option 'method\.label_wait'.*did you mean 'method\.label_weight'"):
        _comparison("--methods", "glnn", "--set", "method.label_wait=1")


def test_what_a_search_found_is_beside_what_was_said_and_has_a_place_of_its_own() -> None:
    comparison = _comparison("--methods", "glnn:label_weight=0.2", "--tune", "5")
    plain = _cell(comparison, "glnn:label_weight=0.2")
    assert (plain.tuned, plain.tag) == (0, "label_weight-0.2")
    found = _cell(replace(comparison, found={plain.configuration: {"student": {"lr": 0.25}}}), plain.label)
    assert found.tag == "label_weight-0.2+tuned5"
    assert found.config().student_train.lr == 0.25
    assert found.config().options["label_weight"] == 0.2


def test_what_can_never_be_run_is_told_from_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillers.graph_methods()["glnn"], "on_graphs", False)
    comparison = _comparison("--methods", "glnn,kd,dgd(glnn)", "--students", "mlp,gcn")
    for label in ("glnn", "dgd(glnn)"):
        assert "glnn teaches students that look at rows alone" in (impossible(_cell(comparison, label, 0, "gcn")) or "")
        assert impossible(_cell(comparison, label)) is None
    assert impossible(_cell(comparison, "kd", 0, "gcn")) is None
    with pytest.raises(UserError, match=r"unknown option 'student\.widht'"):
        _comparison("--methods", "glnn", "--set", "student.widht=3")


@pytest.mark.parametrize(
    ("argv", "label", "reason"),
    [
        (["--students", "sgc"], "fitnet", "fitnet compares hidden rows, and sgc"),
        (["--students", "sgc"], "dgd(fitnet)", "fitnet compares hidden rows, and sgc"),
        (["--set", "student.layers=1"], "sp", r"sp compares hidden rows, and mlp .* use student\.layers=2"),
        (["--set", "student.batch_size=20"], "nosmog", "nosmog needs all nodes at once"),
        (["--set", "student.batch_size=20"], "krd", r"krd learns on more .* as student\.fanouts=\[10\]"),
        (["--students", "tag", "--set", "student.batch_size=20"], "kd", "tag cannot be asked about some nodes"),
        (["--students", "gcn", "--set", "student.norm=layer"], "dgd(kd)", "zero behind layer norms"),
    ],
)
def test_what_cannot_go_together_is_no_mistake_of_the_others(argv: list[str], label: str, reason: str) -> None:
    student = argv[1] if argv[0] == "--students" else "mlp"
    sampled = ["krd:student.fanouts=[10]"] if "student.batch_size=20" in argv and student == "mlp" else []
    comparison = _comparison("--methods", label, "supervised", *sampled, *argv)
    assert re.search(reason, comparison.cannot(_cell(comparison, label, 0, student)) or "")
    if student != "tag":
        assert comparison.cannot(_cell(comparison, "supervised", 0, student)) is None
    for word in sampled:
        assert comparison.cannot(_cell(comparison, word)) is None


def test_a_dataset_is_itself_however_it_is_spelt() -> None:
    found = _comparison("--dataset", "Digits", "digits", "Amazon_Photo", "./Toy.npz").datasets
    assert found == ("digits", "amazon-photo", "./Toy.npz")
    with pytest.raises(UserError, match="digits and digits-graph are one graph"):
        _comparison("--dataset", "digits", "digits_graph")


def test_an_option_that_a_method_does_not_read_is_refused() -> None:
    for word in ("glnn:buckets=8", "kd:beta1=.5", "glnn:generators=true"):
        with pytest.raises(UserError, match=r"unknown option of (glnn|kd): '\w+'; allowed: "):
            _comparison("--methods", f"dgd,{word}")
    assert _comparison("--methods", "dgd:buckets=8").entries["mlp"][0].options == {"buckets": 8}
