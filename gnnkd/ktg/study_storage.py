"""Where a search keeps its trials, and who is at work on it: storage, locks, trials whose process is gone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd.errors import UserError

if TYPE_CHECKING:
    import optuna

WORKER = "worker"
"""Attribute of a trial: the process that runs it."""
QUEUED = "again_of"
"""Attribute of a trial: the one whose graph it tries again, because that was interrupted."""
WHY = "why"
"""Attribute of a trial: why it was not run, or not to its end."""
SQLITE_WAIT = 60
"""Seconds that a process waits for others to leave a SQLite file."""


def package() -> Any:
    """Optuna, quiet.

    Raises:
        UserError: it is not installed.
    """
    try:
        import filelock  # noqa: F401
        import optuna
    except ModuleNotFoundError as missing:
        raise UserError(f"a search needs {missing.name}; install it with: pip install 'gnnkd[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


# -- storage ---------------------------------------------------------------------------------------------------


def journal(folder: Path) -> Path:
    """The storage of a search that names no other."""
    return folder / "journal.log"


@contextmanager
def opened(folder: Path, url: str | None) -> Iterator[optuna.storages.BaseStorage]:
    """The storage of a search: a journal in its folder, or a database.

    Raises:
        UserError: the database cannot be opened, or the journal is none.
    """
    package()
    if url is None:
        yield _journal(journal(folder))
        return
    storage = _database(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _journal(file: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        if file.exists():
            _mend(file, JournalFileSymlinkLock(str(file)))
        return JournalStorage(JournalFileBackend(str(file)))
    except (ValueError, KeyError, OSError) as problem:
        raise UserError(f"{file} is no journal of a search ({problem}); choose another --name") from None


def _mend(file: Path, lock: Any) -> None:
    """Cut off a last line that was not written to its end: whatever is written after it would be unreadable."""
    lock.acquire()
    try:
        content = file.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(file, content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _database(url: str) -> Any:
    from optuna.storages import RDBStorage

    waits = {"connect_args": {"timeout": SQLITE_WAIT}} if url.startswith("sqlite") else {}
    try:
        return RDBStorage(url, engine_kwargs=waits)
    except Exception as problem:  # whatever the database's driver raises
        why = str(problem).splitlines()[0]
        raise UserError(
            f"--storage {url}: it cannot be opened ({why}); give a URL as sqlite:///search.db, or leave it "
            "out and have a file"
        ) from None


# -- processes -------------------------------------------------------------------------------------------------


@contextmanager
def held(files: Sequence[Path]) -> Iterator[None]:
    """Wait for locks, in the order of their names; the system frees those of a process that ends in any way."""
    from filelock import FileLock

    with ExitStack() as stack:
        for file in sorted(set(files)):
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(str(file)))
        yield


@contextmanager
def at_work(folder: Path) -> Iterator[str]:
    """A name for this process, whose lock it holds for the duration of a block."""
    name = uuid.uuid4().hex[:12]
    file = _lock_of(folder, name)
    with held([file]):
        yield name
    file.unlink(missing_ok=True)


def _lock_of(folder: Path, worker: str) -> Path:
    return folder / "processes" / f"{worker}.lock"


def _is_gone(folder: Path, worker: str | None) -> bool:
    """Whether a process of this folder has ended; one of another folder is none of our business."""
    from filelock import FileLock, Timeout

    if worker is None:
        return True
    file = _lock_of(folder, worker)
    if not file.exists():
        return False
    try:
        with FileLock(str(file), timeout=0):
            pass
    except Timeout:
        return False
    return True


def cleared(study: optuna.Study, folder: Path) -> list[str]:
    """Mark trials failed whose process is gone, and queue their graphs again; what was done, in words.

    The caller holds the lock of the search. A graph that was interrupted twice is not tried a third time.
    """
    from optuna.trial import TrialState

    said = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_gone(folder, trial.user_attrs.get(WORKER)):
            study.tell(trial.number, state=TrialState.FAIL)
            again = queued_again(study, trial)
            said.append(f"trial {trial.number} was running when its process ended; it counts as failed, and its graph "
                        f"{'is tried again' if again else 'is not tried again'}")  # fmt: skip
    return said


def queued_again(study: optuna.Study, trial: Any) -> bool:
    """Queue the graph of an interrupted trial, if it has one and was not queued for that reason before."""
    if QUEUED in trial.user_attrs or not trial.params:
        return False
    study.enqueue_trial(dict(trial.params), user_attrs={QUEUED: trial.number})
    return True
