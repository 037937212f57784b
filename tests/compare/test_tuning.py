"""The search of a comparison: its budget, what it looks at, and that it comes to the same however it is run."""

from __future__ import annotations

import builtins
import importlib.util
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnkd.compare import tuning
from gnnkd.compare.cells import cells
from gnnkd.compare.comparison import Comparison, Ground
from gnnkd.compare.entries import entries
from gnnkd.compare.training import Desk
from gnnkd.compare.trials import Trial
from gnnkd.compare.tuning_study import ROUND, opened
from gnnkd.compare.workers import Outcome, Work
from gnnkd.data.graphs import load
from gnnkd.errors import UserError
from gnnkd.graph_config import Config
from gnnkd.results import run_student
from gnnkd.train.checkpoint import write_json
from gnnkd.train.progress import Silent

searches = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed (pip install 'gnnkd[search]')"
)
N, SEEDS, EPOCHS = 120, (0, 1), 3
GROUPS = ({"train": {"epochs": EPOCHS, "width": 8}},)
WORDS = ("glnn", "kd", "dgd")


def graph(file: Path, permuted: bool = False) -> Path:
    """A planted partition with masks; permuted, the classes of the nodes that test are others."""
    rng, y = np.random.default_rng(0), np.arange(N) % 3
    words = rng.random((N, 30)) < np.where(np.arange(30) % 3 == y[:, None], 0.4, 0.05)
    a, b = rng.integers(0, N, (2, 8 * N))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    parts = np.minimum(np.arange(N) // 30, 2)
    masks = {f"{part}_mask": parts == i for i, part in enumerate(("train", "val", "test"))}
    if permuted:
        y = np.where(masks["test_mask"], (y + 1) % 3, y)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, edge_index=np.stack([a, b])[:, near], x=words.astype(np.float32), y=y, **masks)
    return file


def comparison(folder: Path, *words: str, **changed: Any) -> Comparison:
    """Of entries on the graph in a folder, for students that are perceptrons."""
    said: dict[str, Any] = {
        "datasets": (str(folder / "toy.npz"),),
        "settings": ("tran",),
        "teachers": ("gcn",),
        "students": ("mlp",),
        "entries": {"mlp": entries(words or WORDS, "mlp")},
        "against": (words or WORDS)[0],
        "seeds": SEEDS,
        "out": folder / "runs",
        "report": folder / "report",
        "groups": GROUPS,
        "tune": 6,
        "quiet": True,
        "grounds": {str(folder / "toy.npz"): Ground("toy", "given")},
    }
    return Comparison(**(said | changed))


def taught(asked: Comparison) -> Comparison:
    """Train the teachers of a comparison."""
    for cell in cells(asked):
        if cell.entry is None:
            config = cell.plan()
            assert isinstance(config, Config)
            task = config.task(load(cell.dataset), cell.seed)
            place = cell.place(asked.out, "toy", "given")
            write_json(place.config, config.describe_teacher(task))
            config.run_teacher(task, place, resume=False, progress=Silent())
    return asked


@pytest.fixture
def database() -> None:
    """The studies of a test lie in a file, as they do for a user."""


