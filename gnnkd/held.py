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
def held(folder: Path, *, what: str, flag: str = "--out") -> Iterator[None]:
    """Keep other processes of this machine out of a folder for the duration of a block.

    The hold is on the folder itself: it leaves no file, and ends with the process however that ends. Where the system
    or the disk knows no such holds, there are none.

    Args:
        folder: made if it is not there, and removed again if it is left empty.
        what: the other process does, as "trains".
        flag: by which a user chooses another folder.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        handle = _hold(folder)
    except BlockingIOError:
        said = f"another process {what} in {folder}; wait until it has ended, or choose another {flag}"
        raise UserError(said) from None
    except OSError as problem:
        raise UserError(f"{folder} cannot be written ({problem.strerror})") from None
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(handle)


def _hold(folder: Path) -> int:
    """An open, held folder that is there."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # whoever held it has removed it in between
            continue
        try:
            if not _locked(handle) or (folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat())):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _locked(handle: int) -> bool:
    """Whether it is held now; not, on a disk without holds."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
