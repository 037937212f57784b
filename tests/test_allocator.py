"""The allocator's setting: freed memory is there again without page faults, up to a bound."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gnnkd import allocator
from gnnkd.errors import UserError

ROOT = Path(__file__).parents[1]
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")

FAULTS = """
import resource
import numpy as np
from gnnkd import allocator
print(allocator.keep_freed_memory())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(40 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
KEPT = """
import numpy as np
from pathlib import Path
from gnnkd import allocator
allocator.KEPT = 64 << 20
assert allocator.keep_freed_memory()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before = resident()
arrays = [np.ones(100 << 20, np.uint8) for _ in range(3)]
held = resident()
del arrays
print(held - before, resident() - before)
"""


@pytest.fixture(autouse=True)
def _own_variables_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GNNKD_ALLOCATOR", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def printed(program: str) -> list[str]:
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return answer.stdout.split()


@glibc
def test_memory_that_was_freed_comes_back_without_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    on, faults = printed(FAULTS)
    assert on == "True"
    assert int(faults) < 100, "40 MB are 10240 pages"
    monkeypatch.setenv("GNNKD_ALLOCATOR", "system")
    off, faults = printed(FAULTS)
    assert off == "False"


@glibc
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident size is read from /proc")
def test_what_is_kept_is_bounded() -> None:
    held, kept = map(int, printed(KEPT))
    assert held > 300 << 20
    assert kept < 80 << 20


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_himself_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not allocator.keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_freed_memory()


def test_another_word_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNNKD_ALLOCATOR", "sytem")
    with pytest.raises(UserError, match=r"allocator in \$GNNKD_ALLOCATOR 'sytem'.*did you mean 'system'"):
        allocator.keep_freed_memory()
