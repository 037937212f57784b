"""Tables of numbers in `.csv.gz` files, read a block of lines at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnnkd.errors import UserError

LINES = 2**18
"""Lines in a block: what is parsed and not yet stored stays small beside the table."""

Array = npt.NDArray[Any]


def read(file: Path, *, dtype: type[np.generic], rows: int | None = None, columns: int | None = None) -> Array:
    """The numbers of a file without a header line, [rows, columns].

    Args:
        file: comma separated and gzipped; blank lines do not count.
        dtype: of each number.
        rows: how many there must be; any number by default.
        columns: how many there must be; as many as in the first line by default.

    Raises:
        UserError: the file is damaged, is no table of such numbers or is of another size.
    """
    try:
        with np.errstate(over="ignore"):  # too large becomes inf, which whoever reads the table reports
            if rows is None:
                return np.concatenate(list(_blocks(file, dtype, columns)))
            return _filled(file, dtype, rows, columns)
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{file}: a table of {rows} rows does not fit into memory") from None
    # A broken archive, a broken line, no line at all, a number that is none or too large.
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file} cannot be read ({reason:.200}); replace it by a whole one") from error


def _filled(file: Path, dtype: type[np.generic], rows: int, columns: int | None) -> Array:
    table, done = np.empty((0, 0), dtype), 0
    for block in _blocks(file, dtype, columns):
        if not done:
            table = np.empty((rows, block.shape[1]), dtype)
        if done + len(block) <= rows:
            table[done : done + len(block)] = block
        done += len(block)
    if done != rows:
        raise UserError(f"{file} has {done} lines of numbers; there must be {rows}, as the files of counts say")
    return table


def _blocks(file: Path, dtype: type[np.generic], columns: int | None) -> Iterator[Array]:
    import pandas as pd

    # Without the filter for missing values an empty field is an error, and not a number that was never written.
    with pd.read_csv(
        file, header=None, dtype=dtype, engine="c", compression="gzip", na_filter=False, chunksize=LINES
    ) as blocks:
        for block in blocks:
            if columns is not None and block.shape[1] != columns:
                raise UserError(f"{file} has {block.shape[1]} numbers a line; there must be {columns}")
            yield block.to_numpy()
