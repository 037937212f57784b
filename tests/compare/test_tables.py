"""Tables of rows made by hand: every number is what its head says, and every cell without one says why."""

from __future__ import annotations

import csv
import io
import re
import statistics
from typing import Any

import pytest
from rich.console import Console

from gnnkd.compare import grids, tables
from gnnkd.compare.sections import sections

Rows = list[dict[str, Any]]


@pytest.fixture(name="rows")
def _rows(lines: Any) -> Rows:
    found: Rows = lines.comparison()
    return found


def _body(rows: Rows) -> dict[str, tuple[Any, ...]]:
    (section,) = sections(rows, "glnn")
    return {row[0].text: row[1:] for row in grids.accuracy(section).body}


def test_a_cell_is_mean_spread_and_number_of_seeds(rows: Rows) -> None:
    values = [100 * row["test_acc"] for row in rows if (row["label"], row["dataset"]) == ("up", "cora")]
    want = f"{statistics.fmean(values):.2f} +- {statistics.stdev(values):.2f} (6)"
    assert _body(rows)["up"][0].text == want


def test_fewer_seeds_than_asked_show_with_their_reason(rows: Rows) -> None:
    (section,) = sections(rows, "glnn")
    grid = grids.accuracy(section)
    item = _body(rows)["odd_50%"][0]
    assert item.text.endswith("(5 of 6)")
    assert [grid.notes[n - 1] for n in item.notes] == ["failed: killed by signal 9 (seed 0)"]
    none = _body(rows)["no"]
    assert [item.text for item in none] == ["cannot run", "cannot run"]
    assert {grid.notes[n - 1] for item in none for n in item.notes} == {"cannot run: no teaches <images> & 50% |x|"}


def test_what_a_method_needs_beside_the_others_stands_below_its_table(lines: Any) -> None:
    rows = [lines.line("cora", label, seed) for label in ("teacher", "glnn", "cpf") for seed in range(3)]
    (section,) = sections(rows, "glnn")
    assert grids.accuracy(section).notes == ()  # all students need features alone, and a teacher's needs are known
    for row in rows:
        row["needs"] = ["features", "edges", "known labels"] if row["label"] == "cpf" else row["needs"]
    (section,) = sections(rows, "glnn")
    grid = grids.accuracy(section)
    said = {row[0].text: [grid.notes[n - 1] for n in row[0].notes] for row in grid.body}
    assert said == {
        "teacher (gcn)": ["A prediction needs features, edges."],
        "glnn": [],
        "cpf": ["A prediction needs features, edges, known labels."],
    }
    written = tables.markdown(rows, "glnn")
    assert "| cpf [2] |" in written
    assert "[2] A prediction needs features, edges, known labels." in written


def test_what_all_methods_need_is_said_too(lines: Any) -> None:
    rows = [lines.line("cora", label, 0) for label in ("glnn", "cpf")]
    for row in rows:
        row["needs"] = ["features", "edges", "known labels"]
    (section,) = sections(rows, "glnn")
    grid = grids.accuracy(section)
    assert grid.notes == ("A prediction needs features, edges, known labels.",)
    assert [row[0].notes for row in grid.body] == [(1,), (1,)]


def test_the_least_p_is_that_of_so_many_seeds(lines: Any) -> None:
    for seeds, said in ((1, "With 1 seed p cannot fall below 1."), (3, "With 3 seeds p cannot fall below 0.25.")):
        (section,) = sections([lines.line("cora", "glnn", seed) for seed in range(seeds)], "glnn")
        assert grids.accuracy(section).caption.endswith(said)


def test_best_and_marks_are_told_apart(rows: Rows) -> None:
    body = _body(rows)
    assert [label for label, row in body.items() if row[0].best] == ["up"]
    # Six seeds, all above: p is 2/64, and 4/64 after Holm over two data sets is not below .05.
    assert all(item.mark == "" for row in body.values() for item in row)


