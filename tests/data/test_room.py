"""What is free is the least of what the machine has and what a container leaves, by made-up files of the system."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gnnkd.data import room

MB = 1 << 20


def system(root: Path, files: Mapping[str, str] | None = None) -> Path:
    """Files of a system below `root`."""
    for name, text in {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8192 kB\n", **(files or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_the_machine_has(tmp_path: Path) -> None:
    assert room.memory(system(tmp_path)) == 8 * MB


def test_processes_of_one_machine_share_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert room.memory(system(tmp_path)) == 2 * MB


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert room.memory(tmp_path) is None


def test_a_limit_of_version_two_but_for_files_that_were_read(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/box/part\n",
        "sys/fs/cgroup/box/memory.max": f"{6 * MB}\n",
        "sys/fs/cgroup/box/memory.current": f"{5 * MB}\n",
        "sys/fs/cgroup/box/memory.stat": f"anon {MB}\nactive_file {2 * MB}\ninactive_file {MB}\n",
        "sys/fs/cgroup/box/part/memory.max": "max\n",
        "sys/fs/cgroup/box/part/memory.current": f"{MB}\n",
    }
    assert room.memory(system(tmp_path, files)) == 4 * MB


def test_in_a_container_the_top_is_its_own(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{3 * MB}\n",
        "sys/fs/cgroup/memory.current": f"{MB}\n",
    }
    assert room.memory(system(tmp_path, files)) == 2 * MB
    (tmp_path / "proc/self/cgroup").write_text("0::/machine/has/other/names\n")
    assert room.memory(tmp_path) == 2 * MB


def test_a_limit_of_version_one(tmp_path: Path) -> None:
    top = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "9:name=systemd:/\n4:memory:/box\n1:cpu,cpuacct:/\n0::/\n",
        f"{top}/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        f"{top}/memory.usage_in_bytes": f"{MB}\n",
        f"{top}/box/memory.limit_in_bytes": f"{4 * MB}\n",
        f"{top}/box/memory.usage_in_bytes": f"{3 * MB}\n",
        f"{top}/box/memory.stat": f"inactive_file 7\ntotal_inactive_file {MB}\n",
    }
    assert room.memory(system(tmp_path, files)) == 2 * MB


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{MB}\n",
        "sys/fs/cgroup/memory.current": f"{2 * MB}\n",
    }
    assert room.memory(system(tmp_path, files)) == 0
