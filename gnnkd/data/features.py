"""Features from outside: checked, brought to float32, kept sparse where that pays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, SPARSE_BELOW

Array = npt.NDArray[Any]
PARTS = ("x_data", "x_indices", "x_indptr", "x_shape")


def read(arrays: Mapping[str, Array], where: str) -> tuple[Tensor | CSR, list[str]]:
    """The features [N, D] of `x`, or of the four CSR parts, and notes on what was done.

    They are sparse below a density of `SPARSE_BELOW`, dense above, whichever way they came.

    Raises:
        UserError: missing, double or broken parts; wrong shape or dtype; a value that is not finite.
    """
    parts = [name for name in PARTS if name in arrays]
    if "x" in arrays and parts:
        raise UserError(f"{where}: both x and {parts[0]} are there; give the features once, dense or as CSR parts")
    if "x" in arrays:
        return _dense(arrays["x"], where)
    if not parts:
        raise UserError(f"{where}: x is missing; give x [N, D], or {', '.join(PARTS)} for sparse features")
    if len(parts) < len(PARTS):
        missing = ", ".join(name for name in PARTS if name not in arrays)
        raise UserError(f"{where}: {missing} missing; sparse features need all of {', '.join(PARTS)}")
    return _sparse(arrays, where)


def stored(x: Tensor | CSR) -> Tensor | CSR:
    """`x` as it is computed with fastest: sparse below a density of `SPARSE_BELOW`, dense above."""
    entries = x.n_entries if isinstance(x, CSR) else int(x.count_nonzero())
    sparse = 0 < entries < SPARSE_BELOW * (x.shape[0] * x.shape[1])
    if isinstance(x, CSR):
        return x if sparse else x.dense()
    return CSR.from_dense(x.float()) if sparse else x


def row_normalised(x: Tensor | CSR, where: str) -> Tensor | CSR:
    """Divide each row by its sum; rows of zeros stay zero.

    Raises:
        UserError: a negative feature, with which a sum means nothing.
    """
    value = x.values() if isinstance(x, CSR) else x
    if value.numel() and value.min() < 0:
        raise UserError(
            f"{where}: features as low as {value.min():.4g}; row normalisation divides by the row's sum and needs "
            "features >= 0: use --set data.normalise=raw"
        )
    if isinstance(x, CSR):
        row = x.row.long()
        total = value.new_zeros(x.shape[0]).index_add_(0, row, value)
        return x.with_value(value / total[row].where(total[row] > 0, 1))
    x = x.float()
    total = x.sum(1, keepdim=True)
    return x / total.where(total > 0, 1)


def parts_of(x: Tensor | CSR) -> dict[str, Array]:
    """The arrays by which a file holds `x`: the inverse of `read`."""
    if not isinstance(x, CSR):
        return {"x": x.cpu().numpy()}
    parts = (x.values(), x.col, x.rowptr)
    return {**dict(zip(PARTS, (part.cpu().numpy() for part in parts), strict=False)), "x_shape": np.array(x.shape)}


def _dense(x: Array, where: str) -> tuple[Tensor | CSR, list[str]]:
    if x.ndim != 2 or not x.shape[1]:
        raise UserError(
            f"{where}: x has shape {list(x.shape)}; it must be [N, D] with at least one feature (a node's degree, say)"
        )
    values = _float32(x, "x", where)
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.unravel_index(bad.argmax(), bad.shape)
        raise _not_finite(x[row, column], int(bad.sum()), f"x[{row}, {column}]", where)
    return stored(torch.from_numpy(values)), _read_as(x)


def _sparse(arrays: Mapping[str, Array], where: str) -> tuple[Tensor | CSR, list[str]]:
    from scipy.sparse import csr_array

    data, indices, indptr, shape = (arrays[name] for name in PARTS)
    n, width = _shape(shape, where)
    _structure(data, indices, indptr, n, width, where)
    values = _float32(data, "x_data", where)
    bad = ~np.isfinite(values)
    if bad.any():
        entry = int(bad.argmax())
        row = int(np.searchsorted(indptr, entry, side="right")) - 1
        at = f"x[{row}, {indices[entry]}] (x_data[{entry}])"
        raise _not_finite(data[entry], int(bad.sum()), at, where)
    # Copied, for the sums and sorting below are done in place.
    matrix = csr_array((values, indices.astype(np.int64), indptr.astype(np.int64)), shape=(n, width), copy=True)
    notes = _read_as(data)
    matrix.sum_duplicates()
    if matrix.nnz < values.size:
        notes.append(f"{values.size - matrix.nnz} repeated entries of x summed")
    matrix.eliminate_zeros()
    if 0 < matrix.nnz < SPARSE_BELOW * n * width:
        return CSR.from_scipy(matrix).with_value(torch.from_numpy(matrix.data)), notes
    return torch.from_numpy(matrix.toarray()), notes


def _shape(shape: Array, where: str) -> tuple[int, int]:
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or (shape < 1).any():
        raise UserError(f"{where}: x_shape is {shape.tolist()!s:.60}; it must be two integers >= 1: nodes, features")
    return int(shape[0]), int(shape[1])


def _structure(data: Array, indices: Array, indptr: Array, n: int, width: int, where: str) -> None:
    for name, part in (("x_data", data), ("x_indices", indices), ("x_indptr", indptr)):
        if part.ndim != 1:
            raise UserError(f"{where}: {name} has shape {list(part.shape)}; it must have one dimension")
    for name, part in (("x_indices", indices), ("x_indptr", indptr)):
        if part.dtype.kind not in "iu":
            raise UserError(f"{where}: {name} is of type {part.dtype}; it must hold integers")
    if data.size != indices.size:
        raise UserError(f"{where}: x_data has {data.size} entries and x_indices {indices.size}; they must be as many")
    if indptr.size != n + 1:
        raise UserError(f"{where}: x_indptr has {indptr.size} entries; {n} rows in x_shape need {n + 1}")
    falls = indptr[1:] < indptr[:-1]
    if indptr[0] != 0 or indptr[-1] != data.size or falls.any():
        raise UserError(
            f"{where}: x_indptr starts at {indptr[0]}, ends at {indptr[-1]} and falls {int(falls.sum())} times; "
            f"it must rise from 0 to the number of entries, {data.size}, and never fall"
        )
    outside = (indices < 0) | (indices >= width)
    if outside.any():
        entry = int(outside.argmax())
        raise UserError(f"{where}: x_indices[{entry}] is {indices[entry]}; columns in x_shape go from 0 to {width - 1}")


def _float32(values: Array, name: str, where: str) -> npt.NDArray[np.float32]:
    if values.dtype.kind not in "fiub":
        raise UserError(f"{where}: {name} is of type {values.dtype}; features must be real numbers: save it as float32")
    with np.errstate(over="ignore"):  # too large becomes inf, which is reported
        return np.require(values, np.float32, ["C", "W"])


def _not_finite(value: Any, count: int, at: str, where: str) -> UserError:
    why = ", beyond the largest float32" if np.isfinite(value) else ""
    return UserError(
        f"{where}: {at} is {value}{why}, the first of {count} features that are not finite; fill them in or drop them"
    )


def _read_as(values: Array) -> list[str]:
    return [] if values.dtype == np.float32 else [f"features of type {values.dtype} read as float32"]
