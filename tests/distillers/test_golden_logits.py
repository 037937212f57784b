"""Losses of logits and their gradients against the published code's, and against its values in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.losses import decoupled
from gnnkd.types import Batch, Output, Step

GOLDEN = sorted((Path(__file__).parents[3] / "shared" / "golden").glob("losses_*.npz"))
LATE = Step(239, 240)
"""After every warm-up."""

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "kd_T4": ("kd", {"recipe": "kd_ce1_kd1_warmup20"}),
    "kd_T1": ("kd", {"recipe": "kd_ce1_kd1_warmup20", "temperature": 1.0}),
    "dkd_a1_b8_T4": ("dkd", {}),
    "dkd_a2_b0.5_T2": ("dkd", {"alpha": 2.0, "beta": 0.5, "temperature": 2.0}),
    "gkd_T4": ("gkd", {}),
    "gkd_T2": ("gkd", {"temperature": 2.0}),
    "dkd_gkd_a1_b8_T4": ("gkd", {"loss": "dkd"}),
    "edkd_T4": ("edkd", {"variant": "code"}),
    "edkd_T2": ("edkd", {"variant": "code", "temperature": 2.0}),
}
"""Rows of the golden files, all of the published code: the paper's formula of EDKD is `test_edkd_of_the_paper...`."""


def _taught(student: Tensor, teacher: Tensor, y: Tensor, method: str, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Sum of the teacher's terms, and its gradient by the student's logits."""
    z = student.clone().requires_grad_()
    batch = Batch.of(torch.zeros(len(y), 1), y, None, torch.ones(len(y), dtype=torch.bool))
    terms = distillers.build(method, **options).loss(batch, Output(z), Output(teacher), LATE)
    total = torch.stack([term for name, term in terms.items() if name != "ce"]).sum()
    return total.detach(), torch.autograd.grad(total, z)[0]


@pytest.mark.skipif(not GOLDEN, reason="reference values are not in ../shared/golden")
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_published_code(file: Path, row: str) -> None:
    with np.load(file) as golden:
        student, teacher, y = (torch.from_numpy(golden[k]) for k in ("logits_student", "logits_teacher", "target"))
        expected, gradient = torch.tensor(golden[row]), torch.from_numpy(golden[f"{row}_grad"])
    value, found = _taught(student, teacher, y, *ROWS[row])
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))


@pytest.mark.skipif(not GOLDEN, reason="reference values are not in ../shared/golden")
@pytest.mark.parametrize("temperature", [2.0, 4.0])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_edkd_of_the_paper_equals_a_loop_over_rows_and_not_the_code(file: Path, temperature: float) -> None:
    """`mean_i [TCKD_i + gamma exp(-(1 - p_i)) NCKD_i]`, written out."""
    with np.load(file) as golden:
        student, teacher, y = (torch.from_numpy(golden[k]) for k in ("logits_student", "logits_teacher", "target"))
        code = torch.tensor(golden[f"edkd_T{int(temperature)}"])
    rows = []
    for s, t, label in zip(student.double(), teacher.double(), y.tolist(), strict=True):
        p_s, p_t = (s / temperature).softmax(0).tolist(), (t / temperature).softmax(0).tolist()
        miss_s, miss_t = 1 - p_s[label], 1 - p_t[label]
        tckd = p_t[label] * math.log(p_t[label] / p_s[label]) + miss_t * math.log(miss_t / miss_s)
        others = [(b / miss_t, a / miss_s) for j, (a, b) in enumerate(zip(p_s, p_t, strict=True)) if j != label]
        nckd = sum(b * math.log(b / a) for b, a in others)
        rows.append(tckd + 8 * math.exp(-miss_t) * nckd)
    value, _ = _taught(student, teacher, y, "edkd", {"temperature": temperature})
    torch.testing.assert_close(value.double(), torch.tensor(temperature**2 * np.mean(rows)), rtol=1e-4, atol=0)
    assert not torch.isclose(value, code, rtol=1e-2)


# -- in float64 --------------------------------------------------------------------------------------------------


def _waves(shape: tuple[int, ...], a: float, b: float, c: float, scale: float) -> Tensor:
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(a * n + b * torch.sqrt(n + 1) + c)).view(shape)


STUDENT, TEACHER = _waves((6, 10), 0.37, 1.3, 0.0, 3.0), _waves((6, 10), 0.53, 0.9, 0.4, 5.0)
Y = torch.tensor([0, 3, 3, 7, 9, 1])
VALUES = [
    ("kd", {"recipe": "kd_ce1_kd1_warmup20"}, 6.04348152683),
    ("gkd", {}, 6.04348152683),
    ("dkd", {}, 50.5728809595),
    ("gkd", {"loss": "dkd"}, 50.5728809595),
    ("edkd", {"variant": "code"}, 44.6599964339),
    ("edkd", {"variant": "paper"}, 21.1117068903),
]


@pytest.mark.parametrize(("method", "options", "expected"), VALUES)
def test_values_in_float64(method: str, options: dict[str, Any], expected: float) -> None:
    value, _ = _taught(STUDENT, TEACHER, Y, method, options)
    assert value.item() == pytest.approx(expected, rel=1e-11)


def test_gradients_in_float64() -> None:
    _, of_kd = _taught(STUDENT, TEACHER, Y, "kd", {"recipe": "kd_ce1_kd1_warmup20"})
    assert of_kd[0, :4].tolist() == pytest.approx([-0.0142216909, -0.0041431328, 0.0175910294, 0.0193555898], rel=1e-7)
    _, of_gkd = _taught(STUDENT, TEACHER, Y, "gkd", {})
    assert of_gkd[0, :4].tolist() == pytest.approx([-0.0142216909, -0.0041000773, 0.017408223, 0.0191544461], rel=1e-7)
    assert of_gkd.sum().item() == pytest.approx(5.80210336e-4, rel=1e-7)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_kd_is_the_target_part_and_the_others_times_what_is_left(temperature: float) -> None:
    """`KD = TCKD + (1 - p) NCKD` for each row."""
    p_s, p_t = (STUDENT / temperature).softmax(1), (TEACHER / temperature).softmax(1)
    whole = (p_t * (p_t.log() - p_s.log())).sum(1)
    parts = decoupled(STUDENT, TEACHER, Y, temperature)
    torch.testing.assert_close(parts.p, p_t[torch.arange(6), Y])
    torch.testing.assert_close(parts.target + (1 - parts.p) * parts.others, whole)
    assert (parts.target >= 0).all()
    assert (parts.others >= 0).all()
