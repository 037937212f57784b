"""Laws of the rules by which features become edges."""

from __future__ import annotations

import pytest
import torch

from gnnkd.errors import UserError
from gnnkd.graph.build import Neighbourhood, attached, knn, nearest, strongest, uem
from gnnkd.graph.build import features as rules
from gnnkd.graph.structure import CSR

KINDS = pytest.mark.parametrize("kind", ["knn", "uem"])


def points(n: int = 70, d: int = 6, share: float = 1.0) -> torch.Tensor:
    """Rows of positive numbers, a share of which is not zero; some rows are alike, some are zero."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(n, d, generator=g) * (torch.rand(n, d, generator=g) < share)
    x[5], x[6] = x[4], 2 * x[4]
    x[10:12] = 0
    return x


def unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x.double(), dim=1)


def slow(x: torch.Tensor, k: int) -> torch.Tensor:
    """The dense graph: `uem`, the k strongest of each row or column, without the diagonal."""
    u = uem(unit(x)).fill_diagonal_(0)
    return strongest(u.round(decimals=12), k).relu().float()


@pytest.mark.parametrize("k", [1, 4, 69])
@pytest.mark.parametrize("x", [points(), points(d=40, share=0.1), points() - 0.5])
def test_the_graph_of_uem_equals_the_dense_one(x: torch.Tensor, k: int) -> None:
    a = Neighbourhood("uem", k).graph(x).adjacency
    assert a.value is not None
    assert bool((a.value > 0).all())
    assert a.dtype == x.dtype
    torch.testing.assert_close(a.dense(), slow(x, k), rtol=1e-6, atol=1e-7)
    assert torch.equal(a.dense(), a.transpose.dense())
    assert not bool((a.row == a.col).any())


@KINDS
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_blocks_do_not_matter(kind: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x = points(d=30, share=share)
    whole = Neighbourhood(kind, 4).graph(x).adjacency
    monkeypatch.setattr(nearest, "_ENTRIES_AT_ONCE", 7 * len(x))
    monkeypatch.setattr(rules, "_VALUES_AT_ONCE", 5 * 30)
    torch.testing.assert_close(Neighbourhood(kind, 4).graph(x).adjacency.dense(), whole.dense())


@KINDS
def test_no_more_than_a_block_is_in_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 nodes are taken in blocks of 335 rows: not N x N but a block x N numbers at a time."""
    seen: list[tuple[int, ...]] = []
    smallest = nearest._smallest

    def recorded(distance: torch.Tensor, k: int) -> torch.Tensor:
        seen.append(tuple(distance.shape))
        return smallest(distance, k)

    monkeypatch.setattr(nearest, "_smallest", recorded)
    monkeypatch.setattr(nearest, "_ENTRIES_AT_ONCE", 1 << 12)
    Neighbourhood(kind, 3).graph(points(600))
    assert sum(rows for rows, _ in seen) == 600
    assert max(rows * columns for rows, columns in seen) <= 1 << 12
    assert (1 << 24) // 50_000 == 335


@KINDS
def test_sparse_features_make_the_same_graph(kind: str) -> None:
    x = points(d=60, share=0.1)
    rule = Neighbourhood(kind, 4)
    assert torch.equal(rule.graph(CSR.from_dense(x)).adjacency.dense(), rule.graph(x).adjacency.dense())
    full = points() + 0.1
    assert torch.equal(rule.graph(CSR.from_dense(full)).adjacency.dense(), rule.graph(full).adjacency.dense())
    torch.testing.assert_close(knn(CSR.from_dense(full), 4), knn(full, 4))


def test_nearest_neighbours_have_no_weights_and_are_those_of_knn() -> None:
    x, observed = points(), torch.arange(70) % 4 > 0
    rule = Neighbourhood("knn", 4)
    assert rule.graph(x).adjacency.value is None
    assert torch.equal(rule.graph(x).edge_index, knn(x, 4))
    assert torch.equal(rule.attached(x, observed).edge_index, attached(x, observed, 4))


@KINDS
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_observed_nodes_have_the_graph_of_themselves_alone(kind: str, share: float) -> None:
    x, observed = points(d=30, share=share), torch.arange(70) % 4 > 0
    rule, moved = Neighbourhood(kind, 4), torch.where(observed[:, None], x, x.flip(1) + 1)
    alone = rule.graph(x[observed]).adjacency
    for some in (x, moved):
        whole = rule.attached(some, observed)
        among = whole.subgraph(observed).adjacency
        assert torch.equal(among.col, alone.col)
        assert torch.equal(among.rowptr, alone.rowptr)
        assert torch.equal(among.values(), alone.values())
        assert whole.n_edges > alone.n_entries
    assert not torch.equal(
        rule.attached(x, observed).adjacency.dense(), rule.attached(moved, observed).adjacency.dense()
    )


@KINDS
def test_nothing_to_attach_is_the_plain_graph(kind: str) -> None:
    x, rule = points(), Neighbourhood(kind, 4)
    all_of_them = torch.ones(70, dtype=torch.bool)
    assert torch.equal(rule.attached(x, all_of_them).adjacency.dense(), rule.graph(x).adjacency.dense())


def test_the_length_of_a_row_does_not_matter_to_uem() -> None:
    x = points()
    scaled = x * torch.linspace(0.1, 9, 70)[:, None]
    rule = Neighbourhood("uem", 4)
    torch.testing.assert_close(rule.graph(scaled).adjacency.dense(), rule.graph(x).adjacency.dense())


def test_alike_rows_are_joined_most_strongly_and_unlike_ones_not_at_all() -> None:
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    a = Neighbourhood("uem", 5).graph(x).adjacency.dense()
    assert float(a[0, 1]) == 1.0
    assert float(a[3, 4]) == 0.5
    assert a.count_nonzero() == 4
    assert (a[2] == 0).all()


def test_rules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="k is 0; a node needs at least 1"):
        Neighbourhood("knn", 0)
    with pytest.raises(UserError, match="k is 70; the 70 nodes allow 1 to 69"):
        Neighbourhood("uem", 70).graph(points())
    with pytest.raises(UserError, match="k is 3; the 3 nodes allow 1 to 2"):
        Neighbourhood("uem", 3).attached(points(), torch.arange(70) < 3)
