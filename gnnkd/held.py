"""One process at a time writes to a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gnnkd.errors import UserError

if sys.platform != "win32":
    import fcntl


@contextmanager
def held(folder: Path, *, what: str) -> Iterator[None]:
    """Keep other processes of this machine out of a folder for the duration of a block.

    The hold is on the folder itself: it leaves no file, and ends with the process however that ends. Where the system
    or the disk knows no such holds, there are none.

    Args:
        folder: made if it is not there, and removed again if it is left empty.
        what: the other process does, as "trains".

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"{folder} cannot be written ({problem.strerror})") from None
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(
            f"another process {what} in {folder}; wait until it has ended, or choose another --out"
        ) from None
    except OSError:  # a disk without holds
        pass
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(handle)
