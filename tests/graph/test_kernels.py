"""Laws of the neighbour sum: the dense product, at every order of differentiation."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from gnnkd.graph import kernels
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR

DOUBLE = torch.float64


def random_csr(rows: int, cols: int, n: int, dtype: torch.dtype = DOUBLE) -> CSR:
    g = torch.Generator().manual_seed(rows + cols + n)
    row, col = (torch.randint(max(1, size), (n,), generator=g) for size in (rows, cols))
    return CSR.from_coo(row, col, torch.randn(n, generator=g, dtype=dtype), (rows, cols))


@pytest.mark.parametrize(("rows", "cols", "n"), [(6, 5, 12), (5, 6, 0), (0, 4, 0), (4, 0, 0), (30, 3, 10), (1, 1, 9)])
@pytest.mark.parametrize("width", [0, 1, 5])
def test_it_is_the_dense_product(rows: int, cols: int, n: int, width: int) -> None:
    a, x = random_csr(rows, cols, n), torch.randn(cols, width, dtype=DOUBLE)
    out = neighbour_sum(a, x)
    assert out.shape == (rows, width)
    assert torch.allclose(out, a.dense() @ x)
    ones = a.with_value(None)
    assert torch.allclose(neighbour_sum(ones, x), ones.dense().to(DOUBLE) @ x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1), (DOUBLE, 1e-12)])
def test_the_result_has_the_type_of_the_rows(dtype: torch.dtype, tolerance: float) -> None:
    a, x = random_csr(20, 20, 60), torch.randn(20, 8).to(dtype).requires_grad_()
    out = neighbour_sum(a, x)
    assert out.dtype == dtype
    assert torch.allclose(out.to(DOUBLE), a.dense() @ x.to(DOUBLE), atol=tolerance)
    (by_x,) = grad(out.sum(), x)
    assert by_x.dtype == dtype


def test_strides_do_not_matter() -> None:
    a, x = random_csr(6, 5, 12), torch.randn(7, 10, dtype=DOUBLE)
    for view in (x.t()[:5], x[:5, ::2], x[1:2].expand(5, 10)):
        assert torch.allclose(neighbour_sum(a, view), a.dense() @ view)


def test_the_last_column_counts() -> None:
    a = CSR.from_coo(torch.tensor([0]), torch.tensor([4]), None, (1, 5))
    assert neighbour_sum(a, torch.arange(5.0)[:, None]).item() == 4.0


def test_the_first_two_derivatives_are_right() -> None:
    a, x = random_csr(6, 5, 12), torch.randn(5, 3, dtype=DOUBLE, requires_grad=True)
    assert gradcheck(lambda x: neighbour_sum(a, x).tanh(), (x,))
    assert gradgradcheck(lambda x: neighbour_sum(a, x).tanh(), (x,))


def test_the_third_derivative_is_that_of_the_dense_product() -> None:
    a, x = random_csr(6, 6, 14), torch.randn(6, 3, dtype=DOUBLE, requires_grad=True)

    def third(product: object) -> torch.Tensor:
        out = product(product(x).sin()).sin().sum()
        for _ in range(3):
            (by_x,) = grad(out, x, create_graph=True)
            out = by_x.sin().sum()
        return by_x

    dense = a.dense()
    assert torch.allclose(third(lambda x: neighbour_sum(a, x)), third(lambda x: dense @ x))


def test_values_are_differentiable_too() -> None:
    a, x = random_csr(6, 5, 12), torch.randn(5, 3, dtype=DOUBLE, requires_grad=True)
    value = a.values().clone().requires_grad_()

    def out(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return neighbour_sum(a.with_value(value), x).tanh()

    assert gradcheck(out, (value, x))
    assert gradgradcheck(out, (value, x))


def test_rows_of_a_sum_are_adjoint_to_its_transpose() -> None:
    a, x, y = random_csr(6, 5, 12), torch.randn(5, 3, dtype=DOUBLE), torch.randn(6, 3, dtype=DOUBLE)
    assert torch.allclose((neighbour_sum(a, x) * y).sum(), (neighbour_sum(a.transpose, y) * x).sum())


def test_the_number_of_threads_does_not_matter() -> None:
    a, x = random_csr(500, 500, 4000, torch.float32), torch.randn(500, 33)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = neighbour_sum(a, x)
        torch.set_num_threads(2)
        assert torch.equal(neighbour_sum(a, x), one)
    finally:
        torch.set_num_threads(threads)


def test_the_path_of_other_devices_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, x = random_csr(6, 5, 12), torch.randn(5, 3, dtype=DOUBLE, requires_grad=True)
    want = neighbour_sum(a, x)
    (want_grad,) = grad(want.square().sum(), x)
    monkeypatch.setattr(kernels, "_bag", kernels._sparse)
    out = neighbour_sum(a, x)
    (by_x,) = grad(out.square().sum(), x)
    assert torch.allclose(out, want)
    assert torch.allclose(by_x, want_grad)
    assert torch.allclose(neighbour_sum(a.with_value(None), x.detach()), a.with_value(None).dense().to(DOUBLE) @ x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_agrees_with_the_cpu() -> None:
    a, x = random_csr(50, 40, 300), torch.randn(40, 8, dtype=DOUBLE)
    on_gpu = x.to("cuda").requires_grad_()
    out = neighbour_sum(a.to("cuda"), on_gpu)
    assert torch.allclose(out.cpu(), neighbour_sum(a, x))
    (by_x,) = grad(out.square().sum(), on_gpu)
    assert torch.allclose(by_x.cpu(), 2 * a.dense().t() @ (a.dense() @ x))


@pytest.mark.parametrize("shape", [(4, 3), (6, 3)])
def test_a_wrong_number_of_rows_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="5 rows are needed"):
        neighbour_sum(random_csr(6, 5, 12), torch.zeros(shape))