def test_a_difference_beyond_doubt_is_marked_by_its_direction(lines: Any) -> None:
    rows = lines.comparison(seeds=8)
    body = _body(rows)
    assert [item.mark for item in body["up"]] == [grids.UP] * 2
    assert [item.mark for item in body["odd_50%"]] == ["", ""]
    (section,) = sections(rows, "up")
    down = {row[0].text: row[1:] for row in grids.accuracy(section).body}
    assert [item.mark for item in down["glnn"]] == [grids.DOWN] * 2
    assert [item.mark for item in down["up"]] == ["", ""], "nothing is compared with itself"
    assert [item.mark for item in down["teacher (gcn)"]] == ["", ""]


def test_differences_are_listed_with_both_p(rows: Rows) -> None:
    (section,) = sections(rows, "glnn")
    body = {(row[0].text, row[1].text): [item.text for item in row[2:]] for row in grids.paired(section).body}
    gains = [5 * (1 + 0.1 * seed) for seed in range(6)]
    want = [f"{statistics.fmean(gains):+.2f} +- {statistics.stdev(gains):.2f}", "0.031", "0.062", "6/0/0", "6"]
    assert body["cora", "up"] == want
    assert set(body) == {(d, label) for d in ("cora", "cite_seer") for label in ("up", "odd_50%")}


def test_an_inductive_section_has_its_parts(lines: Any) -> None:
    parts = {"test_acc_tran": 0.9, "test_acc_ind": 0.8, "test_acc_cold": 0.7}
    rows = [lines.line("cora", label, s, setting="ind", **parts) for label in ("teacher", "glnn") for s in range(2)]
    (section,) = sections(rows, "glnn")
    grid = grids.parts(section)
    assert grid.head == ("data", "method", "prod", "tran", "ind", "cold")
    assert [item.text[:5] for item in grid.body[1]] == ["cora", "glnn", "80.00", "90.00", "80.00", "70.00"]
    assert "production" in grids.accuracy(section).title
    (tran,) = sections([lines.line("cora", "glnn", 0)], "glnn")
    assert not any("new nodes" in grid.title for grid in grids.grids(tran))


def test_measures_and_costs_have_their_columns(rows: Rows) -> None:
    (section,) = sections(rows, "glnn")
    measured, costs = grids.measures(section), grids.costs(section)
    teacher, student = (dict(zip(measured.head, row, strict=True)) for row in measured.body[:2])
    assert teacher["agreement"].text == ""
    assert student["agreement"].text == "90.00 +- 0.00"
    assert student["NLL"].text == f"0.725 +- {statistics.stdev([0.01 * s for s in range(6)]):.3f}"
    teacher, student = (dict(zip(costs.head, row, strict=True)) for row in costs.body[:2])
    assert (teacher["needs"].text, student["needs"].text) == ("features, edges", "features")
    assert (teacher["fetch 1"].text, student["fetch 1"].text) == ("3 / 4", "")
    assert student["stored numbers"].text == "", "not known of costs measured without it"
    assert (student["parameters"].text, student["MACs/node"].text, student["answer all"].text) == (
        "1,234",
        "1,000",
        "0.1 / 0.2",
    )


def test_stored_numbers_stand_beside_the_parameters(lines: Any) -> None:
    row = lines.line("cora", "glnn", 0)
    row["costs"]["n_stored"] = 176020
    (section,) = sections([row], "glnn")
    costs = grids.costs(section)
    assert costs.body[0][costs.head.index("stored numbers")].text == "176,020"


def test_teachers_and_students_have_sections_of_their_own(lines: Any) -> None:
    rows = [lines.line("cora", label, 0, teacher_model=t) for t in ("gcn", "sage") for label in ("teacher", "glnn")]
    rows.append(lines.line("cora", "glnn", 0, student_model="gcn"))
    found = sections(rows, "glnn")
    assert [(s.teacher, s.student) for s in found] == [("gcn", "mlp"), ("sage", "mlp"), ("gcn", "gcn")]
    assert all("teacher" in section.cells for section in found)
    text = list(csv.DictReader(io.StringIO(tables.csv(rows, "glnn"))))
    told = [row for row in text if row["label"] == "teacher" and row["metric"] == "test_acc"]
    assert [row["teacher"] for row in told] == ["gcn", "sage"], "each teacher once"


