"""A sparse matrix in compressed rows, with its transposition computed once and kept."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.graph.pattern import Pattern, pointers

if TYPE_CHECKING:
    import scipy.sparse

SPARSE_BELOW = 0.2
"""Share of non-zero features below which a dense matrix is worth keeping as `CSR`.

Measured by `scripts/bench_kernels.py --sections density` (2708 x 1433 features, 256 units, forward and backward):
sparse is 15 times faster at 0.01, 5 at 0.05, 1.4 to 1.9 at 0.2, as fast at 0.3, half as fast at 0.5.
"""


@final
class CSR:
    """A sparse matrix [R, K] in compressed rows.

    Args:
        rowptr: entry `rowptr[r]` is the first of row r and `rowptr[r + 1]` the first behind it (R1 = R + 1 of them).
        col: column of each entry, ascending within a row.
        value: value of each entry, or None for all ones.
        shape: rows R and columns K.
    """

    def __init__(
        self,
        rowptr: Int[Tensor, " R1"],
        col: Int[Tensor, " E"],
        value: Float[Tensor, " E"] | None,
        shape: tuple[int, int],
    ) -> None:
        self._hold(Pattern(rowptr, col, shape), value)

    def _hold(self, pattern: Pattern, value: Tensor | None) -> CSR:
        if value is not None and value.shape != pattern.col.shape:
            raise ValueError(
                f"value has shape {tuple(value.shape)}; one for each of {pattern.col.numel()} entries is needed"
            )
        self.pattern = pattern
        self.value = value
        self._transpose: CSR | None = None
        self._origin: weakref.ref[CSR] | None = None
        return self

    @staticmethod
    def on(pattern: Pattern, value: Float[Tensor, " E"] | None = None) -> CSR:
        """The matrix with these values at the places of `pattern`, which is shared, not copied."""
        return CSR.__new__(CSR)._hold(pattern, value)

    @staticmethod
    def from_coo(
        row: Int[Tensor, " E"], col: Int[Tensor, " E"], value: Float[Tensor, " E"] | None, shape: tuple[int, int]
    ) -> CSR:
        """Sort entries by row, then column, then given order; equal places stay separate entries, which add up.

        Raises:
            ValueError: an index outside `shape`.
        """
        for name, index, size in (("row", row, shape[0]), ("column", col, shape[1])):
            if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
                raise ValueError(
                    f"{name} indices span [{int(index.min())}, {int(index.max())}]; they must lie in [0, {size - 1}]"
                )
        key = row.long() * shape[1] + col.long()
        if bool((key.diff() < 0).any()):
            order = torch.argsort(key, stable=True)
            row, col, value = row[order], col[order], None if value is None else value[order]
        return CSR.on(Pattern(pointers(row, shape[0]), col, shape), value)

    @staticmethod
    def from_edge_index(edge_index: Int[Tensor, "2 E"], n: int, value: Float[Tensor, " E"] | None = None) -> CSR:
        """Adjacency [n, n] of a PyG edge list: row = target = `edge_index[1]`, column = source = `edge_index[0]`."""
        if edge_index.dim() != 2 or edge_index.shape[0] != 2 or edge_index.is_floating_point():
            raise ValueError(
                f"edge_index is {edge_index.dtype} of shape {tuple(edge_index.shape)}; give integers of shape [2, E]"
            )
        return CSR.from_coo(edge_index[1], edge_index[0], value, (n, n))

    @staticmethod
    def from_dense(x: Float[Tensor, "R K"]) -> CSR:
        """The non-zero entries of `x`."""
        row, col = x.nonzero(as_tuple=True)
        return CSR.on(Pattern(pointers(row, x.shape[0]), col, (x.shape[0], x.shape[1])), x[row, col])

    @staticmethod
    def from_scipy(m: scipy.sparse.sparray | scipy.sparse.spmatrix) -> CSR:
        """Any SciPy sparse matrix; duplicates are added up, values take torch's default dtype."""
        rows = m.tocsr(copy=True)
        rows.sum_duplicates()
        pattern = Pattern(torch.from_numpy(rows.indptr), torch.from_numpy(rows.indices), (rows.shape[0], rows.shape[1]))
        return CSR.on(pattern, torch.from_numpy(rows.data).to(torch.get_default_dtype()))

    @property
    def rowptr(self) -> Int[Tensor, " R1"]:
        """First entry of each row, and the end."""
        return self.pattern.rowptr

    @property
    def col(self) -> Int[Tensor, " E"]:
        """Column of each entry."""
        return self.pattern.col

    @property
    def row(self) -> Int[Tensor, " E"]:
        """Row of each entry."""
        return self.pattern.row

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pattern.shape

    @property
    def n_entries(self) -> int:
        """Number of stored entries."""
        return self.col.numel()

    @property
    def density(self) -> float:
        """Stored entries by all places."""
        return self.n_entries / max(1, self.shape[0] * self.shape[1])

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.col.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return torch.get_default_dtype() if self.value is None else self.value.dtype

    @property
    def transpose(self) -> CSR:
        """The transposed matrix [K, R], computed once; `a.transpose.transpose is a`."""
        if self._transpose is not None:
            return self._transpose
        origin = self._origin() if self._origin is not None else None
        if origin is not None:
            return origin
        pattern, order = self.pattern.flipped
        other = CSR.on(pattern, None if self.value is None else self.value[order])
        other._origin = weakref.ref(self)
        if self.value is None or not self.value.requires_grad:  # kept values would be of one autograd graph only
            self._transpose = other
        return other

    def with_value(self, value: Float[Tensor, " E"] | None) -> CSR:
        """The same places with other values; structure and its transposition are shared."""
        return CSR.on(self.pattern, value)

    def values(self, dtype: torch.dtype | None = None) -> Float[Tensor, " E"]:
        """The values, ones written out."""
        dtype = dtype or self.dtype
        if self.value is None:
            return torch.ones(self.n_entries, dtype=dtype, device=self.device)
        return self.value.to(dtype)

    def select_rows(self, ids: Int[Tensor, " S"] | Bool[Tensor, " R"]) -> CSR:
        """The rows `ids` (in that order, repeats allowed), in time of their own size, or those that a mask keeps."""
        ids = as_ids(ids, self.device)
        begin = self.rowptr[ids].long()
        counts = self.rowptr[1:][ids] - begin
        rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        entry = (begin - rowptr[:-1]).repeat_interleave(counts, output_size=int(rowptr[-1]))
        entry += torch.arange(entry.numel(), device=self.device)
        value = None if self.value is None else self.value[entry]
        return CSR.on(Pattern(rowptr, self.col[entry], (ids.numel(), self.shape[1])), value)

    def dense(self) -> Float[Tensor, "R K"]:
        """The matrix written out."""
        out = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        return out.index_put((self.row, self.col), self.values(), accumulate=True)

    def to(self, device: torch.device | str) -> CSR:
        """The same matrix on `device`; itself if it is already there."""
        pattern = self.pattern.to(device)
        return (
            self if pattern is self.pattern else CSR.on(pattern, None if self.value is None else self.value.to(device))
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return CSR.on, (self.pattern, self.value)

    def __repr__(self) -> str:
        return f"CSR(shape={self.shape}, n_entries={self.n_entries}, dtype={self.dtype}, device='{self.device}')"


def as_ids(ids: Tensor, device: torch.device) -> Int[Tensor, " S"]:
    """Row ids on `device`, from ids or from a mask."""
    ids = ids.to(device)
    return ids.nonzero().flatten() if ids.dtype == torch.bool else ids
