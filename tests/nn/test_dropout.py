"""Laws of dropout."""

from __future__ import annotations

import pytest
import torch

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR
from gnnkd.nn.dropout import drop, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.6, 0.9])
def test_the_share_kept_and_the_mean_are_right(p: float) -> None:
    torch.manual_seed(0)
    n = 400_000
    out = dropout(torch.ones(n), p, True)
    spread = 5 * (p * (1 - p) / n) ** 0.5
    assert abs((out != 0).float().mean().item() - (1 - p)) < spread
    assert abs(out.mean().item() - 1) < spread / (1 - p)
    assert torch.allclose(out[out != 0], torch.tensor(1 / (1 - p)))


def test_neighbouring_elements_are_independent() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(400_000), 0.5, True) != 0).float() - 0.5
    for lag in range(1, 9):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 5 * 0.25 / 400_000**0.5


@pytest.mark.parametrize("p", [1e-7, 1 - 1e-7])
def test_extreme_probabilities_keep_all_or_next_to_nothing(p: float) -> None:
    share = (dropout(torch.ones(100_000), p, True) != 0).float().mean().item()
    assert abs(share - (1 - p)) < 1e-3


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 7), (2, 3, 5), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_type_stay(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    out = dropout(torch.ones(shape, dtype=dtype), 0.5, True)
    assert out.shape == shape
    assert out.dtype == dtype


def test_without_training_or_rate_it_is_the_identity() -> None:
    x = torch.randn(3, 4)
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x


def test_the_seed_decides_and_the_number_of_threads_does_not() -> None:
    x, threads, seen = torch.randn(300, 301), torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            torch.manual_seed(3)
            seen.append(dropout(x, 0.4, True))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*seen)
    assert not torch.equal(dropout(x, 0.4, True), seen[0])


def test_the_gradient_is_the_mask_at_every_order() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, dtype=torch.float64, requires_grad=True)
    out = dropout(x, 0.3, True)
    mask = (out != 0) / 0.7
    (first,) = torch.autograd.grad(out.pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.allclose(out, x * mask)
    assert torch.allclose(first, 3 * mask**3 * x**2)
    assert torch.allclose(second, 6 * mask**3 * x)


def test_strided_rows_are_dropped_like_contiguous_ones() -> None:
    x = torch.randn(6, 8)
    torch.manual_seed(0)
    want = dropout(x.t().contiguous(), 0.5, True)
    torch.manual_seed(0)
    assert torch.equal(dropout(x.t(), 0.5, True), want)


def test_a_sparse_operand_loses_stored_values_only() -> None:
    x = torch.randn(30, 20) * (torch.rand(30, 20) < 0.2)
    a = CSR.from_dense(x)
    out = drop(a, 0.5, True)
    dense = out.dense()
    kept = dense != 0
    assert out.pattern is a.pattern
    assert torch.allclose(dense[kept], 2 * x[kept])
    assert 0 < kept.sum() < a.n_entries
    assert drop(a, 0.5, False) is a
    assert torch.equal(drop(a, 0.0, True).dense(), x)


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0, float("nan")])
def test_a_rate_outside_its_range_is_named(p: float) -> None:
    with pytest.raises(UserError, match=f"dropout is {p}"):
        dropout(torch.ones(3), p, True)
