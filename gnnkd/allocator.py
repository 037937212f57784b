"""Keep freed memory for the next step instead of giving it back to the system: a setting of glibc's allocator.

A training step allocates and frees the same large tensors again and again. By default glibc maps memory over a
threshold of at most 32 MB anew each time, and every page of it faults on its first use. Two limits are moved here:
blocks up to `LARGEST` bytes come from the heap, and the heap keeps at most `KEPT` free bytes at its top. Both are
bounded: without a bound, memory that one step freed would never serve another process.

Measured in docs/performance.md. `GNNKD_ALLOCATOR=system` leaves the allocator alone.
"""

from __future__ import annotations

import ctypes
import os
import platform

from gnnkd.errors import unknown

VARIABLE = "GNNKD_ALLOCATOR"
CHOICES = ("auto", "system")

LARGEST = 1 << 30
"""Bytes, 1 GiB: larger blocks are still mapped and given back one by one."""
KEPT = 1 << 30
"""Bytes, 1 GiB."""

# Names and numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Set the two limits for this process; whether they are set now.

    Nothing is done off glibc, with `GNNKD_ALLOCATOR=system`, or where the user has set glibc's own variables.

    Raises:
        UserError: another value of the variable.
    """
    choice = (os.environ.get(VARIABLE) or "auto").lower()
    if choice not in CHOICES:
        raise unknown(f"allocator in ${VARIABLE}", choice, CHOICES)
    own = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    if choice == "system" or platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in own):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT))
