"""Where the entries of a sparse matrix are."""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor


@final
class Pattern:
    """Where the entries are: compressed rows, shared by all matrices that differ only in their values.

    Args:
        rowptr: entry `rowptr[r]` is the first of row r and `rowptr[r + 1]` the first behind it.
        col: column of each entry, ascending within a row.
        shape: rows R and columns K.
    """

    def __init__(self, rowptr: Int[Tensor, " R1"], col: Int[Tensor, " E"], shape: tuple[int, int]) -> None:
        # Kernels read indices as often as values: 4 bytes instead of 8 wherever they suffice.
        dtype = torch.int32 if max(*shape, col.numel()) < 2**31 else torch.int64
        self.rowptr = rowptr.to(dtype)
        self.col = col.to(dtype)
        self.shape = shape
        self._flipped: tuple[Pattern, Tensor] | None = None
        self._origin: weakref.ref[Pattern] | None = None

    @cached_property
    def row(self) -> Int[Tensor, " E"]:
        """Row of each entry."""
        rows = torch.arange(self.shape[0], device=self.col.device, dtype=self.col.dtype)
        return rows.repeat_interleave(self.rowptr.diff(), output_size=self.col.numel())

    @cached_property
    def _back(self) -> Int[Tensor, " E"]:
        """The order that undoes the flip by which this pattern came about."""
        origin = self._origin() if self._origin is not None else None
        assert origin is not None
        return torch.argsort(origin.flipped[1]).to(self.col.dtype)

    @property
    def flipped(self) -> tuple[Pattern, Int[Tensor, " E"]]:
        """The transposed pattern and `order`: the transposed matrix has the values `value[order]`."""
        if self._flipped is not None:
            return self._flipped
        origin = self._origin() if self._origin is not None else None
        if origin is not None:
            return origin, self._back
        rows, columns = self.shape
        order = torch.argsort(self.col, stable=True)  # entries are in row order, so a stable sort keeps rows ascending
        other = Pattern(pointers(self.col, columns), self.row[order], (columns, rows))
        other._origin = weakref.ref(self)  # weak: a cycle would hold a sampled graph's memory until a collection
        self._flipped = other, order.to(self.col.dtype)
        return self._flipped

    def to(self, device: torch.device | str) -> Pattern:
        """The same pattern on `device`; itself if it is already there."""
        rowptr = self.rowptr.to(device)
        return self if rowptr is self.rowptr else Pattern(rowptr, self.col.to(device), self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pattern, (self.rowptr, self.col, self.shape)


def pointers(index: Int[Tensor, " E"], size: int) -> Int[Tensor, "{size}+1"]:
    """First entry of each row, and the end, for sorted row indices."""
    counts = torch.bincount(index, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
