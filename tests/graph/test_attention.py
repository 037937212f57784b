"""Laws of attention along edges: softmax row by row, and the pairs of maps between nodes and edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

from gnnkd.graph import attention
from gnnkd.graph.attention import edge_softmax, expand, gather, segment_max, segment_sum
from gnnkd.graph.structure import CSR

DOUBLE = torch.float64


def places(rows: int = 6, cols: int = 5, n: int = 14) -> CSR:
    """Random places, the last row without any."""
    g = torch.Generator().manual_seed(n)
    row, col = torch.randint(rows - 1, (n,), generator=g), torch.randint(cols, (n,), generator=g)
    return CSR.from_coo(row, col, None, (rows, cols))


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


def by_rows(a: CSR, v: Tensor) -> list[Tensor]:
    return list(v.split(a.rowptr.diff().tolist()))


def test_softmax_is_the_softmax_of_each_row() -> None:
    a, s = places(), values(14, 3)
    for one, other in zip(by_rows(a, edge_softmax(a, s)), by_rows(a, s), strict=True):
        assert torch.allclose(one, other.softmax(0))


def test_softmax_does_not_notice_a_shift_of_a_row_and_takes_any_size() -> None:
    a, s = places(), values(14, 3)
    shift = torch.randn(6, 3, dtype=DOUBLE)
    assert torch.allclose(edge_softmax(a, s + expand(a, shift)), edge_softmax(a, s))
    for size in (1e4, -1e4):
        p = edge_softmax(a, s.detach().float() * 0 + size)
        assert torch.allclose(p, (1 / a.rowptr.diff()[a.row.long()].float())[:, None].expand_as(p))


def test_sums_and_largest_of_rows() -> None:
    a, v = places(), values(14, 3)
    rows = by_rows(a, v)
    assert torch.allclose(segment_sum(a, v), torch.stack([r.sum(0) for r in rows]))
    want = torch.stack([r.max(0).values if len(r) else torch.zeros(3, dtype=DOUBLE) for r in rows])
    assert torch.equal(segment_max(a, v), want)
    assert not segment_max(a, v).requires_grad


def test_a_graph_without_edges() -> None:
    a, v = CSR.from_coo(*torch.zeros(2, 0, dtype=torch.long), None, (4, 4)), torch.zeros(0, 2)
    assert not segment_sum(a, v).any()
    assert edge_softmax(a, v).shape == (0, 2)


def test_moving_values_to_edges_and_back_are_adjoint() -> None:
    a, v, r, c = places(), values(14, 3), values(6, 3), values(5, 3)
    assert torch.equal(expand(a, r), r[a.row.long()])
    assert torch.equal(gather(a, c), c[a.col.long()])
    assert torch.allclose((expand(a, r) * v).sum(), (r * segment_sum(a, v)).sum())


@pytest.mark.parametrize("name", ["softmax", "sum", "expand", "gather"])
def test_the_first_two_derivatives_are_right(name: str) -> None:
    a = places()
    f, v = {
        "softmax": (lambda v: edge_softmax(a, v), values(14, 2)),
        "sum": (lambda v: segment_sum(a, v).tanh(), values(14, 2)),
        "expand": (lambda v: expand(a, v).tanh(), values(6, 2)),
        "gather": (lambda v: gather(a, v).tanh(), values(5, 2)),
    }[name]
    assert gradcheck(f, (v,))
    assert gradgradcheck(f, (v,))


def test_the_third_derivative_of_a_softmax_is_that_of_the_dense_one() -> None:
    a = CSR.from_coo(torch.zeros(4, dtype=torch.long), torch.arange(4), None, (1, 4))
    s = values(4, 1)
    thirds = []
    for softmax in (lambda s: edge_softmax(a, s), lambda s: s.softmax(0)):
        g = softmax(s).square().sum()
        for _ in range(3):
            (g,) = grad(g, s, create_graph=True)
            g = g.square().sum() + g[0, 0]
        thirds.append(g)
    assert torch.allclose(*thirds)


def test_the_way_of_other_devices_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, s = places(), values(14, 3)
    want = [edge_softmax(a, s), segment_sum(a, s), segment_max(a, s)]
    monkeypatch.setattr(attention, "_bags", attention._segments)
    got = [edge_softmax(a, s), segment_sum(a, s), segment_max(a, s)]
    assert all(torch.allclose(one, other) for one, other in zip(got, want, strict=True))
