"""Tables of one row a node: in memory as long as a budget lasts, then in files that are mapped."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.errors import UserError


@final
class Tables:
    """Makes tables and takes them back.

    A mapped table is on the CPU, and its pages leave the memory whenever the system needs that. Its file has no name:
    the room is free again when the table is, however the process ends. Tables on a GPU are never mapped.

    Args:
        memory: bytes of tables that may be in the host's memory at a time, >= 0.
        folder: on the disk for the others; None is the system's place for temporary files.
        like: device and dtype of the tables, float32 or float64.
    """

    def __init__(self, memory: int, folder: Path | None, like: Tensor) -> None:
        self.memory, self.like = memory, like
        self.folder = folder or Path(tempfile.gettempdir())
        self._bytes: dict[int, int] = {}

    def check(self, peak: int) -> None:
        """Ask before the work whether there is room for so many bytes of tables at a time.

        Raises:
            UserError: the disk lacks room for what is not in memory, or the GPU for all.
        """
        if self.like.device.type == "cuda":
            # What was given back to torch is as good as free.
            free = torch.cuda.mem_get_info(self.like.device)[0]
            free += torch.cuda.memory_reserved(self.like.device) - torch.cuda.memory_allocated(self.like.device)
            if free < peak:
                raise UserError(
                    f"the tables of this network take {_gb(peak)} and the GPU has {_gb(free)} free; run it on the CPU"
                )
        elif peak > self.memory:
            # Of a table that does not fit into what is left of the budget nothing is in memory.
            there = next(parent for parent in (self.folder, *self.folder.absolute().parents) if parent.exists())
            if (free := shutil.disk_usage(there).free) < peak:
                raise self._full(peak, f"has {_gb(free)} free")

    def make(self, rows: int, width: int) -> Float[Tensor, "{rows} {width}"]:
        """A table whose rows are to be written; in memory those that never are cost none.

        Raises:
            UserError: the disk lacks room for it.
        """
        size = rows * width * self.like.element_size()
        if self.like.device.type != "cpu" or size <= self.memory - sum(self._bytes.values()):
            table = torch.empty(rows, width, dtype=self.like.dtype, device=self.like.device)
            self._bytes[id(table)] = size
            return table
        kind = np.float64 if self.like.dtype == torch.float64 else np.float32
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                # A mapped page without room on the disk would end the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, max(1, size))
                else:
                    file.truncate(max(1, size))
                return torch.from_numpy(np.memmap(file, kind, mode="r+", shape=(rows, width)))
        except OSError as problem:
            raise self._full(size, f"cannot take it ({problem.strerror or problem})") from None

    def drop(self, table: Tensor) -> None:
        """Give up a table of `make`; other tensors are left alone."""
        self._bytes.pop(id(table), None)

    def _full(self, size: int, why: str) -> UserError:
        return UserError(
            f"what lies between two layers takes up to {_gb(size)} of disk and {self.folder} {why}; free space, or "
            "choose another --out (without one, TMPDIR)"
        )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
