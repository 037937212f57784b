"""The trials of a search, one after the other, by any number of processes.

Graphs are drawn by the tree-structured Parzen estimator over all parameters at once, and trials that fall behind end
early by Hyperband. What a trial draws depends on the seed, its number and the trials before it: a search of one process
that nothing interrupts repeats itself.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnkd.ktg import stages, study_storage
from gnnkd.ktg.spec import Spec
from gnnkd.ktg.stages import Reached
from gnnkd.ktg.study import Search, best, shown
from gnnkd.ktg.study_storage import WHY, WORKER, held
from gnnkd.train.fit import DivergedError

if TYPE_CHECKING:
    import optuna

STARTUP = 5
"""Trials drawn at random before the others' scores count, in each bracket of Hyperband."""
DECIDED = 2 / 3
"""Share of a trial's epochs after which it does not end early any more."""
SAME = "same_as"
"""Attribute of a trial: an earlier one of the same graph, whose score it has."""
REFUSED = "refused"
"""Attribute of a trial that was not run: node 0 can learn nothing."""
NODES = "nodes"
"""Attribute of a trial: what each node has reached."""


def _sampler(seed: int, number: int) -> Any:
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=STARTUP, seed=drawn)


def run(search: Search, study: optuna.Study, trials: int, timeout: float | None = None) -> None:
    """Try graphs until so many trials of the study are done or at work, in whichever process.

    Args:
        trials: in all, those of earlier runs and of other processes included; failed ones do not count.
        timeout: seconds after which no trial begins.

    Raises:
        UserError: a network that cannot be trained.
    """
    start = time.monotonic()
    with study_storage.at_work(search.folder) as worker:
        while timeout is None or time.monotonic() - start < timeout:
            trial = _next(search, study, worker, trials)
            if trial is None:
                return
            _try(search, study, trial)


def _next(search: Search, study: optuna.Study, worker: str, trials: int) -> Any:
    """A trial with its graph chosen, or None when there are enough; one process at a time."""
    from optuna.trial import TrialState

    with held([search.lock]):
        for line in study_storage.cleared(study, search.folder):
            search.say(line)
        there = study.get_trials(deepcopy=False)
        if sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING) for t in there) >= trials:
            return None
        queued = [t.number for t in there if t.state == TrialState.WAITING]
        study.sampler = _sampler(search.task.seed, min(queued, default=len(there)))
        trial = study.ask()
        trial.set_user_attr(WORKER, worker)
        for name, choices in search.space.choices().items():
            trial.suggest_categorical(name, choices)
        return trial


def _try(search: Search, study: optuna.Study, trial: Any) -> None:
    """Train a trial's graph and tell the study what it reached."""
    from optuna.trial import TrialState

    graph, said = search.space.graph(trial.params), f"trial {trial.number}"
    if lack := search.lack(graph):
        trial.set_user_attr(REFUSED, lack)
        study.tell(trial, state=TrialState.PRUNED)
        search.say(f"{said}: not run, {lack.partition(';')[0]} ({shown(graph)})")
        return
    if (same := _same(study, trial.params)) is not None:
        trial.set_user_attr(SAME, same.number)
        study.tell(trial, same.value)
        search.say(f"{said}: validation {same.value:.2%}, the graph of trial {same.number} again")
        return
    try:
        done = _trained(search, trial, graph)
    except BaseException as problem:
        trial.set_user_attr(WHY, str(problem) or type(problem).__name__)
        if isinstance(problem, DivergedError):
            study.tell(trial, state=TrialState.PRUNED)
            search.say(f"{said}: {problem} ({shown(graph)})")
            return
        study.tell(trial, state=TrialState.FAIL)
        if isinstance(problem, KeyboardInterrupt):
            study_storage.queued_again(study, trial)
        raise
    search.say(f"{said}: {_told(study, trial, done)} ({shown(graph)})")


def _same(study: optuna.Study, params: Mapping[str, str]) -> Any:
    """A completed trial of the same graph: training it again would end the same."""
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((trial for trial in done if trial.params == params), None)


def _trained(search: Search, trial: Any, graph: Spec) -> Reached | None:
    """The graph after its training; None where it fell behind and ended early."""
    from optuna import TrialPruned

    highest, decided = 0.0, search.epochs * DECIDED

    def heard(epoch: int, score: float) -> None:
        nonlocal highest
        highest = max(highest, score)
        trial.report(highest, epoch + 1)
        # Hyperband's last step may be the last epochs, where nothing is saved any more.
        if epoch + 1 <= decided and trial.should_prune():
            raise TrialPruned

    try:
        return stages.run(search.task, search.settled(graph, search.task), search.progress, report=heard)
    except TrialPruned:
        return None


def _told(study: optuna.Study, trial: Any, done: Reached | None) -> str:
    """Tell the study what a trial came to; the same in words."""
    from optuna.trial import TrialState

    if done is None:
        study.tell(trial, state=TrialState.PRUNED)
        frozen = study.get_trials(deepcopy=False)[trial.number]
        return f"ended early, after {frozen.last_step} epochs, at validation {frozen.value:.2%}"
    assert done.score is not None
    nodes = [
        {"model": done.plans.model(i), "val_acc": reached.score, "best_epoch": reached.epoch}
        for i, reached in enumerate(done.bests)
    ]
    trial.set_user_attr(NODES, nodes)
    study.tell(trial, done.score)
    first = best(study)
    return f"validation {done.score:.2%}, best {first.value:.2%} of trial {first.number}"
