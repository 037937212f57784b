"""Edges from outside: checked, merged, mirrored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gnnkd.errors import UserError

Array = npt.NDArray[Any]
Edges = npt.NDArray[np.int64]


def checked(edge_index: Array, n: int, where: str) -> Edges:
    """The edges [2, E] as int64.

    Raises:
        UserError: wrong shape or dtype, no edge at all, or an id outside 0 .. n - 1.
    """
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        turn = "; transpose it" if edge_index.ndim == 2 and edge_index.shape[1] == 2 else ""
        raise UserError(f"{where}: edge_index has shape {list(edge_index.shape)}; it must be [2, E]{turn}")
    if not edge_index.shape[1]:
        raise UserError(f"{where}: edge_index has no edge; a graph needs at least one")
    if edge_index.dtype.kind not in "iu":
        raise UserError(
            f"{where}: edge_index is of type {edge_index.dtype}; node ids must be integers: save it as int64"
        )
    outside = (edge_index < 0) | (edge_index >= n)
    if outside.any():
        row, column = np.unravel_index(outside.argmax(), outside.shape)
        raise UserError(
            f"{where}: edge_index[{row}, {column}] is {edge_index[row, column]}, the first of {int(outside.sum())} ids "
            f"outside 0..{n - 1}; ids count from 0 and x and y have {n} rows"
        )
    return edge_index.astype(np.int64, copy=False)


def merged(edges: Edges, n: int, *, undirected: bool) -> tuple[Edges, list[str]]:
    """Keep each edge once, sorted by target and then source, with its mirror if `undirected`; and say what was done.

    Self loops stay: the file's author put them there. Where a layer adds loops of its own (GCN) it adds only the
    missing ones, so it computes the same either way.
    """
    source, target = edges
    single = _distinct(target * n + source)
    notes = [_count(source.size - single.size, "duplicate edge", "merged")]
    if undirected:
        both = _distinct(np.concatenate([single, single % n * n + single // n]))
        notes.append(_count(both.size - single.size, "reverse edge", "added"))
        single = both
    source, target = single % n, single // n
    notes.append(_count(int((source == target).sum()), "self loop", "kept"))
    return np.stack([source, target]), [note for note in notes if note]


def _distinct(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    # Sorting is ten times faster here than the hash table that `np.unique` takes for integers.
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]


def _count(count: int, what: str, done: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''} {done}" if count else ""
