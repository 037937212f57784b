"""Arrays with one entry for each row of a data set: mapped ones, and what is read of them into memory."""

from __future__ import annotations

import mmap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gnnkd.errors import UserError

Array = npt.NDArray[Any]


def opened(file: Path, rows: int) -> Array:
    """A matrix of float32 or float16 in an .npy file, mapped and read-only.

    Args:
        file: that holds it.
        rows: how many it must have.

    Raises:
        UserError: it is missing, truncated, or another array than that.
    """
    try:
        found: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is missing, truncated or damaged ({reason}); make it again") from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype not in (np.float32, np.float16):
        raise UserError(f"{file} is no matrix of float32 or float16; make it again")
    if found.shape[0] != rows:
        raise UserError(f"{file} has {found.shape[0]} rows; it must have {rows}, one for each node: make it again")
    return found


def shared(array: Array) -> Tensor:
    """A tensor over an array itself, which may be mapped and read-only: nothing in the house writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        found = torch.from_numpy(array)
    found.__dict__["array"] = array
    return found


def array(tensor: Tensor) -> Array:
    """The array that a tensor of `shared` lies over, so that its pages can be forgotten; of another one, its values."""
    found: Array | None = tensor.__dict__.get("array")
    return tensor.cpu().numpy() if found is None else found


@final
@dataclass(frozen=True, eq=False)
class Kept:
    """Rows in memory, in the types that they have on disk.

    Args:
        ids: of the rows in the full data, [n].
        x: features [n, D].
        y: class ids [n].
        labelled: booleans [n], whether training may read the label.
        logits: the teacher's [n, C], None without a teacher.
    """

    ids: Array
    x: Array
    y: Array
    labelled: Array
    logits: Array | None

    @property
    def arrays(self) -> list[Array]:
        """Those that there are, in the order of the arguments."""
        return [a for a in (self.ids, self.x, self.y, self.labelled, self.logits) if a is not None]

    def __getitem__(self, rows: slice) -> Kept:
        logits = None if self.logits is None else self.logits[rows]
        return Kept(self.ids[rows], self.x[rows], self.y[rows], self.labelled[rows], logits)

    def copy(self) -> Kept:
        """The same in memory of its own: a slice keeps all that it was cut from."""
        logits = None if self.logits is None else self.logits.copy()
        return Kept(self.ids.copy(), self.x.copy(), self.y.copy(), self.labelled.copy(), logits)


def forget(array: np.memmap[Any, Any]) -> None:
    """Take the pages that were read out of this process's memory; the system keeps them as long as it likes.

    Without it a process grows by all that it has read. A mapping with changes of its own (mode "c") would lose them.
    """
    mapping: object = getattr(array, "_mmap", None)
    if isinstance(mapping, mmap.mmap) and array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def empty_like(x: Array, logits: Array | None, n: int) -> Kept:
    """Room for `n` rows as they are in `x` [N, D] and `logits` [N, C]."""
    said = None if logits is None else np.empty((n, logits.shape[1]), logits.dtype)
    features = np.empty((n, x.shape[1]), x.dtype)
    return Kept(np.empty(n, np.int64), features, np.empty(n, np.int64), np.empty(n, np.bool_), said)
