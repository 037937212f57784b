"""How much memory and disk are free."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory that are free or can be made so; None where the system does not say.

    The least of what the machine has and of what the control groups of this process leave to it (those of a container
    or of a batch system): the limit of each less what is used but for files that were read, which make way. Processes
    that torchrun has started here share it.

    Args:
        root: of the system's files.
    """
    found = [*_machine(root), *_groups(root)]
    return max(0, min(found)) // sharing() if found else None


def sharing() -> int:
    """How many processes torchrun has started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _machine(root: Path) -> list[int]:
    said = _numbers(root / "proc/meminfo")
    return [1024 * said["MemAvailable:"]] if "MemAvailable:" in said else []


def _groups(root: Path) -> list[int]:
    """What each control group with a limit leaves, of either version; groups lie in one another."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        kinds, path = line.split(":", 2)[1:]
        if kinds and "memory" not in kinds.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if kinds else "")
        limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        # In a container the path is often that of the machine, of which the container sees its own part as the top.
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents[: len(inner.parts) - len(top.parts)]):
            most, now = _number(group / limit), _number(group / used)
            if most is not None and now is not None:
                stat = _numbers(group / "memory.stat")
                prefix = "total_" if kinds else ""
                found.append(most - now + sum(stat.get(f"{prefix}{what}_file", 0) for what in ("active", "inactive")))
    return found


def _number(file: Path) -> int | None:
    """The one number of a file; None where there is no file, or a word, as of no limit."""
    try:
        said = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(said) if said.isdecimal() else None


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line, by the word before it."""
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}


def disk(folder: Path) -> int:
    """Free bytes of the disk where a folder lies, or will lie."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def gb(count: int) -> str:
    """So many bytes in words."""
    return f"{count / 1e9:.1f} GB"
