"""Differences of two configurations, seed by seed, and the test of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

EQUAL = 1e-9
"""Differences of accuracies that are closer than this differ by rounding only."""


def wilcoxon(differences: Sequence[float], alternative: Literal["two-sided", "greater"] = "two-sided") -> float:
    """p of the signed-rank test, exact for any number of pairs; zeros are dropped, and 1 is the p of none.

    Equal sizes share the mean of their ranks. Under the null hypothesis every choice of signs is as likely as another:
    p is the share of the 2^n choices whose positive ranks add up to as much as those observed ("greater"), or to a sum
    as far from the middle ("two-sided"). They are counted sum by sum, over doubled ranks, which are whole numbers.
    """
    from scipy.stats import rankdata

    kept = np.array([d for d in differences if abs(d) > EQUAL])
    if kept.size == 0:
        return 1.0
    ranks = np.rint(2 * rankdata(np.rint(np.abs(kept) / EQUAL))).astype(int)
    ways = np.ones(1)
    for rank in ranks:
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    sums, seen, total = np.arange(len(ways)), ranks[kept > 0].sum(), ranks.sum()
    extreme = sums >= seen if alternative == "greater" else np.abs(2 * sums - total) >= abs(2 * seen - total)
    return float(ways[extreme].sum() / ways.sum())


def counts(differences: Sequence[float]) -> tuple[int, int, int]:
    """How many are above, at and below zero."""
    above, below = sum(d > EQUAL for d in differences), sum(d < -EQUAL for d in differences)
    return above, len(differences) - above - below, below


def outcomes(differences: Sequence[float]) -> str:
    """The counts as "above/at/below"."""
    return "/".join(map(str, counts(differences)))
