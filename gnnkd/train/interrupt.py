"""Interrupts that wait for the end of an epoch, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Hold SIGINT and SIGTERM back; the yielded function returns the signal that came, or 0.

    A second signal is not held back. On leaving the block the former handlers are put back and the held signal is
    raised again. Outside the main thread, where Python allows no handlers, nothing is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []

    def hold(number: int, _: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    # A process in a script's background inherits "ignore", and then goes on ignoring.
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    former = {number: signal.signal(number, hold) for number in heard}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
