"""Laws of the weighted graphs between rows, and golden values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gnnkd.errors import UserError
from gnnkd.graph.build import class_aware, complete, sparse, strongest, uem
from gnnkd.graph.build.edges import PARTS
from gnnkd.graph.kernels import neighbour_sum

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


def rows(n: int = 12, c: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def softened(n: int = 12, c: int = 5, seed: int = 0) -> torch.Tensor:
    return (rows(n, c, seed) / 4).softmax(1)


def slow_uem(p: torch.Tensor) -> torch.Tensor:
    out = torch.empty(len(p), len(p), dtype=p.dtype)
    for i, a in enumerate(p):
        for j, b in enumerate(p):
            cosine = float(a @ b / (a.norm() * b.norm())) if a.any() and b.any() else 0.0
            out[i, j] = (1 + cosine) / 2 - (1 - float(torch.exp(-(a - b).norm())))
    return out


# -- golden values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("of", ["softmax_T4", "logits"])
def test_golden_values(case: int, of: str) -> None:
    file = GOLDEN / f"gkdfd_{case}.npz"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    with np.load(file) as golden:
        logits, y = torch.from_numpy(golden["teacher_logits"]).double(), torch.from_numpy(golden["target"])
        u = uem((logits / 4).softmax(1) if of == "softmax_T4" else logits)
        np.testing.assert_allclose(u, golden[f"uem_{of}"], rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(class_aware(u, y), golden[f"cac_{of}"], rtol=1e-4, atol=1e-12)


# -- uem -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [rows(), softened(), torch.cat([rows(3), torch.zeros(2, 5).double(), rows(3)])])
def test_uem_equals_the_slow_loop(p: torch.Tensor) -> None:
    torch.testing.assert_close(uem(p), slow_uem(p), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_exactly_symmetric_and_keeps_the_dtype(parts: str, dtype: torch.dtype) -> None:
    u = uem(rows(70, 33).to(dtype), parts=parts)
    assert torch.equal(u, u.t())
    assert u.dtype == dtype


def test_the_parts_make_the_whole() -> None:
    p = softened()
    torch.testing.assert_close(uem(p), uem(p, parts="cosine") + uem(p, parts="euclidean") - 1)
    assert (uem(p, parts="euclidean") > 0).all()
    scaled = torch.rand(len(p), 1, dtype=torch.double) + 0.5
    torch.testing.assert_close(uem(p * scaled, parts="cosine"), uem(p, parts="cosine"))
    torch.testing.assert_close(uem(p + 3, parts="euclidean"), uem(p, parts="euclidean"))


def test_parts_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UserError, match=r"unknown parts 'cosin'.*did you mean 'cosine'"):
        uem(rows(), parts="cosin")


def test_equal_rows_have_one_and_a_row_of_zeros_one_half() -> None:
    p = rows(4)
    p[1] = p[0]
    p[2:] = 0
    u = uem(p)
    torch.testing.assert_close(u[:2, :2], torch.ones(2, 2).double())
    torch.testing.assert_close(u[2:, 2:], torch.full((2, 2), 0.5).double())


def test_close_rows_keep_their_distance_in_single_precision() -> None:
    p = (rows(6) / 4).softmax(1).repeat(2, 1)
    p[6:] += 1e-4 * rows(6, seed=1)
    torch.testing.assert_close(
        uem(p.float(), parts="euclidean").double(), uem(p.float().double(), parts="euclidean"), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("parts", PARTS)
def test_gradients_are_those_of_finite_differences(parts: str) -> None:
    p = rows(5, 3).requires_grad_()
    beside = 1 - torch.eye(5, dtype=torch.double)  # on the diagonal the distance has a kink
    assert torch.autograd.gradcheck(lambda p: uem(p, parts=parts) * beside, p)
    assert torch.autograd.gradgradcheck(lambda p: uem(p, parts=parts) * beside, p)


@pytest.mark.parametrize("parts", PARTS)
def test_gradients_are_finite_at_equal_rows_and_at_zeros(parts: str) -> None:
    p = rows(8)
    p[1], p[5], p[6:] = p[0], p[0], 0
    p.requires_grad_()
    (first,) = torch.autograd.grad(uem(p, parts=parts).square().sum(), p, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), p)
    assert first.isfinite().all()
    assert second.isfinite().all()
    assert first[:6].abs().sum() > 0


# -- class-aware connection ----------------------------------------------------------------------------------------


def test_classes_apart_are_joined_more_weakly() -> None:
    u, y = uem(softened(30)), torch.arange(30) % 3
    a = class_aware(u, y)
    same = y[:, None] == y
    assert (a >= 0).all()
    assert torch.equal(a, a.t())
    assert torch.equal(a[same], u.relu()[same])
    assert torch.equal(a[~same], (u / 2).relu()[~same])
    assert torch.equal(a.diagonal(), u.diagonal())
    equal = class_aware(torch.full((4, 4), 0.6), torch.tensor([0, 0, 1, 1]))
    assert float(equal[0, 2]) < float(equal[0, 1])


def test_the_ends_of_the_factor() -> None:
    u, y = uem(softened(9)), torch.arange(9) % 3
    assert torch.equal(class_aware(u, y, 1.0), u.relu())
    assert (class_aware(u, y, 0.0)[y[:, None] != y] == 0).all()
    for factor in (-0.1, 1.5):
        with pytest.raises(UserError, match=f"factor is {factor}"):
            class_aware(u, y, factor)


def test_class_aware_connection_has_gradients() -> None:
    p, y = softened(6, 3).requires_grad_(), torch.tensor([0, 1, 0, 1, 2, 2])
    beside = 1 - torch.eye(6, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda p: class_aware(uem(p), y) * beside, p)


# -- the strongest edges -------------------------------------------------------------------------------------------


def slow_strongest(a: torch.Tensor, k: int) -> torch.Tensor:
    n = len(a)
    kept = {(i, i) for i in range(n)}
    for i in range(n):
        others = [j for j in range(n) if j != i]
        kept |= {(i, j) for j in sorted(others, key=lambda j: (-float(a[i, j]), j))[:k]}
        kept |= {(j, i) for j in sorted(others, key=lambda j: (-float(a[j, i]), j))[:k]}
    mask = torch.tensor([[(i, j) in kept for j in range(n)] for i in range(n)])
    return torch.where(mask, a, 0)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_strongest_equals_the_slow_loop(k: int) -> None:
    tied = torch.randint(0, 4, (10, 10), generator=torch.Generator().manual_seed(0)).double() / 4
    for a in (rows(10, 10), uem(softened(10)), tied, tied + tied.t(), torch.ones(10, 10).double()):
        assert torch.equal(strongest(a, k), slow_strongest(a, k))


def test_the_strongest_of_all_is_the_matrix_itself() -> None:
    a = rows(6, 6)
    assert strongest(a, 5) is a
    assert strongest(a, 99) is a
    assert not torch.equal(strongest(a, 4), a)
    with pytest.raises(UserError, match="k is 0"):
        strongest(a, 0)


def test_strongest_leaves_its_input_alone_and_gives_gradients_where_it_keeps() -> None:
    a = rows(7, 7)
    before = a.clone()
    leaf = a.requires_grad_()
    kept = strongest(leaf, 2)
    kept.sum().backward()
    assert torch.equal(leaf.detach(), before)
    assert torch.equal(leaf.grad, (kept.detach() != 0).double())


# -- as graphs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [complete, sparse])
def test_sums_over_neighbours_are_the_matrix_product(graph) -> None:
    a = strongest(rows(9, 9).relu(), 3).requires_grad_()
    x = rows(9, 4, seed=1).requires_grad_()
    (by_graph, by_matrix) = (neighbour_sum(graph(a).adjacency, x), a @ x)
    torch.testing.assert_close(by_graph, by_matrix)
    weight = rows(9, 4, seed=2)
    left = torch.autograd.grad((by_graph * weight).sum(), (a, x))
    right = torch.autograd.grad((by_matrix * weight).sum(), (a, x))
    there = torch.ones_like(a, dtype=torch.bool) if graph is complete else a > 0
    torch.testing.assert_close(left[0][there], right[0][there])
    torch.testing.assert_close(left[1], right[1])


def test_a_complete_graph_has_all_places_and_makes_them_once() -> None:
    a, b = torch.zeros(5, 5), rows(5, 5)
    assert complete(a).n_edges == 25
    assert torch.equal(complete(b).adjacency.dense(), b)
    assert complete(a).adjacency.pattern is complete(b).adjacency.pattern
    assert complete(rows(4, 4)).n_edges == 16


def test_places_made_in_inference_mode_serve_training() -> None:
    with torch.inference_mode():
        complete(rows(13, 13))
    a = rows(13, 13).requires_grad_()
    neighbour_sum(complete(a).adjacency, rows(13, 2)).sum().backward()
    assert a.grad is not None


def test_a_sparse_graph_has_only_what_is_above_zero() -> None:
    a = class_aware(uem(rows(20)), torch.arange(20) % 4)
    graph = sparse(a)
    assert graph.n_edges == int((a > 0).sum()) < 400
    assert torch.equal(graph.adjacency.dense(), a)
