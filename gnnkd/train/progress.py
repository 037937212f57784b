"""What a user sees while a stage trains: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, final

from rich import progress as rich
from rich.console import Console


class Bar(Protocol):
    """One stage's bar."""

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        """Say that `epoch` (from 0) is done, with the numbers worth showing."""

    def within(self, epoch: int, share: float) -> None:
        """Say that so much of `epoch` is done, in [0, 1]."""


class Progress(Protocol):
    """Where stages report."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """A bar of `total` epochs for the stage called `title`, for the duration of a block."""


@final
class Silent:
    """Shows nothing; it is its own bar."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Bar]:
        """A bar that shows nothing."""
        yield self

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        """Show nothing."""

    def within(self, epoch: int, share: float) -> None:
        """Show nothing."""


@final
class Bars:
    """Bars on standard error, one after another."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Bar]:
        """A bar that stays on the screen at its last state."""
        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(bar_width=24),
            rich.MofNCompleteColumn(),
            rich.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            rich.TextColumn("{task.fields[values]}"),
        )
        with rich.Progress(*columns, console=Console(stderr=True)) as shown:
            yield _RichBar(shown, title, total)


@final
class _RichBar:
    def __init__(self, shown: rich.Progress, title: str, total: int) -> None:
        self._shown = shown
        self._task = shown.add_task(title, total=total, values="")

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._shown.update(self._task, completed=epoch + 1, values=text)

    def within(self, epoch: int, share: float) -> None:
        self._shown.update(self._task, completed=epoch + share)


def progress(*, quiet: bool = False) -> Progress:
    """Bars when standard error is a terminal and `quiet` is False."""
    return Silent() if quiet or not sys.stderr.isatty() else Bars()
