"""A comparison from its first cell to its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import final

from gnnkd import messages
from gnnkd.allocator import keep_freed_memory
from gnnkd.compare import rows, tuning, writing
from gnnkd.compare.cells import Cell
from gnnkd.compare.comparison import Comparison
from gnnkd.compare.grounds import surveyed
from gnnkd.compare.pool import Outcome, Pool, Work
from gnnkd.compare.pricing import priced
from gnnkd.compare.progress import Board, board
from gnnkd.compare.training import Training, check_generators
from gnnkd.errors import UserError
from gnnkd.ktg import study_storage
from gnnkd.places import Place, summarise
from gnnkd.train.checkpoint import write_json


def run(comparison: Comparison) -> bool:
    """Train what is missing, write tables and page, print the table; whether all cells that can be run are finished.

    After an interrupt tables and page are written, too, from what is finished.

    Raises:
        UserError: data or places do not fit, or nothing can be run.
    """
    if comparison.tune:
        study_storage.package()
    keep_freed_memory()
    course = _Course(surveyed(comparison))
    course.begin()
    try:
        course.train()
        priced(course.comparison)
    finally:
        found = rows.rows(course.comparison)
        writing.write(course.comparison, found)
    writing.told(course.comparison, found)
    return not any(row["status"] == rows.FAILED for row in found)


@final
class _Course:
    """A comparison that is under way, and why cells have failed."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.file = comparison.report / rows.FAILURES
        self.failures = rows.there(self.file)

    # -- before ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Say what the data shows and what cannot be run, and refuse teachers that lack something.

        Raises:
            UserError: two datasets have one folder, or a finished teacher has no generators, and a student learns from
                them.
        """
        comparison = self.comparison
        self._check_folders()
        for ground in comparison.grounds.values():
            for note in ground.notes:
                comparison.say(f"{ground.name}: {note}")
        reasons = {cell.configuration: comparison.cannot(cell) for cell in comparison.cells}
        for configuration, reason in reasons.items():
            if reason is not None:
                comparison.say(f"{configuration}: cannot run: {reason}")
        for cell in self._possible():
            if cell.entry is None and comparison.train and not comparison.overwrite:
                check_generators(cell, self._place(cell))

    def _check_folders(self) -> None:
        """Refuse datasets whose runs would lie in the same places."""
        there: dict[tuple[str, str], str] = {}
        for said, ground in self.comparison.grounds.items():
            other = there.setdefault((ground.name, ground.protocol), said)
            if other != said:
                raise UserError(
                    f"--dataset {other} and {said} have one folder, '{ground.name}'; leave one out, or rename its file"
                )

    def _possible(self) -> list[Cell]:
        return [cell for cell in self.comparison.cells if self.comparison.cannot(cell) is None]

    def _place(self, cell: Cell) -> Place:
        ground = self.comparison.grounds[cell.dataset]
        return cell.place(self.comparison.out, ground.name, ground.protocol)

    # -- training ----------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Teachers, a search if there is one, students."""
        if not self.comparison.tune:
            self._train(self._possible())
            return
        self._train([cell for cell in self._possible() if cell.entry is None])
        with self._pool("trials", 0) as (pool, shown):
            found = tuning.tune(self.comparison, lambda works: _shown(pool, works, shown))
        self.comparison = replace(self.comparison, found=found)
        # A configuration whose trials could not be run stays without a student: an untuned one is no substitute.
        self._train([cell for cell in self._possible() if cell.entry is not None and cell.tuned])

    def _train(self, mine: Sequence[Cell]) -> None:
        # A seed after the other: when it is interrupted, each method has about as many.
        works = [self._work(cell) for cell in sorted(mine, key=lambda cell: _order(self.comparison, cell))]
        keys = {work.key for work in works}
        due = []
        for work in works:
            # A teacher of an earlier round may have failed.
            failed = None if work.after in keys else self.failures.get(work.after or "")
            if failed is None:
                due.append(work)
            else:
                self._heard(work.cell, Outcome(reason=f"its teacher failed: {failed['reason']}"))
        with self._pool("cells", len(due)) as (pool, shown):
            for done, outcome in pool.run(due):
                assert isinstance(done, Training)
                self._heard(done.cell, outcome)
                shown.done()

    @contextmanager
    def _pool(self, what: str, total: int) -> Iterator[tuple[Pool, Board]]:
        with (
            board(what, total, quiet=self.comparison.quiet) as shown,
            Pool(self.comparison.jobs, shown.now) as pool,
        ):
            yield pool, shown

    def _work(self, cell: Cell) -> Training:
        asked = self.comparison
        names = ("data_root", "device", "train", "overwrite")
        return Training(cell, self._place(cell), **{name: getattr(asked, name) for name in names})

    def _heard(self, cell: Cell, outcome: Outcome) -> None:
        """Write down what a cell has come to."""
        if outcome.reason is not None:
            self.failures[cell.key] = {"reason": outcome.reason, "trace": outcome.trace}
            self.comparison.say(f"{cell.title}: failed: {outcome.reason}")
            write_json(self.file, self.failures)
        elif outcome.value is not None:  # where nothing was tried, what was known of it stays
            place = self._place(cell)
            self._summarise(place)
            self.comparison.say(messages.line(outcome.value, place.folder))
            if self.failures.pop(cell.key, None) is not None:
                write_json(self.file, self.failures)

    def _summarise(self, place: Place) -> None:
        try:
            summarise(place)
        except UserError as mistake:  # another seed's files are damaged; its own cell will say so
            self.comparison.say(f"no summary: {mistake}")


def _shown(pool: Pool, works: Sequence[Work], shown: Board) -> Iterator[tuple[Work, Outcome]]:
    """Works of a search, of which nobody knows beforehand how many there will be."""
    shown.more(len(works))
    for one in pool.run(works):
        shown.done()
        yield one


def _order(comparison: Comparison, cell: Cell) -> tuple[int, ...]:
    where = comparison.datasets.index(cell.dataset), comparison.seeds.index(cell.seed)
    return *where, comparison.settings.index(cell.setting), comparison.teachers.index(cell.teacher_model)
