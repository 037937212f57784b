"""Processes of one thread each that do one work after another and keep what they have loaded for the next one.

They are fresh ones ("spawn"), for a fork may not use CUDA. What happens to one of them happens to its work alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn, Protocol, final

from gnnkd.errors import UserError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Work(Protocol):
    """What one process does in one go; it is sent to it, so it can be pickled."""

    @property
    def key(self) -> str:
        """No other work has it."""

    @property
    def title(self) -> str:
        """In a few words."""

    @property
    def after(self) -> str | None:
        """The key of the work that must have been done before, if any."""

    @property
    def group(self) -> tuple[Hashable, ...]:
        """Work of one group shares all that a process keeps; what begins alike shares some of it."""

    def do(self, kept: dict[Any, Any]) -> Any:
        """Do it; `kept` is the process's own, to keep what its next work may need. The result can be pickled."""


@final
@dataclass(frozen=True)
class Outcome:
    """What a work came to: its result, or in a line why there is none, and where in the code if that is a surprise."""

    value: Any = None
    reason: str | None = None
    trace: str | None = None


@final
class Worker:
    """A process, and the work and the group of work that it is at."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _one_thread():
            self.process.start()
        theirs.close()  # else the end of the process would not be the end of the pipe
        self.work: Work | None = None
        self.group: tuple[Hashable, ...] = ()

    def begin(self, work: Work) -> None:
        """Give it something to do."""
        self.work, self.group = work, work.group
        # The process may just have been killed: then the pipe says so when it is read.
        with suppress(OSError):
            self.pipe.send(work)

    def answer(self) -> tuple[Work, Outcome, bool]:
        """What its work came to, and whether the process goes on."""
        work, self.work = self.work, None
        assert work is not None
        try:
            outcome, goes_on = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return work, Outcome(reason=_ended(self.process.exitcode)), False
        return work, outcome, goes_on


@final
@dataclass
class Team:
    """At most so many processes, started when they are needed."""

    jobs: int
    workers: list[Worker] = field(default_factory=list)

    def free(self, *, needed: bool) -> Worker | None:
        """One that has nothing to do, a new one if all have and there may be more; None where none is needed."""
        if not needed:
            return None
        idle = next((worker for worker in self.workers if worker.work is None), None)
        if idle is None and len(self.workers) < self.jobs:
            idle = Worker()
            self.workers.append(idle)
        return idle

    def groups(self) -> set[tuple[Hashable, ...]]:
        """What is being gone through."""
        return {worker.group for worker in self.workers if worker.work is not None}

    def hear(self) -> Iterator[tuple[Work, Outcome]]:
        """Wait until one or more have something to say."""
        busy = {worker.pipe: worker for worker in self.workers if worker.work is not None}
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection)
            work, outcome, goes_on = busy[pipe].answer()
            if not goes_on:
                self._leave(busy[pipe])
            yield work, outcome

    def _leave(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.pipe.close()
        worker.process.join()

    def stop(self) -> None:
        """Tell all to save and end, and wait for that. A second interrupt kills them."""
        try:
            for worker in self.workers:
                worker.process.terminate()
            for worker in self.workers:
                worker.process.join()
        except KeyboardInterrupt:
            for worker in self.workers:
                worker.process.kill()
            raise

    def dismiss(self) -> None:
        """Let all go, who have nothing to do any more."""
        for worker in self.workers:
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join()
        self.workers.clear()


def _ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = "; perhaps there was too little memory: fewer processes need less (--jobs)" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{memory}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """What a process started in the block finds in its environment."""
    former = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        _restore(former)


def _restore(former: Mapping[str, str | None]) -> None:
    for name, value in former.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# -- in the process --------------------------------------------------------------------------------------------


def _serve(pipe: Connection) -> None:
    """Do one work after another, until the pipe is closed or the process is told to stop."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    # Ctrl-C reaches all processes of a terminal: the first one tells the others, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    try:
        _alone()
        kept: dict[Any, Any] = {}
        goes_on = True
        while goes_on:
            outcome = _done(pipe.recv(), kept)
            # What surprised the code may have spoilt the process.
            goes_on = outcome.trace is None
            pipe.send((outcome, goes_on))
    except (KeyboardInterrupt, EOFError, OSError):
        return


def _alone() -> None:
    import torch

    from gnnkd.allocator import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()


def _done(work: Work, kept: dict[Any, Any]) -> Outcome:
    try:
        return Outcome(work.do(kept))
    except UserError as mistake:
        return Outcome(reason=" ".join(str(mistake).split()))
    except Exception as problem:
        said = " ".join(str(problem).split())
        return Outcome(reason=f"{type(problem).__name__}: {said}"[:500], trace=traceback.format_exc())
