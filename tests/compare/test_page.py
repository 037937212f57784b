"""The page stands alone, says what failed, and is the same for the same rows."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gnnkd.compare import page, pictures, plots
from gnnkd.compare.histories import band
from gnnkd.compare.sections import sections

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(html.parser.HTMLParser):
    """Ids, references and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.labels = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if named.get("id"):
            self.ids.append(str(named["id"]))
        if named.get("href"):
            self.targets.append(str(named["href"]))
        self.targets += [f"#{one}" for value in named.values() for one in re.findall(r"url\(#([^)]+)\)", value or "")]
        if tag == "svg":
            self.labels += named.get("role") == "img" and bool(named.get("aria-label"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def rows(lines: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lines.comparison(tmp_path_factory.mktemp("runs"), seeds=3)
    return found


@pytest.fixture(scope="module")
def text(rows: list[dict[str, Any]]) -> str:
    return page.page(rows, against="glnn", about={"Command": "python -m gnnkd.compare --methods '<all>'"})


def test_it_asks_for_nothing_from_elsewhere(text: str) -> None:
    assert "http" not in text
    assert "src=" not in text
    assert "<script" not in text
    assert "<link" not in text
    assert "@import" not in text
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert all(target.startswith("#") for target in reader.targets)
    assert {target[1:] for target in reader.targets} <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)


def test_every_picture_is_described(text: str) -> None:
    reader = Reader()
    reader.feed(text)
    assert reader.labels == text.count("<svg") == text.count("<figcaption>")
    # Accuracy, parameters, latency, learning; the imitation of two teachers and two students' biases.
    assert reader.labels == 8


def test_equal_rows_give_equal_bytes(rows: list[dict[str, Any]], text: str) -> None:
    again = page.page(rows, against="glnn", about={"Command": "python -m gnnkd.compare --methods '<all>'"})
    assert again == text


def test_it_says_what_was_compared_and_what_failed(text: str) -> None:
    for said in ("cora (cpf)", "gnnkd 0.1.0", "abc", "3: 0, 1, 2", "&#x27;&lt;all&gt;&#x27;", "Tuning</dt><dd>none"):
        assert said in text
    _, _, failed = text.partition("Runs without a number")
    assert "killed by signal 9" in failed
    assert "no teaches &lt;images&gt; &amp; 50% |x|" in failed
    assert "Gradients that generators imitate" in text
    assert text.count("±") > 20
    assert "+-" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


def test_a_commit_stands_beside_the_number_of_its_runs(lines: Any) -> None:
    rows = [lines.line("cora", "glnn", seed, commit="abc" if seed else None) for seed in range(3)]
    rows.append(lines.lost("cora", "glnn", 3, "missing", "not trained yet"))
    assert "<dt>Commit</dt><dd>not known (1 run), abc (2 runs)</dd>" in page.page(rows, against="glnn")
    assert "<dt>Commit</dt><dd>none</dd>" in page.page(rows[-1:], against="glnn"), "that of the page is nobody's"


def test_pictures_take_the_colour_of_the_text(text: str) -> None:
    assert pictures.INK not in text
    assert "currentColor" in text
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text
    pages = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert not any("fill: #ffffff" in one or "#000000" in one for one in pages), "no paper, no black on it"


def test_without_generators_no_word_of_them(lines: Any) -> None:
    rows = [lines.line("cora", label, s) for label in ("teacher", "glnn", "up") for s in range(2)]
    text = page.page(rows, against="glnn")
    assert "imitate" not in text
    assert "Runs without a number" not in text
    assert "Learning curves" not in text, "their files are gone"


def test_nothing_finished_is_a_page_too(lines: Any) -> None:
    rows = [lines.lost("cora", label, s, "failed", "no") for label in ("teacher", "glnn") for s in range(2)]
    text = page.page(rows, against="glnn")
    assert "Runs without a number" in text
    Reader().feed(text)


def test_the_budget_of_tuning_stands_in_the_head(lines: Any, tmp_path: Path) -> None:
    names = {"dataset": "cora", "setting": "tran", "teacher_model": "gcn", "student_model": "mlp", "label": "glnn"}
    done = {**names, "trials": 20, "failed": 1, "best": 0.8125, "settings": {"student": {"lr": 0.005}}}
    lacking = {**names, "label": "up", "why": "no finished teacher"}
    report = {"trials": 20, "seeds": [0, 1], "objective": "mean validation accuracy over", "studies": [done, lacking]}
    (tmp_path / "tuning.json").write_text(json.dumps(report))
    rows = [lines.line("cora", label, 0) for label in ("teacher", "glnn", "up")]
    assert "20 trials" not in page.write(rows, tmp_path, against="glnn").read_text(), "the file is of another call"
    rows = [{**row, "tuned": 20 if row["student_model"] else 0} for row in rows]
    text = page.write(rows, tmp_path, against="glnn").read_text()
    assert "20 trials for every method alike; objective: mean validation accuracy over 0, 1" in text
    assert "81.25" in text
    assert "{&quot;student&quot;: {&quot;lr&quot;: 0.005}}" in text
    assert "no finished teacher" in text


def test_a_band_ends_where_half_of_the_seeds_have_ended() -> None:
    short = [{"epoch": e, "val_acc": 0.5} for e in range(3)]
    long = [{"epoch": e, "val_acc": 0.7} for e in range(10)]
    found = band({0: short, 1: short, 2: long}, "val_acc")
    assert found is not None
    assert found.epochs == (0, 1, 2)
    assert found.mean == pytest.approx([1.7 / 3] * 3)
    wide = ((2 * (0.5 - 1.7 / 3) ** 2 + (0.7 - 1.7 / 3) ** 2) / 2) ** 0.5
    assert [m - low for m, low in zip(found.mean, found.low, strict=True)] == pytest.approx([wide] * 3)
    two = band({0: short, 1: long}, "val_acc")
    assert two is not None
    assert two.epochs[-1] == 9
    assert band({0: short}, "bias/x") is None


def test_colours_and_marks_tell_many_methods_apart(lines: Any) -> None:
    rows = [lines.line("cora", label, 0) for label in ("teacher", *(f"m{i}" for i in range(24)))]
    (section,) = sections(rows, "m0")
    styles = [plots._style(section, label) for label in section.cells]
    assert len({(style["color"], style["marker"]) for style in styles}) == 25
    assert len({(style["color"], style["linestyle"]) for style in styles}) == 25


def test_marks_of_one_place_stand_side_by_side(lines: Any) -> None:
    for log, places in ((False, [1000.0, 1000.0, 1001.0, 4000.0]), (True, [1e3, 1e3, 1e3, 1e6])):
        found = plots._apart(places, log=log)
        assert len(set(found)) == 4
        assert found == sorted(found)
        assert found[3] == pytest.approx(places[3])
        assert found[1] == pytest.approx(1000, rel=1e-3)
    assert plots._apart([5.0], log=False) == [5.0]
    rows = [lines.line("cora", label, 0) | {"commit": label} for label in ("teacher", "a", "b")]
    assert "<dt>Commit</dt><dd>teacher (1 run), a (1 run), b (1 run)</dd>" in page.page(rows, against="a")
