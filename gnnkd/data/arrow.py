"""Columns of Arrow tables as tensors and back; pyarrow is imported when it is needed, and need not be there."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.errors import UserError

FEATURES = "features"


def features(piece: Any, *, width: int | None = None, where: str = "the table") -> Float[Tensor, "n D"]:
    """The features of an Arrow table or record batch, as float32.

    Args:
        piece: what has the column.
        width: numbers in a row that are expected; None takes those of the first row.
        where: how errors call the place.

    Raises:
        UserError: no such column, one that holds no lists of numbers, another width, or a missing value.
    """
    pa, _ = packages()
    if FEATURES not in piece.schema.names:
        raise UserError(f"{where} has no column '{FEATURES}'; it has {', '.join(piece.schema.names) or 'none'}")
    column = piece.column(FEATURES)
    if not any(kind(column.type) for kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        raise UserError(f"{where}: '{FEATURES}' is of type {column.type}; it must be a list of numbers in each row")
    if not pa.types.is_floating(column.type.value_type):
        raise UserError(f"{where}: '{FEATURES}' holds {column.type.value_type}; features are floating point numbers")
    inner = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    # Of a table's column of several chunks, older versions give one array, newer ones may give chunks again.
    parts = inner.chunks if isinstance(inner, pa.ChunkedArray) else [inner]
    sizes, found = _widths(parts), [part.flatten() for part in parts]
    if any(part.null_count for part in (*parts, *found)):
        raise UserError(f"{where}: '{FEATURES}' has missing values; fill them in")
    n = len(column)
    expected = width if width is not None else int(sizes[0]) if n else 0
    if n and bool((sizes != expected).any()):
        other = int(sizes[sizes != expected][0])
        raise UserError(f"{where} has rows of {other} features; {expected} are expected: is it of another data set?")
    values = [part.to_numpy(zero_copy_only=False).astype(np.float32) for part in found]
    flat = np.concatenate(values) if values else np.empty(0, np.float32)
    return torch.from_numpy(flat.reshape(n, expected))


def _widths(parts: Sequence[Any]) -> Any:
    compute = importlib.import_module("pyarrow.compute")
    found = [compute.list_value_length(part).fill_null(0).to_numpy(zero_copy_only=False) for part in parts]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def whole(piece: Any, name: str, where: str) -> Int[Tensor, " n"]:
    """A column of whole numbers.

    Raises:
        UserError: another type, or a missing value.
    """
    pa, _ = packages()
    column = piece.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        raise UserError(f"{where}: '{name}' is of type {column.type} or has missing values; it must be whole numbers")
    return torch.from_numpy(column.to_numpy(zero_copy_only=False).astype(np.int64))


def listed(matrix: Any) -> Any:
    """The rows of an array [n, W] as an Arrow array of lists of W numbers."""
    pa, _ = packages()
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1)), matrix.shape[1])


def packages() -> tuple[Any, Any]:
    """pyarrow and its part about Parquet.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as missing:
        raise UserError(f"Parquet needs {missing.name}; install it with: pip install 'gnnkd[parquet]'") from None
