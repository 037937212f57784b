"""Loss functions against reference values, their limits and symmetries; methods at the ends of their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.losses import cross_entropy, soft_kl
from gnnkd.types import UNKNOWN, Batch, Output, Step

GOLDEN = sorted((Path(__file__).parents[3] / "shared" / "golden").glob("losses_*.npz"))
STEP = Step(0, 1)


def _logits(seed: int, n: int = 12, c: int = 5) -> Tensor:
    return 3 * torch.randn(n, c, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.skipif(not GOLDEN, reason="reference values are not in ../shared/golden")
@pytest.mark.parametrize("temperature", [1, 4])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_soft_kl_equals_the_published_code(file: Path, temperature: int) -> None:
    with np.load(file) as golden:
        student = torch.from_numpy(golden["logits_student"]).requires_grad_()
        loss = soft_kl(student, torch.from_numpy(golden["logits_teacher"]), float(temperature))
        loss.backward()
        expected = torch.from_numpy(golden[f"kd_T{temperature}"])
        gradient = torch.from_numpy(golden[f"kd_T{temperature}_grad"])
    torch.testing.assert_close(loss.detach(), expected.to(loss.dtype), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(student.grad, gradient.to(loss.dtype), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_kl_is_the_sum_over_classes(temperature: float) -> None:
    s, t = _logits(0), _logits(1)
    p, q = (t / temperature).softmax(1), (s / temperature).softmax(1)
    slow = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(soft_kl(s, t, temperature), slow)


def test_soft_kl_is_zero_for_equal_logits_only() -> None:
    s, t = _logits(0), _logits(1)
    assert soft_kl(s, s) == 0
    assert soft_kl(s, t) > 0
    nearly = s.clone()
    nearly[0, 0] += 1e-3
    assert soft_kl(s, nearly) > 0


def test_soft_kl_does_not_see_a_shift_of_a_row() -> None:
    s, t, shift = _logits(0), _logits(1), _logits(2, c=1)
    torch.testing.assert_close(soft_kl(s + shift, t - shift), soft_kl(s, t))


def test_the_square_of_the_temperature_keeps_the_size_in_the_hot_limit() -> None:
    """`T^2 KL -> mean_i |centred t_i - centred s_i|^2 / 2C`, apart from T; without `T^2` it would vanish."""
    s, t = _logits(0), _logits(1)
    difference = (t - t.mean(1, keepdim=True)) - (s - s.mean(1, keepdim=True))
    limit = difference.square().sum(1).mean() / (2 * s.shape[1])
    for temperature in (1e3, 1e4):
        torch.testing.assert_close(soft_kl(s, t, temperature), limit, rtol=10 / temperature, atol=0)


def test_cross_entropy_is_of_the_rows_that_may_be_read() -> None:
    s, y = _logits(0), torch.arange(12) % 5
    hidden = torch.where(torch.arange(12) < 7, y, UNKNOWN)
    slow = -s[:7].log_softmax(1)[torch.arange(7), y[:7]].mean()
    torch.testing.assert_close(cross_entropy(s, hidden), slow)


# -- methods at the ends of their weights ------------------------------------------------------------------------


def _loss_and_gradient(method: str, **options: float) -> tuple[Tensor, Tensor]:
    student = _logits(0).requires_grad_()
    batch = Batch.of(torch.zeros(12, 1), torch.arange(12) % 5, None, torch.arange(12) < 7)
    terms = distillers.build(method, **options).loss(batch, Output(student), Output(_logits(1)), STEP)
    loss = torch.stack(list(terms.values())).sum()
    return loss.detach(), torch.autograd.grad(loss, student)[0]


@pytest.mark.parametrize(
    ("method", "options", "other", "others"),
    [
        ("glnn", {"label_weight": 1.0}, "supervised", {}),
        ("kd", {"alpha": 0.0}, "supervised", {}),
        ("kd", {"alpha": 1.0, "temperature": 1.0}, "glnn", {"label_weight": 0.0}),
        ("kd", {"alpha": 0.3, "temperature": 1.0}, "glnn", {"label_weight": 0.7}),
    ],
)
def test_methods_meet_at_the_ends_of_their_weights(
    method: str, options: dict[str, float], other: str, others: dict[str, float]
) -> None:
    for ours, theirs in zip(_loss_and_gradient(method, **options), _loss_and_gradient(other, **others), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_weights_mix_the_two_terms_linearly() -> None:
    soft, hard = _loss_and_gradient("kd", alpha=1.0), _loss_and_gradient("kd", alpha=0.0)
    for mixed, s, h in zip(_loss_and_gradient("kd", alpha=0.25), soft, hard, strict=True):
        torch.testing.assert_close(mixed, 0.25 * s + 0.75 * h)


@pytest.mark.parametrize(("method", "options"), [("kd", {"alpha": 1.0}), ("glnn", {})])
def test_labels_play_no_part_without_their_term(method: str, options: dict[str, float]) -> None:
    """Also where no label may be read, of which the mean would be no number."""
    batch = Batch.of(torch.zeros(12, 1), torch.arange(12) % 5, None, torch.zeros(12, dtype=torch.bool))
    terms = distillers.build(method, **options).loss(batch, Output(_logits(0)), Output(_logits(1)), STEP)
    assert terms.keys() == {"kd"}
    assert torch.isfinite(terms["kd"])
