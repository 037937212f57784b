"""Means, paired tests and Holm's correction against hand examples."""

from __future__ import annotations

import statistics

import pytest
from scipy import stats

from gnnkd.compare.statistics import differences, holm, spread


def test_holm_by_hand() -> None:
    """Sorted .01 .02 .03 .04 times 4 3 2 1; never below a smaller one's."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.005, 0.5, 0.6]) == pytest.approx([0.015, 1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_lies_between_none_and_bonferroni() -> None:
    p = [0.001, 0.2, 0.01, 0.013, 0.05, 0.05]
    for raw, corrected in zip(p, holm(p), strict=True):
        assert raw <= corrected <= min(1.0, len(p) * raw)
    order = sorted(range(len(p)), key=p.__getitem__)
    assert [holm(p)[i] for i in order] == sorted(holm(p))


def test_spread_has_ddof_1() -> None:
    found = spread([0.1, 0.2, 0.4])
    assert found is not None
    assert (found.mean, found.std, found.n) == (pytest.approx(0.7 / 3), statistics.stdev([0.1, 0.2, 0.4]), 3)
    one = spread([0.5])
    assert one is not None
    assert (one.std, one.n) == (None, 1)
    assert spread([]) is None


def test_pairs_are_of_the_same_seed_and_the_family_are_data_sets() -> None:
    base = dict.fromkeys(range(6), 0.8)
    mine = {
        "a": {s: 0.8 + 0.01 * (s + 1) for s in range(6)},
        "b": {5: 0.81, 7: 0.1, 0: 0.8, 1: 0.79},
        "c": {9: 0.5},
        "d": dict.fromkeys(range(6), 0.9),
    }
    found = differences(mine, {"a": base, "b": base, "c": base})
    assert list(found) == ["a", "b"], "no pair in c, no reference in d"
    a, b = found["a"], found["b"]
    assert a.p == pytest.approx(stats.wilcoxon([0.01 * (s + 1) for s in range(6)], method="exact").pvalue)
    assert (a.wins, a.ties, a.losses, a.spread.n) == (6, 0, 0, 6)
    assert (b.wins, b.ties, b.losses, b.spread.n) == (1, 1, 1, 3)
    assert (a.holm, b.holm) == (pytest.approx(2 * a.p), pytest.approx(1.0))
    assert not a.shown
    assert differences({"a": mine["a"]}, {"a": base})["a"].shown