@pytest.fixture(autouse=True)
def _studies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `database` they lie in memory, by the file's name, for as long as the test; that is much quicker."""
    if "database" in request.fixturenames:
        return
    kept: dict[Path, Any] = {}

    @contextmanager
    def remembered(file: Path) -> Iterator[Any]:
        from optuna.storages import InMemoryStorage

        yield kept.setdefault(file, InMemoryStorage())

    monkeypatch.setattr(tuning, "opened", remembered)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph and finished teachers, with generators, in both settings."""
    folder = tmp_path_factory.mktemp("school")
    graph(folder / "toy.npz")
    taught(comparison(folder, settings=("tran", "ind")))
    return folder


def here(works: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
    """Do works in this process, as a pool does in others."""
    kept: dict[Any, Any] = {}
    for work in works:
        try:
            outcome = Outcome(work.do(kept))
        except UserError as mistake:
            outcome = Outcome(reason=str(mistake))
        yield work, outcome


def scored(value: Callable[[Trial], float]) -> tuning.Runner:
    """Trials that are not run: their scores follow from their settings."""

    def run(works: Sequence[Work]) -> Iterable[tuple[Work, Outcome]]:
        assert all(isinstance(work, Trial) for work in works)
        return [(work, Outcome([value(work)])) for work in works if isinstance(work, Trial)]

    return run


def lr(trial: Trial) -> float:
    return 1 / (1 + abs(np.log(trial.settings.get("student", {}).get("lr", 1.0) / 0.005)))


def forbidden(works: Sequence[Work]) -> Iterable[tuple[Work, Outcome]]:
    raise AssertionError(f"nothing is to be done, and there are {len(works)} trials")


def report(asked: Comparison) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((asked.report / "tuning.json").read_text())
    return found


def histories(asked: Comparison) -> dict[str, Any]:
    return {study["label"]: study["history"] for study in report(asked)["studies"]}


# -- budget ------------------------------------------------------------------------------------------------------


@searches
def test_every_entry_has_the_same_budget_and_begins_as_it_is(school: Path, tmp_path: Path) -> None:
    asked = comparison(school, *WORDS, "mlp", "gkdfd", report=tmp_path, tune=5)
    found = tuning.tune(asked, scored(lr))
    said = report(asked)
    assert (said["trials"], said["seeds"]) == (5, [0, 1])
    assert [study["label"] for study in said["studies"]] == [*WORDS, "mlp", "gkdfd"]
    for study in said["studies"]:
        assert study["trials"] == len(study["history"]) == 5
        assert study["history"][0]["settings"] == {}
        assert [trial["number"] for trial in study["history"]] == list(range(5))
        for trial in study["history"][1:]:
            chosen = {f"{group}.{name}" for group, values in trial["settings"].items() for name in values}
            assert chosen == study["space"].keys()
    assert found.keys() == {c.configuration for c in cells(asked) if c.entry}


@searches
def test_the_best_settings_are_those_of_the_best_trial(school: Path, tmp_path: Path) -> None:
    asked = comparison(school, "glnn", report=tmp_path, tune=12)
    (found,) = tuning.tune(asked, scored(lr)).values()
    (study,) = report(asked)["studies"]
    values = [trial["value"] for trial in study["history"]]
    first = values.index(max(values))
    assert found == study["settings"] == study["history"][first]["settings"]
    assert (study["best"], study["best_trial"], study["failed"]) == (max(values), first, 0)
    assert found["student"]["lr"] == 0.005


@searches
def test_among_equals_an_entry_stays_as_it_is(school: Path, tmp_path: Path) -> None:
    (found,) = tuning.tune(comparison(school, "glnn", report=tmp_path), scored(lambda _: 0.5)).values()
    assert found == {}


@searches
def test_trials_learn_from_earlier_rounds(school: Path, tmp_path: Path) -> None:
    """With the same names, other values draw other settings, but not before there are values."""
    rising, falling = (comparison(school, "glnn", report=tmp_path / name, tune=24) for name in "ab")
    tuning.tune(rising, scored(lr))
    tuning.tune(falling, scored(lambda trial: 1 - lr(trial)))
    (a,), (b,) = histories(rising).values(), histories(falling).values()
    settings = [[trial["settings"] for trial in history] for history in (a, b)]
    assert settings[0][:ROUND] == settings[1][:ROUND]
    assert settings[0] != settings[1]
    late = [[s["student"]["lr"] for s in one[12:]].count(0.005) for one in settings]
    assert late[0] > late[1]


@searches
@pytest.mark.parametrize("trials", [0, -1])
def test_no_trial_is_a_mistake(school: Path, tmp_path: Path, trials: int) -> None:
    with pytest.raises(UserError, match="--tune is"):
        tuning.search_all([], forbidden, trials, SEEDS, tmp_path)


# -- however it is run -------------------------------------------------------------------------------------------


@searches
def test_a_second_run_does_nothing_and_a_larger_budget_goes_on(school: Path, tmp_path: Path) -> None:
    asked = comparison(school, "glnn", "dgd", report=tmp_path / "a", tune=3)
    first = tuning.tune(asked, scored(lr))
    before = histories(asked)
    assert tuning.tune(asked, forbidden) == first
    larger = replace(asked, tune=9)
    tuning.tune(larger, scored(lr))
    at_once = replace(larger, report=tmp_path / "b")
    tuning.tune(at_once, scored(lr))
    assert histories(larger) == histories(at_once)
    assert {label: history[:3] for label, history in histories(larger).items()} == before


@searches
def test_a_smaller_budget_looks_at_the_first_trials(school: Path, tmp_path: Path) -> None:
    asked = comparison(school, "glnn", "dgd", report=tmp_path / "a", tune=6)
    tuning.tune(asked, scored(lr))
    smaller, alone = replace(asked, tune=3), replace(asked, tune=3, report=tmp_path / "b")
    assert tuning.tune(smaller, forbidden) == tuning.tune(alone, scored(lr))
    assert histories(smaller) == histories(alone)


@searches
@pytest.mark.parametrize("done", [0, 3, 5])
def test_after_an_interrupt_it_goes_on_as_if_there_had_been_none(school: Path, tmp_path: Path, done: int) -> None:
    """Trials that were at work are run again with the settings that they had; none is lost, none is too many."""
    _interrupted(school, tmp_path, done)


@searches
def test_a_file_remembers_what_an_interrupt_has_left(school: Path, tmp_path: Path, database: None) -> None:
    asked = _interrupted(school, tmp_path, 3)
    before = report(asked)
    tuning.tune(asked, forbidden)
    assert report(asked) == before


def _interrupted(school: Path, tmp_path: Path, done: int) -> Comparison:
    whole, broken = (comparison(school, "glnn", report=tmp_path / name, tune=7) for name in "ab")
    tuning.tune(whole, scored(lr))
    left = done

    def interrupted(works: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
        nonlocal left
        for one in scored(lr)(list(reversed(works))):
            if not left:
                raise KeyboardInterrupt
            left -= 1
            yield one

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(broken, interrupted)
    tuning.tune(broken, scored(lr))
    assert report(broken) == report(whole)
    return broken


@searches
def test_the_order_in_which_trials_end_makes_no_difference(school: Path, tmp_path: Path) -> None:
    asked, other = (comparison(school, "glnn", "dgd", report=tmp_path / name, tune=9) for name in "ab")
    tuning.tune(asked, scored(lr))
    tuning.tune(other, lambda works: scored(lr)(list(reversed(works))))
    assert report(asked) == report(other)


@searches
def test_trials_are_what_they_are_in_whichever_process(school: Path, tmp_path: Path) -> None:
    """What crosses to a process and back is pickled; one process keeps data from trial to trial, another has none."""

    def apart(works: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
        for work in reversed(works):
            sent: Work = pickle.loads(pickle.dumps(work))
            yield sent, pickle.loads(pickle.dumps(Outcome(sent.do({}))))

    alone, shared = (comparison(school, "glnn", "dgd", report=tmp_path / name, tune=3) for name in "ab")
    tuning.tune(alone, here)
    tuning.tune(shared, apart)
    assert report(alone) == report(shared)
    assert all(0 < trial["value"] <= 1 for history in histories(alone).values() for trial in history)


@searches
def test_two_searches_at_once_are_refused(school: Path, tmp_path: Path, database: None) -> None:
    with opened(tmp_path / "tuning.db"), pytest.raises(UserError, match="another process tunes here"):
        tuning.tune(comparison(school, report=tmp_path), forbidden)
    tuning.tune(comparison(school, "glnn", report=tmp_path, tune=1), scored(lr))


# -- what it looks at --------------------------------------------------------------------------------------------


@searches
@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_a_trial_is_the_mean_validation_accuracy_of_its_students(school: Path, tmp_path: Path, setting: str) -> None:
    """And the first one is that of the students that a run would leave behind."""
    asked = comparison(school, *WORDS, settings=(setting,), report=tmp_path, tune=1)
    tuning.tune(asked, here)
    for label, (first,) in histories(asked).items():
        scores = []
        for cell in [c for c in cells(asked) if c.entry and c.label == label]:
            config = cell.plan()
            assert isinstance(config, Config)
            task, place = config.task(load(cell.dataset), cell.seed), cell.place(tmp_path / "none", "toy", "given")
            place = replace(place, teacher=cell.place(asked.out, "toy", "given").teacher)
            write_json(place.config, {})
            scores.append(run_student(task, config, place, resume=False, progress=Silent())["val_acc"])
        assert first["val_acc"] == scores
        assert first["value"] == pytest.approx(np.mean(scores), abs=1e-12)


@searches
@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_test_labels_change_nothing(tmp_path: Path, setting: str) -> None:
    """With other labels on all nodes that test, each teacher, trial and choice is the same."""
    found = []
    for name in ("a", "b"):
        graph(tmp_path / name / "toy.npz", permuted=name == "b")
        asked = taught(comparison(tmp_path / name, "glnn", "dgd", settings=(setting,), tune=2))
        found.append((list(tuning.tune(asked, here).values()), report(asked)))
    assert found[0] == found[1]


@searches
def test_validation_labels_do(school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    asked, other = (comparison(school, "glnn", report=tmp_path / name, tune=2) for name in "ab")
    tuning.tune(asked, here)
    whole = Desk.task

    def permuted(self: Desk, config: Config, seed: int) -> Any:
        task = whole(self, config, seed)
        return replace(task, y=(task.y + task.split.val.long()) % 3)

    monkeypatch.setattr(Desk, "task", permuted)
    tuning.tune(other, here)
    assert histories(asked) != histories(other)


@searches
def test_trials_leave_nothing_among_the_results(school: Path, tmp_path: Path, database: None) -> None:
    before = {file: file.stat().st_mtime_ns for file in (school / "runs").rglob("*")}
    tuning.tune(comparison(school, report=tmp_path, tune=2), here)
    assert {file: file.stat().st_mtime_ns for file in (school / "runs").rglob("*")} == before
    assert {file.name for file in tmp_path.iterdir()} - {"tuning.lock"} == {"tuning.db", "tuning.json"}


@searches
def test_a_trial_takes_the_first_seeds(school: Path, tmp_path: Path) -> None:
    asked = comparison(school, "glnn", report=tmp_path, tune=1, tune_seeds=1)
    seen: list[tuple[int, ...]] = []

    def run(works: Sequence[Work]) -> Iterable[tuple[Work, Outcome]]:
        seen.extend(work.seeds for work in works if isinstance(work, Trial))
        return scored(lr)(works)

    tuning.tune(asked, run)
    assert seen == [(0,)]
    assert report(asked)["seeds"] == [0]


@searches
def test_what_was_said_is_not_searched(school: Path, tmp_path: Path) -> None:
    """Neither by an entry nor for all of them; it holds in every trial."""
    asked = comparison(
        school, "glnn:label_weight=0.3", "glnn:student.lr=0.02", report=tmp_path,
        groups=(*GROUPS, {"student": {"dropout": 0.25}}), tune=3,
    )  # fmt: skip
    configs: list[Config] = []

    def run(works: Sequence[Work]) -> Iterable[tuple[Work, Outcome]]:
        configs.extend(work.subject.plan(work.settings) for work in works if isinstance(work, Trial))
        return scored(lr)(works)

    tuning.tune(asked, run)
    first, second = report(asked)["studies"]
    assert first["space"].keys() == {"student.lr", "student.weight_decay"}
    assert second["space"].keys() == {"method.label_weight", "student.weight_decay"}
    assert {config.student["dropout"] for config in configs} == {0.25}
    assert {config.student_train.epochs for config in configs} == {EPOCHS}


# -- what goes wrong ---------------------------------------------------------------------------------------------


@searches
def test_a_trial_that_diverges_counts_with_its_reason(school: Path, tmp_path: Path) -> None:
    asked = comparison(school, "glnn:student.lr=1e30", "glnn", report=tmp_path, tune=3)
    lost, found = tuning.tune(asked, here).values()
    first, second = report(asked)["studies"]
    assert (first["trials"], first["failed"], first["best"], lost) == (3, 3, None, {})
    assert all(t["value"] == 0 and "the loss is not finite" in t["why"] for t in first["history"])
    assert (second["trials"], second["failed"]) == (3, 0)
    assert found == second["settings"]


@searches
def test_where_nothing_validates_nothing_is_chosen(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Desk.task

    def bare(self: Desk, config: Config, seed: int) -> Any:
        task = whole(self, config, seed)
        return replace(task, split=replace(task.split, val=task.split.val & False))

    monkeypatch.setattr(Desk, "task", bare)
    asked = comparison(school, "glnn", report=tmp_path, tune=1)
    assert list(tuning.tune(asked, here).values()) == [{}]
    assert "no row of toy validates" in report(asked)["studies"][0]["history"][0]["why"]


@searches
def test_a_trial_whose_process_was_killed_counts(school: Path, tmp_path: Path) -> None:
    asked = comparison(school, "glnn", report=tmp_path, tune=4)

    def run(works: Sequence[Work]) -> Iterable[tuple[Work, Outcome]]:
        for work, outcome in scored(lr)(works):
            killed = isinstance(work, Trial) and work.number == 0
            yield work, Outcome(reason="its process was ended by SIGKILL") if killed else outcome

    tuning.tune(asked, run)
    (study,) = report(asked)["studies"]
    assert (study["trials"], study["failed"], study["default"]) == (4, 1, None)
    assert study["history"][0]["why"] == "its process was ended by SIGKILL"
    assert study["best_trial"] > 0


@searches
def test_without_a_teacher_there_is_nothing_to_tune(school: Path, tmp_path: Path) -> None:
    asked = comparison(school, "glnn", teachers=("gcn", "sage"), report=tmp_path, tune=2)
    assert len(tuning.tune(asked, scored(lr))) == 1
    there, lacking = report(asked)["studies"]
    assert (there["teacher_model"], lacking["teacher_model"]) == ("gcn", "sage")
    assert "no finished teacher in" in lacking["why"]


@searches
def test_a_study_of_something_else_is_refused_or_begun_anew(school: Path, tmp_path: Path, database: None) -> None:
    asked = comparison(school, "glnn", report=tmp_path, tune=2)
    tuning.tune(asked, scored(lr))
    other = replace(asked, groups=(*GROUPS, {"student": {"epochs": 7}}))
    with pytest.raises(UserError, match=r"student.epochs is 3 there and 7 here; choose another --report") as caught:
        tuning.tune(other, forbidden)
    assert "\n" not in str(caught.value)
    tuning.tune(replace(other, overwrite=True), scored(lambda _: 0.25))
    (study,) = report(other)["studies"]
    assert [trial["value"] for trial in study["history"]] == [0.25, 0.25]


@searches
def test_a_file_that_is_no_database_is_said_to_be_none(school: Path, tmp_path: Path, database: None) -> None:
    (tmp_path / "tuning.db").write_text("no database" * 100)
    with pytest.raises(UserError, match=r"tuning.db cannot be opened .*; remove it, or choose another --report"):
        tuning.tune(comparison(school, report=tmp_path), forbidden)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: None) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any, **named: Any) -> Any:
        if name.split(".")[0] == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"needs optuna; install it with: pip install 'gnnkd\[search\]'"):
        tuning.search_all([], forbidden, 1, SEEDS, tmp_path)
