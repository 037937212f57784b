"""Tables of one row a node: in memory as long as a budget lasts, then in files that are mapped."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.errors import UserError


@final
class Tables:
    """Makes tables and takes them back; use it in a `with` block, at whose end the files are gone.

    A mapped table is on the CPU, and its pages leave the memory whenever the system needs that.

    Args:
        memory: bytes of tables that may be in memory at a time, >= 0.
        folder: where the files of the others go; None is the system's place for temporary files.
        like: device and dtype of the tables, float32 or float64.
    """

    def __init__(self, memory: int, folder: Path | None, like: Tensor) -> None:
        self.memory, self.folder, self.like = memory, folder, like
        self._draft: Path | None = None
        self._bytes: dict[int, int] = {}
        self._files: dict[int, Path] = {}
        self._made = 0

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._draft is not None:
            shutil.rmtree(self._draft, ignore_errors=True)

    def check(self, peak: int) -> None:
        """Ask before the work whether there is room for so many bytes of tables at a time.

        Raises:
            UserError: the disk lacks room for what is not in memory, or the device cannot map files.
        """
        beyond = peak - self.memory
        if beyond <= 0:
            return
        if self.like.device.type != "cpu":
            raise UserError(f"the tables of this network take {_gb(peak)} of memory on the GPU; run it on the CPU")
        folder = self.folder or Path(tempfile.gettempdir())
        free = shutil.disk_usage(folder).free
        # Of a table that does not fit into what is left of the budget nothing is in memory.
        if free < peak:
            raise UserError(f"{folder} has {_gb(free)} free and up to {_gb(peak)} are needed; set TMPDIR to another")

    def make(self, rows: int, width: int) -> Float[Tensor, "{rows} {width}"]:
        """A table whose rows are to be written; those that never are cost no memory."""
        size = rows * width * self.like.element_size()
        if size <= self.memory - sum(self._bytes.values()):
            table = torch.empty(rows, width, dtype=self.like.dtype, device=self.like.device)
            self._bytes[id(table)] = size
            return table
        if self._draft is None:
            self._draft = Path(tempfile.mkdtemp(prefix="gnnkd-", dir=self.folder))
        file = self._draft / str(self._made)
        self._made += 1
        kind = np.float64 if self.like.dtype == torch.float64 else np.float32
        table = torch.from_numpy(np.memmap(file, kind, mode="w+", shape=(rows, width)))
        self._files[id(table)] = file
        return table

    def drop(self, table: Tensor) -> None:
        """Give up a table of `make`; other tensors are left alone."""
        self._bytes.pop(id(table), None)
        file = self._files.pop(id(table), None)
        if file is not None:
            file.unlink()


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
