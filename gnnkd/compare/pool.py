"""Work shared by processes: each after what it waits for, and what belongs together in one of them.

A process goes through a group of works while there are others that nobody has begun; then it helps others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import final

from typing_extensions import Self

from gnnkd.compare.workers import Outcome, Team, Work

__all__ = ["Outcome", "Pool", "Work"]


@final
class Pool:
    """Processes that stay for one row of works after another, in a `with` block.

    When the block ends by an error or an interrupt, the processes finish their epoch, save, and end.

    Args:
        jobs: processes at once, at most.
        shown: hears the titles of what is being done whenever that changes.
    """

    def __init__(self, jobs: int, shown: Callable[[Sequence[str]], None] | None = None) -> None:
        self._team, self._shown = Team(jobs), shown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._team.stop()
        finally:
            self._team.dismiss()

    def run(self, works: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
        """Do all works; each is yielded when it is done, or has failed.

        A work whose predecessor has failed fails with that reason; one whose predecessor is not among `works` waits for
        nothing.
        """
        queue, team = _Queue(works), self._team
        while True:
            yield from queue.lost()
            while (worker := team.free(needed=bool(queue.ready()))) is not None:
                worker.begin(queue.take(worker.group, team.groups()))
            at_work = [worker.work.title for worker in team.workers if worker.work is not None]
            if self._shown is not None:
                self._shown(at_work)
            if not at_work:
                return
            for work, outcome in team.hear():
                queue.settle(work, outcome)
                yield work, outcome


# -- what is to be done ----------------------------------------------------------------------------------------


@final
class _Queue:
    def __init__(self, works: Sequence[Work]) -> None:
        self.waiting = list(works)
        self.titles = {work.key: work.title for work in works}
        self.done: dict[str, str | None] = {}
        """Why it failed, by key; None where it did not."""

    def settle(self, work: Work, outcome: Outcome) -> None:
        self.done[work.key] = outcome.reason

    def lost(self) -> Iterator[tuple[Work, Outcome]]:
        """Works whose predecessors have failed; they are out of the queue."""
        for work in [one for one in self.waiting if self.done.get(one.after or "")]:
            self.waiting.remove(work)
            before = work.after or ""
            outcome = Outcome(reason=f"{self.titles[before]}: {self.done[before]}")
            self.settle(work, outcome)
            yield work, outcome

    def ready(self) -> list[Work]:
        """Works that wait for nothing."""
        return [one for one in self.waiting if one.after not in self.titles or one.after in self.done]

    def take(self, mine: tuple[Hashable, ...], others: set[tuple[Hashable, ...]]) -> Work:
        """The next work for a process whose last one was of the group `mine`, while others are at `others`.

        Its own group first, then one that nobody is at, rather with the same beginning, then whatever there is.
        """

        def order(work: Work) -> tuple[bool, bool, int]:
            alike = next((i for i, (a, b) in enumerate(zip(work.group, mine, strict=False)) if a != b), len(mine))
            return work.group != mine, work.group in others, -alike

        chosen = min(self.ready(), key=order)
        self.waiting.remove(chosen)
        return chosen