def test_markdown_has_as_many_columns_in_every_line(rows: Rows) -> None:
    text = tables.markdown(rows, "glnn")
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1
    assert re.search(r"\*\*\d+\.\d\d \+- \d\.\d\d \(6\)\*\*", text)
    assert "* [1] " in text


def test_csv_is_long_and_complete(rows: Rows) -> None:
    found = list(csv.DictReader(io.StringIO(tables.csv(rows, "glnn"))))
    by = {(row["dataset"], row["label"], row["metric"]): row for row in found}
    assert len(by) == len(found)
    values = [row["test_acc"] for row in rows if (row["label"], row["dataset"]) == ("up", "cora")]
    one = by["cora", "up", "test_acc"]
    assert float(one["mean"]) == statistics.fmean(values)
    assert float(one["std"]) == statistics.stdev(values)
    assert (one["n"], one["asked"], one["against"], one["wins"]) == ("6", "6", "glnn", "6")
    assert by["cora", "up", "nll"]["p"] == ""
    assert by["cora", "teacher", "fetch_ms_1_p95"]["mean"] == "4.0"
    gone = by["cora", "no", "test_acc"]
    assert (gone["n"], gone["mean"], gone["reason"]) == ("0", "", "cannot run: no teaches <images> & 50% |x|")
    assert not {"seed", "tuned"} & {row["metric"] for row in found}


def test_latex_is_escaped_and_balanced(rows: Rows) -> None:
    text = tables.latex(rows, "glnn")
    assert "\\usepackage" not in re.sub(r"^%.*$", "", text, flags=re.MULTILINE)
    assert r"odd\_50\%" in text
    assert r"no teaches $<$images$>$ \& 50\% \textbar{}x\textbar{}" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") > 4
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{tabular}")
    assert text.isascii()
    for name, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(name) - 1}
    bare = re.sub(r"\\[\\{}%&$#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("a_b & 5% #1 {x}", r"a\_b \& 5\% \#1 \{x\}"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("1 +- 2 < 3", r"1 $\pm$ 2 $<$ 3"),
        ("▲▼", r"$\uparrow$$\downarrow$"),
    ],
)
def test_escapes(said: str, written: str) -> None:
    assert tables.escaped(said) == written


def test_the_terminal_shows_names_as_they_are(lines: Any) -> None:
    """Square brackets are no markup."""
    rows = [lines.line("cora", "fitnet[red]", s) for s in range(2)] + [lines.line("cora", "glnn", s) for s in range(2)]
    rows += [lines.lost("cora", "no", s, "failed", "[bold] is not finite") for s in range(2)]
    console = Console(width=200, file=io.StringIO())
    console.print(tables.terminal(rows, "glnn"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "fitnet[red]" in text
    assert "[1] failed: [bold] is not finite" in text


def test_one_method_alone_is_not_the_best(lines: Any) -> None:
    rows = [lines.line("cora", label, 0) for label in ("teacher", "glnn")]
    (section,) = sections(rows, "krd")
    grid = grids.accuracy(section)
    assert not any(item.best for row in grid.body for item in row)
    assert "krd" not in grid.caption
    assert grids.paired(section).body == ()


def test_a_base_that_the_user_did_not_name_stands_in_the_row(lines: Any) -> None:
    """What `dgd` wraps depends on the student; `dgd(krd)` says it itself."""
    said = {"dgd": "kd", "dgd(krd)": "krd", "glnn": None}
    rows = [{**lines.line("cora", label, 0), "base": base} for label, base in said.items()]
    rows.append({**lines.lost("cora", "dgd:k=2", 0, "failed", "why"), "base": None})
    text = tables.markdown(rows, "glnn")
    for name in ("dgd (on kd)", "dgd(krd)", "glnn", "dgd:k=2"):
        assert f"| {name} | " in text
    assert "dgd(krd) (on" not in text
    assert "dgd (on kd)" in tables.latex(rows, "glnn")
