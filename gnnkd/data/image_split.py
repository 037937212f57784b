"""Which images train, validate and test: class by class, so that each set has the shares of the whole."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gnnkd.errors import UserError
from gnnkd.graph.split import Split

TESTED = 0.2
"""Share of the images that test where no test set is published."""
MOST_VALIDATED = 0.5

Ids = npt.NDArray[np.int64]


def split(
    y: Int[Tensor, " N"],
    seed: int,
    *,
    val_fraction: float,
    test: Bool[Tensor, " N"] | None = None,
    val: Bool[Tensor, " N"] | None = None,
) -> Split:
    """Draw what is not given: a fifth of all images tests, then `val_fraction` of the others validates.

    One `RandomState(seed)` permutes the rows of one class after another, ascending, first for the test and then for
    validation. Labels of test rows that are given have no say in it.

    Args:
        y: class ids.
        seed: 0 .. 2^32 - 1.
        val_fraction: of the images that do not test, 0 .. 0.5; 0 leaves none to validate.
        test: rows that test.
        val: rows that validate; nothing is then drawn for it.

    Raises:
        UserError: a seed or fraction out of range, a set without an image.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}; it must be an integer from 0 to {2**32 - 1}")
    if not 0 <= val_fraction <= MOST_VALIDATED:
        raise UserError(f"val_fraction is {val_fraction}; it must be from 0 to {MOST_VALIDATED}, 0 for no validation")
    draw, ids = np.random.RandomState(seed), y.cpu().numpy()
    rows = np.arange(ids.size)
    tested = _drawn(ids, rows, TESTED, draw) if test is None else np.flatnonzero(test.cpu().numpy())
    rest = np.setdiff1d(rows, tested)
    validated = _drawn(ids, rest, val_fraction, draw) if val is None else np.flatnonzero(val.cpu().numpy())
    train = np.setdiff1d(rest, validated)
    _check(train, "train", "add images")
    _check(tested, "test", "add images")
    if val_fraction and val is None:
        _check(validated, "validate", f"val_fraction is {val_fraction} of {rest.size} images: raise it, or set it to 0")
    return Split.of_ids(ids.size, train, validated, tested)


def _drawn(y: Ids, rows: Ids, share: float, draw: np.random.RandomState) -> Ids:
    """round(share * rows) of the rows; each class gives its share, and one more where most is left of its fraction.

    A class never gives its last row, so that something of it is left to train.
    """
    classes, sizes = np.unique(y[rows], return_counts=True)
    wanted = share * sizes
    counts = np.floor(wanted).astype(np.int64)
    left = wanted - counts
    order = [c for c in np.argsort(-left, kind="stable") if counts[c] + 1 < sizes[c] and left[c] > 0]
    counts[order[: max(0, _rounded(share * rows.size) - int(counts.sum()))]] += 1
    found = [draw.permutation(rows[y[rows] == c])[:n] for c, n in zip(classes, counts, strict=True)]
    return np.sort(np.concatenate([*found, np.empty(0, dtype=np.int64)]))


def _rounded(value: float) -> int:
    return math.floor(value + 0.5)


def _check(rows: Ids, what: str, way_out: str) -> None:
    if not rows.size:
        raise UserError(f"the split leaves no image to {what}; {way_out}")


def masks(n_train: int, n_val: int, n_test: int) -> tuple[Bool[Tensor, " N"], Bool[Tensor, " N"]]:
    """The masks of validation and test of rows that lie one set after the other."""
    place = torch.arange(n_train + n_val + n_test)
    return (place >= n_train) & (place < n_train + n_val), place >= n_train + n_val
