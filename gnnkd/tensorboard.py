"""A training's scalars as TensorBoard's files, beside its results: `tensorboard --logdir runs`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from gnnkd import processes
from gnnkd.errors import UserError
from gnnkd.train.progress import Bar, Progress

FOLDER = "tensorboard"
"""Below that of the run."""


@final
class Writing:
    """Progress that is shown by another and written while it comes; it is for one stage."""

    def __init__(self, shown: Progress, writer: Any) -> None:
        self._shown, self._writer = shown, writer
        self._seen: set[str] = set()

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Bar]:
        """The bar of the other one, with scalars written after each epoch."""
        with self._shown.stage(title, total) as bar:
            yield _Bar(bar, self._write)

    def _write(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._seen.add(name)
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def rest(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write what bars are not told, as single loss terms."""
        for row in history:
            left = {name: value for name, value in row.items() if name != "epoch" and name not in self._seen}
            for name, value in left.items():
                self._writer.add_scalar(name, value, int(row["epoch"]))


@final
class _Bar:
    def __init__(self, bar: Bar, write: Any) -> None:
        self._bar, self._write = bar, write

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        self._bar.update(epoch, values)
        self._write(epoch, values)

    def within(self, epoch: int, share: float) -> None:
        self._bar.within(epoch, share)


def check() -> None:
    """Refuse before anything is trained where TensorBoard is not there.

    Raises:
        UserError: it is not.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UserError(
            "--tensorboard needs the package tensorboard; install it with pip install 'gnnkd[log]'"
        ) from None


@contextmanager
def beside(shown: Progress, folder: Path, *, wanted: bool) -> Iterator[Progress]:
    """Progress that is also written below `folder`, for the duration of a block; of several processes by the first.

    Args:
        shown: who shows it.
        folder: of a run.
        wanted: False leaves `shown` as it is.
    """
    if not wanted or processes.rank() > 0:
        yield shown
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / FOLDER))
    try:
        yield Writing(shown, writer)
    finally:
        writer.close()


def rest(progress: Progress, history: Sequence[Mapping[str, float]]) -> None:
    """Write what bars are not told, where anything is written."""
    if isinstance(progress, Writing):
        progress.rest(history)


def rest_of(progress: Progress, metrics: Path) -> None:
    """As `rest`, with the history that a finished run has written, a line an epoch."""
    if isinstance(progress, Writing):
        progress.rest([json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()])
