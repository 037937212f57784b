"""Laws of the weighted sums: the dense product, at every order of differentiation, on every path."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from gnnkd.errors import UserError
from gnnkd.graph import kernels, paths
from gnnkd.graph.kernels import edge_dot, neighbour_sum, transposed, weighted_sum
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


@pytest.mark.parametrize("path", ["bag", "csr", "scatter"])
def test_every_path_gives_the_same(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if path == "scatter":
        pytest.importorskip("torch_scatter", reason="torch_scatter, the extra `scatter`, is not installed")
    a, x = random_csr(6, 5, 12), torch.randn(5, 3, dtype=DOUBLE, requires_grad=True)
    weight = torch.randn(12, 2, dtype=DOUBLE, requires_grad=True)
    heads = torch.randn(5, 2, 3, dtype=DOUBLE, requires_grad=True)

    def results() -> list[torch.Tensor]:
        found = []
        for out in (neighbour_sum(a, x), neighbour_sum(a.with_value(None), x), weighted_sum(a, weight, heads)):
            by = grad(out.square().sum(), [x, weight, heads], allow_unused=True)
            found += [out, *(g for g in by if g is not None)]
        return found

    want = [a.dense() @ x, results()]
    monkeypatch.setenv("GNNKD_KERNEL", path)
    monkeypatch.setitem(kernels.PATHS, path, seen(kernels.PATHS[path], calls := []))
    got = results()
    assert calls, "the path was taken"
    assert torch.allclose(got[0], want[0])
    assert all(torch.allclose(one, other) for one, other in zip(got, want[1], strict=True))


def seen(path: Callable[..., torch.Tensor], calls: list[str]) -> Callable[..., torch.Tensor]:
    """`path`, noting its calls."""

    def noting(*args: object) -> torch.Tensor:
        calls.append(path.__name__)
        return path(*args)

    return noting


def test_a_kernel_that_is_not_there_is_a_clear_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNNKD_KERNEL", "scater")
    with pytest.raises(UserError, match=r"unknown kernel in \$GNNKD_KERNEL 'scater'.*did you mean 'scatter'"):
        neighbour_sum(random_csr(6, 5, 12), torch.randn(5, 3))


def test_a_kernel_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNNKD_KERNEL", "scatter")
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    paths._checked.cache_clear()
    with pytest.raises(UserError, match="pip install ninja && pip install --no-build-isolation torch_scatter"):
        neighbour_sum(random_csr(6, 5, 12), torch.randn(5, 3))
    paths._checked.cache_clear()


# -- sums with learnt weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "cols", "n"), [(6, 5, 12), (5, 6, 0), (0, 4, 0), (30, 3, 10), (1, 1, 9)])
@pytest.mark.parametrize(("heads", "width"), [(1, 3), (4, 2), (2, 0)])
def test_a_weighted_sum_is_a_dense_product_a_head(rows: int, cols: int, n: int, heads: int, width: int) -> None:
    a, x = random_csr(rows, cols, n), torch.randn(cols, heads, width, dtype=DOUBLE)
    weight = torch.randn(n, heads, dtype=DOUBLE)
    out = weighted_sum(a, weight, x)
    assert out.shape == (rows, heads, width)
    for h in range(heads):
        assert torch.allclose(out[:, h], a.with_value(weight[:, h]).dense() @ x[:, h])


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16])
def test_edge_dots_are_the_entries_of_a_dense_product(dtype: torch.dtype) -> None:
    a = random_csr(6, 5, 12)
    y, x = torch.randn(6, 2, 3).to(dtype), torch.randn(5, 2, 3).to(dtype)
    dots = edge_dot(a, y, x)
    assert dots.dtype == dtype
    want = torch.einsum("rhf,khf->rkh", y.double(), x.double())[a.row.long(), a.col.long()]
    assert torch.allclose(dots.double(), want, atol=0.1 if dtype == torch.bfloat16 else 1e-5)


def test_both_ways_to_take_edge_dots_agree() -> None:
    a = random_csr(300, 200, 5000)
    y, x = torch.randn(300, 3, 4, dtype=DOUBLE), torch.randn(200, 3, 4, dtype=DOUBLE)
    assert torch.allclose(kernels._sampled(a, y, x), kernels._gathered(a, y, x))


def test_the_first_two_derivatives_of_learnt_sums_are_right() -> None:
    a = random_csr(6, 5, 12)
    weight = torch.randn(12, 2, dtype=DOUBLE, requires_grad=True)
    x, y = (torch.randn(n, 2, 3, dtype=DOUBLE, requires_grad=True) for n in (5, 6))
    for f, inputs in (
        (lambda w, x: weighted_sum(a, w, x).tanh(), (weight, x)),
        (lambda y, x: edge_dot(a, y, x).tanh(), (y, x)),
        (lambda w: transposed(a, w).tanh(), (weight,)),
    ):
        assert gradcheck(f, inputs)
        assert gradgradcheck(f, inputs)


@pytest.mark.parametrize(("entries", "columns"), [(11, 5), (12, 6)])
def test_shapes_that_do_not_fit_are_refused(entries: int, columns: int) -> None:
    with pytest.raises(ValueError, match="12 entries in 5 columns"):
        weighted_sum(random_csr(6, 5, 12), torch.ones(entries, 2), torch.ones(columns, 2, 1))
