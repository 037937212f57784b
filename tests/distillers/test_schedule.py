"""Weights by epoch and warm-ups: their values, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gnnkd import distillers
from gnnkd.distillers.schedule import Schedule, check_some, ramp
from gnnkd.types import Batch, Output, Step


def _at(weight: Any, epoch: int) -> float:
    return Schedule.of("weight", weight).at(Step(epoch, 100))


def test_a_number_is_constant() -> None:
    assert [_at(0.3, epoch) for epoch in (0, 1, 1000)] == [0.3] * 3
    assert _at(2, 7) == 2


def test_pairs_are_linear_between_and_constant_outside() -> None:
    points = ((5, 1.0), (10, 3.0), (20, 0.0))
    epochs = range(40)
    expected = np.interp(list(epochs), [e for e, _ in points], [w for _, w in points])
    np.testing.assert_allclose([_at(points, epoch) for epoch in epochs], expected, rtol=1e-12)


def test_at_a_point_the_weight_is_the_points_own() -> None:
    points = ((3, 0.1), (7, 0.7), (8, 0.2))
    assert [_at(points, epoch) for epoch, _ in points] == [w for _, w in points]


def test_one_pair_is_constant() -> None:
    assert [_at(((5, 0.4),), epoch) for epoch in (0, 5, 9)] == [0.4] * 3


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (-0.1, "of at least 0"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        ((), r"pairs \[epoch, weight\]"),
        (((0, -1.0),), "its weights must be finite numbers of at least 0"),
        (((0, math.nan),), "its weights"),
        (((0, math.inf),), "its weights"),
        (((5, 1.0), (5, 2.0)), "its epochs must ascend"),
        (((5, 1.0), (4, 2.0)), "its epochs must ascend"),
        (((-1, 1.0), (4, 2.0)), "its epochs must ascend from 0"),
        (((math.nan, 1.0),), "its epochs must ascend"),
        (((0, 1.0), (math.inf, 2.0)), "its epochs must ascend"),
    ],
)
def test_what_is_no_schedule_is_refused(weight: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        Schedule.of("gamma", weight)
    assert str(error.value).startswith("method.gamma is ")


def test_never_is_zero_at_every_epoch() -> None:
    assert Schedule.of("w", 0.0).never
    assert Schedule.of("w", ((0, 0.0), (9, 0.0))).never
    assert not Schedule.of("w", ((0, 0.0), (9, 1.0))).never


def test_weights_that_are_all_zero_leave_nothing_to_learn() -> None:
    nothing, something = Schedule.of("w", 0.0), Schedule.of("w", ((0, 0.0), (1, 1.0)))
    check_some({"alpha": nothing, "beta": something})
    with pytest.raises(ValueError, match=r"method\.alpha, method\.beta and method\.gamma are 0; one of them"):
        check_some({"alpha": nothing, "beta": nothing, "gamma": nothing})


def test_a_warm_up_ends_at_one() -> None:
    """Published formulas count epochs from 1: the first has `1 / warmup`, the last of the warm-up 1."""
    assert [ramp(20, Step(epoch, 240)) for epoch in (0, 9, 19, 20, 239)] == [0.05, 0.5, 1.0, 1.0, 1.0]
    assert ramp(0, Step(0, 240)) == ramp(1, Step(0, 240)) == 1.0


@pytest.mark.parametrize("method", ["kd", "dkd", "gkd", "edkd", "dist"])
def test_the_teachers_terms_rise_over_the_warm_up_and_the_tasks_does_not(method: str) -> None:
    batch = Batch.of(torch.zeros(12, 1), torch.arange(12) % 5, None, torch.ones(12, dtype=torch.bool))
    torch.manual_seed(0)
    student, teacher = Output(torch.randn(12, 5)), Output(torch.randn(12, 5))
    distiller = distillers.build(method, warmup=20)
    at = {e: distiller.loss(batch, student, teacher, Step(e, 240)) for e in (0, 9, 19, 200)}
    for name, full in at[200].items():
        for epoch, share in ((0, 0.05), (9, 0.5), (19, 1.0)):
            torch.testing.assert_close(at[epoch][name], full * (1.0 if name == "ce" else share))


def test_a_weight_by_epoch_weighs_its_term_and_the_names_stay() -> None:
    batch = Batch.of(torch.zeros(12, 1), torch.arange(12) % 5, None, torch.ones(12, dtype=torch.bool))
    torch.manual_seed(0)
    student, teacher = Output(torch.randn(12, 5)), Output(torch.randn(12, 5))
    distiller = distillers.build("kd", kd_weight=((0, 0.0), (20, 1.0)), ce_weight=((0, 1.0), (10, 0.0)))
    one = distillers.build("kd", kd_weight=1.0, ce_weight=1.0).loss(batch, student, teacher, Step(0, 240))
    for epoch, soft, hard in ((0, 0.0, 1.0), (5, 0.25, 0.5), (20, 1.0, 0.0), (90, 1.0, 0.0)):
        terms = distiller.loss(batch, student, teacher, Step(epoch, 240))
        torch.testing.assert_close(terms, {"ce": hard * one["ce"], "kd": soft * one["kd"]})
