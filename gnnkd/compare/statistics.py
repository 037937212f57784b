"""Means with spread over seeds, differences paired by seed, and their tests over several data sets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from gnnkd.paired import counts, wilcoxon

ALPHA = 0.05
"""Below this p, after Holm, a difference counts as shown."""


@final
@dataclass(frozen=True)
class Spread:
    """Mean over `n` seeds and standard deviation with ddof 1, None for a single one."""

    mean: float
    std: float | None
    n: int


@final
@dataclass(frozen=True)
class Difference:
    """One method minus another over the seeds that both have.

    `p` is that of Wilcoxon's exact signed-rank test, two-sided; `holm` the same after Holm's correction over data sets.
    """

    spread: Spread
    p: float
    holm: float
    wins: int
    ties: int
    losses: int

    @property
    def shown(self) -> bool:
        """Whether it is there beyond the doubt that `ALPHA` leaves."""
        return self.holm < ALPHA


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and spread; None of nothing."""
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m times m - k + 1, never below a smaller one's, at most 1."""
    found, floor = [0.0] * len(p), 0.0
    for k, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        floor = max(floor, min(1.0, (len(p) - k) * p[i]))
        found[i] = floor
    return found


def differences(
    mine: Mapping[str, Mapping[int, float]], other: Mapping[str, Mapping[int, float]]
) -> dict[str, Difference]:
    """Differences by data set, from values by data set and seed; those without a common seed are left out.

    The family of Holm's correction are the data sets of this one pair of methods.
    """
    pairs = {name: _minus(mine[name], other[name]) for name in mine if name in other}
    pairs = {name: values for name, values in pairs.items() if values}
    p = [wilcoxon(values) for values in pairs.values()]
    return {
        name: _difference(values, one, corrected)
        for (name, values), one, corrected in zip(pairs.items(), p, holm(p), strict=True)
    }


def _minus(mine: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [mine[seed] - other[seed] for seed in sorted(mine.keys() & other.keys())]


def _difference(values: list[float], p: float, corrected: float) -> Difference:
    found = spread(values)
    assert found is not None
    return Difference(found, p, corrected, *counts(values))
