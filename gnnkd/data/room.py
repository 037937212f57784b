"""How much memory and disk are free."""

from __future__ import annotations

import shutil
from pathlib import Path


def memory() -> int | None:
    """Bytes of memory that are free or can be made so; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def disk(folder: Path) -> int:
    """Free bytes of the disk where a folder lies, or will lie."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def gb(count: int) -> str:
    """So many bytes in words."""
    return f"{count / 1e9:.1f} GB"
