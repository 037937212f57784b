"""An interrupt waits for the end of its epoch, so that what is saved is whole; a second one does not wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gnnkd.distillers.base import Distiller
from gnnkd.distillers.supervised import Supervised
from gnnkd.nn import mlp
from gnnkd.train import checkpoint
from gnnkd.train.fit import Fit, Progress
from gnnkd.train.interrupt import deferred
from gnnkd.train.settings import TrainSettings
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output, Step

EPOCHS = 6


class _Terminated(KeyboardInterrupt):
    """What the command line makes of SIGTERM."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """SIGTERM raises, as under the command line; both handlers must be back afterwards."""

    def stop(*_: object) -> None:
        raise _Terminated

    former = signal.signal(signal.SIGTERM, stop)
    interrupt = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGTERM) is stop
    assert signal.getsignal(signal.SIGINT) is interrupt
    signal.signal(signal.SIGTERM, former)


class _Signalling(Distiller):
    """Supervised; in the middle of epoch `at` it raises signals."""

    def __init__(self, at: int, *signals: int) -> None:
        self.at, self.signals = at, signals

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        if step.epoch == self.at:
            for number in self.signals:
                signal.raise_signal(number)
        return Supervised().loss(batch, student, teacher, step)


def _fit(distiller: Distiller, file: Path | None = None) -> Fit:
    torch.manual_seed(0)
    x, y = torch.randn(30, 5), torch.arange(30) % 2
    batch = Batch.of(x, y, None, torch.arange(30) < 15)
    settings = TrainSettings(epochs=EPOCHS, checkpoint_every=100)
    course = WholeBatch(mlp(5, 2, width=4), batch, distiller, None, (y, torch.arange(30) >= 15), settings)
    return Fit(course, settings, file=file)


def _same(a: Fit, b: Fit, one: Progress, other: Progress) -> bool:
    weights = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return one.history == other.history and all(torch.equal(p, q) for p, q in weights)


@pytest.mark.parametrize("at", [0, 3, EPOCHS - 1])
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, _Terminated)])
def test_the_epoch_is_finished_and_saved_and_the_run_continues_bit_for_bit(
    tmp_path: Path, at: int, number: int, raised: type[BaseException]
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(raised):
        _fit(_Signalling(at, number), file).run()
    assert checkpoint.load(file)[1]["epoch"] == at + 1
    whole, continued = _fit(Supervised()), _fit(Supervised(), file)
    expected = whole.run()
    assert continued.restore() == at + 1
    assert _same(whole, continued, expected, continued.run())


def test_a_second_signal_is_not_held(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        _fit(_Signalling(3, signal.SIGINT, signal.SIGINT), file).run()
    assert not file.exists(), "the epoch was not finished, so there is nothing whole to save"


def test_without_a_file_the_interrupt_is_passed_on() -> None:
    fit = _fit(_Signalling(2, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        fit.run()
    assert fit.progress.epoch == 3


def test_the_signal_that_came_is_told_and_raised_again() -> None:
    with pytest.raises(_Terminated), deferred() as interrupted:  # noqa: PT012, the last line is the point
        assert interrupted() == 0
        signal.raise_signal(signal.SIGTERM)
        assert interrupted() == signal.SIGTERM


def test_nothing_is_held_outside_the_main_thread() -> None:
    """Where Python allows no handlers, training runs all the same."""
    reached: list[int] = []
    thread = threading.Thread(target=lambda: reached.append(_fit(Supervised()).run().epoch))
    thread.start()
    thread.join()
    assert reached == [EPOCHS]


def test_a_process_told_to_ignore_an_interrupt_goes_on(tmp_path: Path) -> None:
    """Scripts run commands in the background with SIGINT ignored; a run cut off there must not pass for finished."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert _fit(_Signalling(2, signal.SIGINT), tmp_path / "c").run().epoch == EPOCHS
    finally:
        signal.signal(signal.SIGINT, former)


def test_a_handler_that_lets_the_signal_pass_does_not_make_a_run_finished() -> None:
    former = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with pytest.raises(KeyboardInterrupt):
            _fit(_Signalling(2, signal.SIGINT)).run()
    finally:
        signal.signal(signal.SIGINT, former)
