"""Labels and masks from outside: checked and brought to class ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gnnkd.errors import UserError
from gnnkd.graph.split import Split
from gnnkd.types import UNKNOWN

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

MASKS = ("train_mask", "val_mask", "test_mask")


def checked(y: Array, where: str) -> tuple[Ids, list[str]]:
    """The labels [N] as int64, and notes on what was done.

    Integers and booleans are taken, and floats if each is a whole number.

    Raises:
        UserError: wrong shape or dtype, a fraction, a label below -1, no node, fewer than two classes.
    """
    if y.ndim != 1:
        hint = "; save y.reshape(-1)" if y.ndim == 2 and 1 in y.shape else "; one-hot rows: save y.argmax(1)"
        raise UserError(f"{where}: y has shape {list(y.shape)}; it must be [N]{hint if y.ndim == 2 else ''}")
    if not y.size:
        raise UserError(f"{where}: y is empty; a graph needs nodes")
    if y.dtype.kind not in "iubf":
        raise UserError(f"{where}: y is of type {y.dtype}; labels must be integers, -1 = unknown: number the classes")
    notes = []
    if y.dtype.kind == "f":
        _no_fraction(y, where)
        notes.append(f"labels of type {y.dtype} read as integers")
    labels = y.astype(np.int64)
    wrapped = (labels < 0) & (y > 0)  # too large for int64
    if (outside := (labels < UNKNOWN) | wrapped).any():
        node = int(outside.argmax())
        raise UserError(f"{where}: y[{node}] is {y[node]}; labels must be from 0 to 2^63 - 1, or -1 = unknown")
    classes = np.unique(labels[labels != UNKNOWN])
    if classes.size < 2:
        found = f"only class {classes[0]}" if classes.size else "no known label"
        raise UserError(f"{where}: y holds {found}; a classification needs at least two classes")
    return labels, notes


def numbered(labels: Ids) -> tuple[Ids, tuple[int, ...]]:
    """Class ids 0 .. C - 1 in ascending order of the labels, `UNKNOWN` kept, and the label of each id."""
    known = labels != UNKNOWN
    classes, ids = np.unique(labels[known], return_inverse=True)
    y = np.full(labels.size, UNKNOWN, dtype=np.int64)
    y[known] = ids
    return y, tuple(int(c) for c in classes)


def masks(arrays: Mapping[str, Array], y: Ids, where: str) -> Split | None:
    """The split that the three masks say, or None where there are none.

    Raises:
        UserError: one or two of the three, wrong shape, length or dtype, an empty or overlapping mask, an unknown node.
    """
    there = [name for name in MASKS if name in arrays]
    if not there:
        return None
    if len(there) < 3:
        missing = " and ".join(name for name in MASKS if name not in arrays)
        raise UserError(
            f"{where}: {' and '.join(there)} without {missing}; give all three masks, or none and choose a --split"
        )
    found = [_mask(arrays[name], name, y, where) for name in MASKS]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = found[i] & found[j]
        if both.any():
            raise UserError(
                f"{where}: {MASKS[i]} and {MASKS[j]} overlap in {int(both.sum())} nodes, first node "
                f"{int(both.argmax())}; a node may be in one mask at most"
            )
    return Split(*(torch.from_numpy(mask) for mask in found))


def _mask(mask: Array, name: str, y: Ids, where: str) -> npt.NDArray[np.bool_]:
    n = y.size
    if mask.ndim == 2:
        raise UserError(
            f"{where}: {name} has shape {list(mask.shape)}, a column for each of several splits; choose one: "
            f"{name}[:, 0]"
        )
    if mask.dtype.kind not in "biu":
        raise UserError(f"{where}: {name} is of type {mask.dtype}; a mask must be boolean, or 0 and 1, one a node")
    zero_one = (mask == 0) | (mask == 1)
    if mask.shape != (n,) or not zero_one.all():
        what = f"has shape {list(mask.shape)}" if zero_one.all() else f"holds {mask[(~zero_one).argmax()]}"
        raise UserError(
            f"{where}: {name} {what}; a mask must be [{n}] booleans, or 0 and 1, one for each node; lists of node ids "
            f"are not accepted: mask = np.zeros({n}, bool); mask[ids] = True"
        )
    chosen = mask.astype(bool)
    if not chosen.any():
        raise UserError(f"{where}: {name} is empty; it must hold at least one node (or leave out all three masks)")
    unknown = chosen & (y == UNKNOWN)
    if unknown.any():
        raise UserError(
            f"{where}: {name} holds {int(unknown.sum())} nodes of unknown class (y = -1), first node "
            f"{int(unknown.argmax())}; take them out of the mask"
        )
    return chosen


def _no_fraction(y: Array, where: str) -> None:
    whole = np.isfinite(y) & (np.abs(y) < 2**53) & (np.trunc(y) == y)
    if not whole.all():
        node = int((~whole).argmax())
        raise UserError(f"{where}: y[{node}] is {y[node]}; labels must be whole numbers, and an unknown class is -1")
