"""What a user sees while cells are trained: one bar over all of them, and what is being trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, final

from rich import progress as rich
from rich.console import Console

SHOWN = 3
"""Titles beside the bar."""


class Board(Protocol):
    """Where the cells report."""

    def more(self, number: int) -> None:
        """Say that there is more to do."""

    def now(self, titles: Sequence[str]) -> None:
        """Say what is being done."""

    def done(self) -> None:
        """Say that one more is done, or has failed."""


@final
class Nothing:
    """Shows nothing."""

    def more(self, number: int) -> None:
        """Show nothing."""

    def now(self, titles: Sequence[str]) -> None:
        """Show nothing."""

    def done(self) -> None:
        """Show nothing."""


@final
class _Bar:
    def __init__(self, shown: rich.Progress, what: str, total: int) -> None:
        self._shown = shown
        self._task, self._total = shown.add_task(what, total=total, now=""), total

    def more(self, number: int) -> None:
        self._total += number
        self._shown.update(self._task, total=self._total)

    def now(self, titles: Sequence[str]) -> None:
        more = f", and {len(titles) - SHOWN} more" if len(titles) > SHOWN else ""
        self._shown.update(self._task, now="; ".join(titles[:SHOWN]) + more)

    def done(self) -> None:
        self._shown.advance(self._task)


@contextmanager
def board(what: str, total: int, *, quiet: bool) -> Iterator[Board]:
    """A bar of `total` on standard error for the duration of a block; nothing off a terminal, or if `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield Nothing()
        return
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=24),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.fields[now]}"),
    )
    with rich.Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as shown:
        yield _Bar(shown, what, total)
