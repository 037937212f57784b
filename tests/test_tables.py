"""The tables of finished runs: every number is what its head says, and pairs are of the same seed."""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
METRIC = {"cosine": 0.0, "euclidean": 0.01, "both": 0.03}
CLASSES = {"cac": 0.005, "nocac": 0.0}
TERMS = {"graph": 0.0, "dfd": -0.02, "both": 0.01}
BASE = (0.80, 0.83, 0.79, 0.85)
"""Last accuracy of the plain student, by seed."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of scripts/ as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module
    for name in ("tables", "image_tables", "ablation_table", "paired", "printed"):
        sys.modules.pop(name, None)


def write(folder: Path, last: dict[int, float], best: dict[int, float | None] | None = None, **more: Any) -> None:
    """Results of one configuration: `last` and `best` by seed; no `best` is one hundredth below."""
    for seed, accuracy in last.items():
        at_best = accuracy - 0.01 if best is None else best[seed]
        result = {
            "seed": seed,
            "test_acc": accuracy if at_best is None else at_best,
            "test_acc_last": accuracy,
            "val_acc": None if at_best is None else 0.5,
            "seconds": 10.0 + seed,
            "images_per_second": 1.0,
            "n_parameters": 1234,
            **more,
        }
        place = folder / f"seed{seed}"
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(result))
        (place / "metrics.jsonl").write_text('{"val_acc": 0.5}\n')


@pytest.fixture
def branch(tmp_path: Path) -> Path:
    found = tmp_path / "digits" / "random-tran" / "cnn"
    write(found / "teacher", dict(enumerate(BASE)))
    write(found / "cnn_small" / "supervised", dict(enumerate(BASE)))
    return found


def shown(module: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, *args: str) -> list[list[str]]:
    """Rows of the printed tables, heads too."""
    monkeypatch.setattr(sys, "argv", ["tables", *args])
    module.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# -- the test of differences -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_p_is_the_share_of_all_signs(script, alternative) -> None:
    """Counted slowly, one choice of signs after the other; with ties, in the differences and in their sizes."""
    from scipy.stats import rankdata

    paired = script("paired")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = rng.integers(-4, 5, size=rng.integers(1, 9)) / 360
        kept = points[points != 0]
        ranks = rankdata(np.abs(np.rint(360 * kept)))
        sums = [
            sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=len(kept))
        ]
        seen, middle = ranks[kept > 0].sum(), ranks.sum() / 2
        extreme = [s >= seen if alternative == "greater" else abs(s - middle) >= abs(seen - middle) for s in sums]
        assert paired.wilcoxon(list(points), alternative) == pytest.approx(statistics.fmean(extreme))


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_p_is_scipys_where_nothing_is_equal(script, alternative) -> None:
    from scipy.stats import wilcoxon

    for seed in range(10):
        points = np.random.default_rng(seed).normal(size=12)
        expected = wilcoxon(points, alternative=alternative, method="exact").pvalue
        assert script("paired").wilcoxon(list(points), alternative) == pytest.approx(expected)


def test_differences_by_rounding_are_ties_and_zeros(script) -> None:
    paired = script("paired")
    points = [0.8 - 0.7, -(0.9 - 0.8), (0.3 - 0.1) - 0.2]  # .1 and -.1, both not quite, and 0, not quite
    assert len({abs(p) for p in points}) == 3
    assert paired.wilcoxon(points) == paired.wilcoxon([1, -1]) == 1
    assert paired.outcomes(points) == "1/1/1"
    assert paired.wilcoxon([0.0, 0.0]) == 1


# -- accuracies ------------------------------------------------------------------------------------------------


def test_accuracies_and_differences_by_seed(script, branch, monkeypatch, capsys) -> None:
    gains = (0.01, 0.02, -0.01)
    write(branch / "cnn_small" / "kd", {s: BASE[s] + g for s, g in enumerate(gains)})
    rows = shown(script("image_tables"), monkeypatch, capsys, str(branch.parents[2]), "--against", "supervised", "kd")
    teacher, plain, kd = rows[1:4]
    assert plain[:4] == ["digits (random)", "cnn", "cnn_small", "supervised"]
    deviation = 100 * statistics.stdev(BASE)
    assert teacher[4:6] == plain[4:6] == [f"80.75 +- {deviation:.2f}", f"81.75 +- {deviation:.2f}"]
    assert kd[6:] == ["3", "1,234", "11"]
    against_plain, against_kd = (row for row in rows[4:] if row[0] != "dataset")
    expected = f"+0.67 +- {100 * statistics.stdev(gains):.2f}"
    assert against_plain[3:] == ["kd", *[expected, "0.750", "2/0/1", "3"] * 2], "of the three seeds that both have"
    assert against_kd[3:5] == ["supervised", expected.replace("+0", "-0")]


def test_students_on_graphs_against_one_of_the_same_network(script, tmp_path, monkeypatch, capsys) -> None:
    """Paired by the seeds that both have; a student that is not there is no rival."""
    branch = tmp_path / "cora" / "cpf-tran" / "gcn"
    for student, gain in (("mlp", 0.02), ("gcn", -0.01)):
        write(branch / student / "kd", dict(enumerate(BASE)))
        write(branch / student / "new", {seed: a + gain for seed, a in enumerate(BASE[:3])})
    head, *rows = shown(script("tables"), monkeypatch, capsys, str(tmp_path), "--against", "kd,absent")
    assert head[3:6] == ["run", "against", "points of test accuracy"]
    assert [row[:6] for row in rows] == [
        ["cora", "gcn", "gcn", "new", "kd", "-1.00 +- 0.00"],
        ["cora", "gcn", "mlp", "new", "kd", "2.00 +- 0.00"],
    ]
    assert [row[6:8] + row[9:] for row in rows] == [["0.250", "0/0/3", "3"], ["0.250", "3/0/0", "3"]]


def test_where_nothing_validates_there_is_no_best(script, branch, monkeypatch, capsys) -> None:
    tracked = {"test_acc_best_on_test": 0.9}
    write(branch / "cnn_small" / "kd", dict(enumerate(BASE)), dict.fromkeys(range(4)), **tracked)
    rows = shown(script("image_tables"), monkeypatch, capsys, str(branch.parents[2]), "--against", "supervised")
    head, kd, gain = rows[0], rows[3], rows[-1]
    assert dict(zip(head, kd, strict=True))["best %"] == ""
    assert dict(zip(head, kd, strict=True))["best on test %"].startswith("90.00")
    assert gain[3:] == ["kd", "+0.00 +- 0.00", "1.000", "0/4/0", "4", *[""] * 4]


def test_names_that_are_not_there_are_mistakes(script, branch, monkeypatch, capsys) -> None:
    for args in ([str(branch.parents[2]), "--against", "kd"], [str(branch / "cnn_small")]):
        with pytest.raises(SystemExit) as ended:
            shown(script("image_tables"), monkeypatch, capsys, *args)
        assert ended.value.code == 2
    assert "no finished teacher on images" in capsys.readouterr().err


def test_students_are_chosen_by_pattern(script, branch, monkeypatch, capsys) -> None:
    for name in ("kd", "gkdfd", "gkdfd@kd"):
        write(branch / "cnn_small" / name, {0: 0.5})
    args = (str(branch.parents[2]), "--runs", "gkdfd*", "--against", "kd")
    rows = shown(script("image_tables"), monkeypatch, capsys, *args)
    assert [row[3] for row in rows] == ["run", "teacher", "gkdfd", "gkdfd@kd", "run", "gkdfd", "gkdfd@kd"]


# -- the ablation ----------------------------------------------------------------------------------------------


def ablation(branch: Path) -> None:
    """KD, and cells whose accuracies are sums of what each choice is worth."""
    write(branch / "cnn_small" / "kd", {s: a + 0.01 for s, a in enumerate(BASE)})
    for metric, classes, terms in product(METRIC, CLASSES, TERMS):
        worth = METRIC[metric] + CLASSES[classes] + TERMS[terms]
        write(branch / "cnn_small" / f"gkdfd@{metric}-{classes}-{terms}", {s: a + worth for s, a in enumerate(BASE)})


def test_an_ablation_gives_back_what_each_choice_is_worth(script, branch, monkeypatch, capsys) -> None:
    ablation(branch)
    rows = shown(script("ablation_table"), monkeypatch, capsys, str(branch.parents[2]))
    cells = {tuple(row[:3]): row[3:] for row in rows[1:21]}
    assert len(cells) == 2 + 18
    assert cells["supervised", "", ""][3:6] == [""] * 3
    assert cells["kd", "", ""][3:6] == ["+1.00 +- 0.00", "0.125", "4"]
    assert cells["both", "cac", "both"][3:9] == ["+4.50 +- 0.00", "0.125", "4", "+3.50 +- 0.00", "0.125", "4"]
    assert {tuple(row[9:]) for row in cells.values()} == {("", "")}, "no run has them in its history"
    effects = {row[1]: row[2:] for row in rows[22:]}
    found = {name: (cells_, float(points.split()[0])) for name, (cells_, points, *_) in effects.items()}
    assert found == {
        "both - cosine": ("6", 3), "both - euclidean": ("6", 2), "euclidean - cosine": ("6", 1),
        "cac - nocac": ("9", 0.5), "both - graph": ("6", 1), "both - dfd": ("6", 3), "graph - dfd": ("6", 2),
    }  # fmt: skip
    assert {row[-1] for row in effects.values()} == {"4"}


def test_an_unfinished_ablation_shows_what_is_there(script, tmp_path, branch, monkeypatch, capsys) -> None:
    write(branch / "cnn_small" / "kd", {0: 0.8})
    write(branch / "cnn_small" / "gkdfd@both-cac-both", {0: 0.9, 1: 0.9})
    write(branch / "cnn_small" / "gkdfd@both-nocac-both", {1: 0.7, 2: 0.7})
    rows = shown(script("ablation_table"), monkeypatch, capsys, str(tmp_path))
    assert rows[3][:3] == ["both", "cac", "both"]
    assert rows[3][-3] == "1", "one seed is KD's, too"
    (effect,) = rows[6:]
    assert effect[:4] == ["class-aware", "cac - nocac", "1", "+20.00"]


def test_signs_of_a_collapse_are_those_of_the_last_epoch(script, branch, monkeypatch, capsys) -> None:
    ablation(branch)
    cell = branch / "cnn_small" / "gkdfd@both-cac-both"
    for seed, (spread, between) in enumerate(((0.1, -0.2), (0.3, 0.6))):  # the other two seeds have none
        epochs = ({"gkdfd/spread_student": s, "gkdfd/between_student": b} for s, b in ((9, 9), (spread, between)))
        (cell / f"seed{seed}" / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    rows = shown(script("ablation_table"), monkeypatch, capsys, str(branch.parents[2]))
    assert rows[0][-2:] == ["spread", "between"]
    found = {tuple(row[:3]): row[-2:] for row in rows[1:21]}
    assert found.pop(("both", "cac", "both")) == ["0.200", "0.200"]
    assert {tuple(cells) for cells in found.values()} == {("", "")}
