"""The study of one entry: which settings its trials have, and the file that remembers what they came to.

Trials are drawn in rounds of `ROUND` by the tree-structured Parzen estimator. What a trial draws depends on the name of
its study, its number and the trials of earlier rounds; so a search comes to the same with one process or many, in one
run or in several, and a larger budget begins with the trials of a smaller one.
"""

from __future__ import annotations

import hashlib
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from gnnkd import claims
from gnnkd.distillers.space import Range
from gnnkd.errors import UserError
from gnnkd.ktg import study_storage

ROUND = 4
"""Trials that are drawn without waiting for one another."""
STARTUP = 5
"""Trials of a study before their scores count in what is drawn."""
DESCRIPTION, SCORES, WHY = "description", "val_acc", "why"
"""Attributes: of a study, what it is of; of a trial, the score of each seed, and why there are none, or None."""


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The database of all studies of a comparison, made if it is not there; no other process uses it meanwhile.

    Raises:
        UserError: Optuna is not installed, another process tunes here, or the file is no database.
    """
    study_storage.package()
    from filelock import FileLock, Timeout
    from optuna.storages import RDBStorage

    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(file.with_suffix(".lock")), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{file.parent}: another process tunes here; wait for it, or choose another --report") from None
    try:
        storage = RDBStorage(f"sqlite:///{file}")
    except Exception as problem:  # whatever the database's driver raises
        lock.release()
        why = str(problem).splitlines()[0]
        raise UserError(f"{file} cannot be opened ({why}); remove it, or choose another --report") from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()
        lock.release()


@final
class Study:
    """The trials of one entry, as a database has them.

    Args:
        storage: of `opened`.
        name: no other study of the database has it.
        space: what is searched, by `group.option`.
        default: the first trial: the entry's own settings, as far as they lie in the space.
        description: all that determines a score beside a trial's settings.
        overwrite: begin anew.

    Raises:
        UserError: a study of that name is of something else.
    """

    def __init__(
        self,
        storage: Any,
        name: str,
        space: Mapping[str, Range],
        default: Mapping[str, Any],
        description: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        import optuna

        from gnnkd.compare.spaces import distributions

        self.name, self.storage, self.space, self.default = name, storage, space, dict(default)
        self.distributions = distributions(space)
        if overwrite and name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
        self.study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        there = self.study.user_attrs.get(DESCRIPTION)
        if there is None:
            self.study.set_user_attr(DESCRIPTION, dict(description))
        elif changed := claims.differences(there, description):
            what = claims.said(changed)
            raise UserError(
                f"the search of {name} is of something else: {what}; choose another --report, or --overwrite it"
            )

    def trials(self, budget: int) -> Sequence[Any]:
        """The first `budget` trials that have been drawn."""
        found: list[Any] = self.study.get_trials(deepcopy=False)
        return found[:budget]

    def due(self, budget: int) -> list[tuple[int, dict[str, Any]]]:
        """Numbers and settings of the trials that can be run now, of `budget` in all; none when all are done.

        Those that were at work when their process ended are among them: they are run again.
        """
        from optuna.trial import TrialState

        there = self.trials(budget)
        first = next((t.number for t in there if t.state == TrialState.RUNNING), len(there))
        start = first - first % ROUND
        for number in range(len(there), min(start + ROUND, budget)):
            self._draw(number)
        there = self.trials(budget)[start : start + ROUND]
        return [(t.number, dict(t.params) if t.number else {}) for t in there if t.state == TrialState.RUNNING]

    def tell(self, number: int, scores: Sequence[float], why: str | None) -> None:
        """Remember what a trial came to: the validation accuracy of each seed, or why there is none.

        One without counts with the value 0.
        """
        of_study = self.storage.get_study_id_from_name(self.name)
        trial = self.storage.get_trial_id_from_study_id_trial_number(of_study, number)
        self.storage.set_trial_user_attr(trial, SCORES, list(scores))
        self.storage.set_trial_user_attr(trial, WHY, why)
        self.study.tell(number, statistics.fmean(scores) if why is None else 0.0)

    def best(self, budget: int) -> Any:
        """The best of the first `budget` trials, the earliest of equals; None where none could be trained."""
        trained = [t for t in self.trials(budget) if t.state.is_finished() and t.user_attrs[WHY] is None]
        return min(trained, key=lambda t: (-t.value, t.number), default=None)

    def _draw(self, number: int) -> None:
        """Write the settings of the next trial down, in one piece."""
        from optuna.trial import TrialState, create_trial

        params = self._drawn(number) if number else self.default
        mine = {key: self.distributions[key] for key in params}
        self.study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=mine))

    def _drawn(self, number: int) -> dict[str, Any]:
        """What a sampler of its own draws that has seen the earlier rounds, and who is at work in this one."""
        import optuna
        from optuna.trial import TrialState, create_trial

        there = self.study.get_trials(deepcopy=False)
        start = number - number % ROUND
        beside = [
            create_trial(state=TrialState.RUNNING, params=t.params, distributions=t.distributions)
            for t in there[start:number]
        ]
        seen = optuna.create_study(direction="maximize", sampler=_sampler(self.name, number))
        seen.add_trials([*there[:start], *beside])
        return dict(seen.ask(self.distributions).params)


def _sampler(name: str, number: int) -> Any:
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    seed = int.from_bytes(hashlib.sha256(f"{name}|{number}".encode()).digest()[:4], "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(constant_liar=True, n_startup_trials=STARTUP, seed=seed)
