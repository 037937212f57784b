"""The same search for every entry of a comparison, on validation accuracy: `--tune N`.

Each dataset, setting, teacher, student and entry has a study of exactly N trials. The first one is the entry as it is;
one whose loss diverges, or that fails, counts. A trial trains a student for each of the tuning seeds, from the teachers
of these seeds; its value is the mean of their best validation accuracies. Nothing here reads a test label.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

from gnnkd import options
from gnnkd.compare import spaces
from gnnkd.compare.spaces import Groups
from gnnkd.compare.trials import Subject, Trial, described
from gnnkd.compare.tuning_study import SCORES, WHY, Study, opened
from gnnkd.compare.workers import Outcome, Work
from gnnkd.errors import UserError
from gnnkd.places import read_json
from gnnkd.train.checkpoint import write_json

if TYPE_CHECKING:
    from gnnkd.compare.comparison import Comparison

DATABASE, REPORT = "tuning.db", "tuning.json"
OBJECTIVE = "mean validation accuracy of the best epoch, over the seeds"
Runner: TypeAlias = Callable[[Sequence[Work]], Iterable[tuple[Work, Outcome]]]
"""Does works, in any order, and gives each back with what it came to as soon as it is done: `Pool.run`."""


@final
@dataclass(frozen=True)
class Tuned:
    """What the search of one entry has found.

    Args:
        subject: what was tuned.
        settings: the best options, by group; empty where the entry as it is was best, or nothing could be trained.
        value: mean validation accuracy with them, in [0, 1]; None where nothing could be trained.
        report: the study as plain values, for `tuning.json`.
    """

    subject: Subject
    settings: Groups
    value: float | None
    report: dict[str, Any]


def tune(comparison: Comparison, run: Runner) -> dict[str, Groups]:
    """Search the settings of each configuration of a comparison that can be run, and write `tuning.json`.

    The teachers of the tuning seeds are trained before; a configuration that lacks one is left out, with the reason in
    the report.

    Args:
        comparison: its `tune` is the number of trials of each study, the first `tune_seeds` of its seeds are those of a
            trial.
        run: does the trials.

    Returns:
        The best options by group, by `Cell.configuration`; none for the entry as it is.

    Raises:
        UserError: as `search_all`.
    """
    trials, seeds = comparison.tune, comparison.seeds[: comparison.tune_seeds]
    ready, lacking = [], []
    for subject in subjects(comparison):
        why = _lack(subject, seeds)
        if why is None:
            ready.append(subject)
        else:
            lacking.append({**subject.names, "why": why})
    found = search_all(ready, run, trials, seeds, comparison.report, overwrite=comparison.overwrite, say=comparison.say)
    write_report([*(one.report for one in found), *lacking], trials, seeds, comparison.report)
    return {one.subject.cell.configuration: one.settings for one in found}


def subjects(comparison: Comparison) -> list[Subject]:
    """What is tuned: each configuration of a student that can be run."""
    found = []
    for cell in comparison.cells:
        if cell.entry is not None and cell.seed == comparison.seeds[0] and comparison.cannot(cell) is None:
            ground = comparison.grounds[cell.dataset]
            branch = cell.branch(comparison.out, ground.name, ground.protocol)
            plain = replace(cell, tuned=0, found={})
            found.append(Subject(plain, branch, comparison.data_root, comparison.device))
    return found


def search_all(
    subjects: Sequence[Subject],
    run: Runner,
    trials: int,
    seeds: tuple[int, ...],
    folder: Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[Tuned]:
    """Search the settings of each subject with the same budget, going on where an earlier run has stopped.

    Args:
        subjects: whose teachers of the tuning seeds are finished.
        run: does the trials.
        trials: of each study in all, at least 1; a study that has more is judged by its first ones.
        seeds: that a trial trains students with.
        folder: where the studies lie, in `tuning.db`.
        overwrite: begin the studies anew.
        say: hears a line for each trial.

    Returns:
        What was found, in the order of `subjects`.

    Raises:
        UserError: Optuna is not installed, a study of that name is of something else, or another process tunes in the
            folder.
    """
    if trials < 1:
        raise UserError(f"--tune is {trials}; it must be at least 1")
    with opened(folder / DATABASE) as storage:
        studies = [(one, _study(storage, one, seeds, overwrite=overwrite)) for one in subjects]
        by_name = {one.name: study for one, study in studies}
        while due := [work for one, study in studies for work in _due(one, study, trials, seeds)]:
            for work, outcome in run(due):
                assert isinstance(work, Trial)
                by_name[work.subject.name].tell(work.number, outcome.value or (), outcome.reason)
                say(_told(work, outcome))
        return [_tuned(one, study, trials) for one, study in studies]


def _study(storage: Any, subject: Subject, seeds: Sequence[int], *, overwrite: bool) -> Study:
    config, searched = subject.plan({}), spaces.space(subject.plan)
    teachers = {str(seed): _teacher(subject, seed) for seed in seeds}
    description = {**described(config), "space": spaces.described(searched), "teachers": teachers}
    return Study(storage, subject.name, searched, spaces.default(config, searched), description, overwrite=overwrite)


def _due(subject: Subject, study: Study, trials: int, seeds: tuple[int, ...]) -> list[Trial]:
    """The trials of a study that can be run now."""
    return [Trial(subject, number, spaces.groups(chosen), seeds) for number, chosen in study.due(trials)]


def write_report(studies: Sequence[Mapping[str, Any]], trials: int, seeds: Sequence[int], folder: Path) -> None:
    """Write `tuning.json`: the budget, and of each study its space, its trials and the best of them."""
    said = {"trials": trials, "seeds": list(seeds), "objective": OBJECTIVE, "studies": list(studies)}
    write_json(folder / REPORT, said)


def _lack(subject: Subject, seeds: Sequence[int]) -> str | None:
    """Which teacher is not finished, in words; None if all are there."""
    places = [place for place in map(subject.teacher, seeds) if place is not None and not place.finished]
    return f"no finished teacher in {places[0].folder}" if places else None


def _teacher(subject: Subject, seed: int) -> dict[str, Any]:
    """What determined a teacher, its data and its split among it."""
    place = subject.teacher(seed)
    if place is None:
        logits = subject.plan({}).logits
        assert logits is not None
        return dict(options.plain(logits.describe()))
    return read_json(place.config)


def _told(trial: Trial, outcome: Outcome) -> str:
    said = f"validation {statistics.fmean(outcome.value):.2%}" if outcome.value else f"counts as 0: {outcome.reason}"
    return f"{trial.title}: {said}"


def _tuned(subject: Subject, study: Study, trials: int) -> Tuned:
    config, there, best = subject.plan({}), study.trials(trials), study.best(trials)
    settings = spaces.groups(best.params) if best is not None and best.number else {}
    history = [
        {
            "number": t.number,
            "settings": spaces.groups(t.params) if t.number else {},
            "value": t.value,
            "val_acc": t.user_attrs[SCORES],
            "why": t.user_attrs[WHY],
        }
        for t in there
    ]
    report = {
        **subject.names,
        "base": config.base,
        "trials": len(there),
        "failed": sum(one["why"] is not None for one in history),
        "space": spaces.described(study.space),
        "default": history[0]["value"] if history[0]["why"] is None else None,
        "best": None if best is None else best.value,
        "best_trial": None if best is None else best.number,
        "settings": settings,
        "history": history,
    }
    return Tuned(subject, settings, None if best is None else best.value, report)
