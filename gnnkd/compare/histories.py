"""What the runs of a comparison wrote down epoch by epoch, over their seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from gnnkd.compare.sections import Cell, Row

MOST = 200
"""Points of a curve that are drawn."""
History = Sequence[Mapping[str, float]]


@final
@dataclass(frozen=True)
class Band:
    """A value over the epochs: mean over seeds, and mean +- standard deviation (ddof 1) where there are several."""

    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def histories(cell: Cell) -> dict[int, History]:
    """The epochs of each finished seed; a seed whose file is gone or damaged is left out."""
    found = {row["seed"]: _read(row) for row in cell.finished}
    return {seed: history for seed, history in found.items() if history}


def _read(row: Row) -> list[dict[str, float]]:
    folder = row.get("folder")
    if not folder:
        return []
    try:
        lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []


def band(found: Mapping[int, History], key: str) -> Band | None:
    """A value over the epochs, as long as at least half of the seeds that have it still train; None if none has it."""
    series = [one for history in found.values() if (one := _series(history, key))]
    epochs = sorted({epoch for one in series for epoch in one})
    epochs = [epoch for epoch in epochs if 2 * sum(epoch in one for one in series) >= len(series)]
    if not epochs:
        return None
    every = math.ceil(len(epochs) / MOST)
    epochs = [*epochs[:-1:every], epochs[-1]]
    there = [np.array([one[epoch] for one in series if epoch in one]) for epoch in epochs]
    mean = [float(values.mean()) for values in there]
    wide = [float(values.std(ddof=1)) if values.size > 1 else 0.0 for values in there]
    low, high = ([m + sign * w for m, w in zip(mean, wide, strict=True)] for sign in (-1, 1))
    return Band(tuple(epochs), tuple(mean), tuple(low), tuple(high))


def _series(history: History, key: str) -> dict[float, float]:
    return {row["epoch"]: row[key] for row in history if math.isfinite(row.get(key, math.nan))}


def keys(found: Mapping[int, History], prefix: str) -> list[str]:
    """Names that start so, in the order in which they appear."""
    named = (key for history in found.values() for row in history for key in row if key.startswith(prefix))
    return list(dict.fromkeys(named))


def window(history: History, key: str, start: int, stop: int | None) -> float | None:
    """Mean over the epochs of a window that have the key; None if none has."""
    values = [row[key] for row in history[start:stop] if math.isfinite(row.get(key, math.nan))]
    return float(np.mean(values)) if values else None
