"""Rows of a derived matrix, without the matrix, are its rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gnnkd.graph import normalise
from gnnkd.graph.rows import Rows, some_rows, with_loops
from gnnkd.graph.sampling import drawn_rows
from gnnkd.graph.structure import CSR, Graph

N = 30
IDS = [torch.arange(N), torch.arange(4, 11), torch.tensor([3, 4, 9, 28, 29]), torch.tensor([2, 3, 5, 5])]


def graph(*, weighted: bool) -> Graph:
    """Directed, with loops (one node has three), equal edges and two nodes without any."""
    g = torch.Generator().manual_seed(0)
    index = torch.randint(N - 2, (2, 150), generator=g)
    index = torch.cat([index, index[:, :9], torch.tensor([[5, 5, 5, 8], [5, 5, 5, 8]])], 1)
    return Graph.from_edge_index(index, N, torch.rand(index.shape[1], generator=g) + 0.1 if weighted else None)


def doubled(a: CSR) -> CSR:
    """A matrix that nobody knows how to derive by rows."""
    return a.with_value(2 * a.values())


@pytest.mark.parametrize("ids", IDS, ids=["all", "side by side", "some", "again"])
@pytest.mark.parametrize("weighted", [False, True])
def test_some_rows_are_the_selected_ones(ids: torch.Tensor, weighted: bool) -> None:
    a = graph(weighted=weighted).adjacency
    torch.testing.assert_close(some_rows(a, ids).dense(), a.select_rows(ids).dense())
    assert some_rows(a, ids[:0]).shape == (0, N)


def test_rows_side_by_side_are_not_copied() -> None:
    a = graph(weighted=True).adjacency
    rows = some_rows(a, torch.arange(4, 11))
    assert rows.col.untyped_storage().data_ptr() == a.col.untyped_storage().data_ptr()
    assert rows.value is not None
    assert a.value is not None
    assert rows.value.untyped_storage().data_ptr() == a.value.untyped_storage().data_ptr()


@pytest.mark.parametrize("ids", IDS, ids=["all", "side by side", "some", "again"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "matrix",
    [normalise.gcn, normalise.symmetric, normalise.mean, normalise.mean_with_self, normalise.looped, doubled],
    ids=lambda fn: fn.__name__,
)
def test_rows_are_those_of_the_derived_matrix(matrix: Callable[[CSR], CSR], weighted: bool, ids: torch.Tensor) -> None:
    whole = graph(weighted=weighted)
    found = Rows(whole, nodes=7, entries=11).of(matrix, ids)
    want = matrix(whole.adjacency).select_rows(ids)
    assert found.n_entries == want.n_entries
    torch.testing.assert_close(found.dense(), want.dense())
    assert (matrix in whole._derived) == (matrix is doubled), "only what is not known is derived as a whole"


@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "matrix", [normalise.gcn, normalise.symmetric, normalise.mean_with_self], ids=lambda fn: fn.__name__
)
def test_drawn_entries_weigh_what_all_do_on_average(
    matrix: Callable[[CSR], CSR], weighted: bool, k: int | None
) -> None:
    """Within five standard errors; with all neighbours, to rounding. A node's own weight is no matter of luck."""
    whole, ids = graph(weighted=weighted), torch.tensor([5, 0, 1, 8, 17, N - 1, *range(20, 28)])
    rows, want = Rows(whole, nodes=7, entries=11), matrix(whole.adjacency).dense()[ids]
    draws = torch.Generator().manual_seed(0)
    times = 1 if k is None else 400
    found = torch.zeros(times, ids.numel(), N)
    for i in range(times):
        a = drawn_rows(whole.adjacency, ids, k, draws)
        # All nodes as columns, those of `ids` first, and rows without entries for the others.
        order = torch.cat([ids, torch.tensor([node for node in range(N) if node not in ids])])
        square = CSR.from_coo(a.row, order.argsort()[a.col], a.value, (N, N))
        found[i] = rows.drawn(matrix, order, square).dense()[: ids.numel(), order.argsort()]
    error = found.std(0) / times**0.5 if times > 1 else torch.zeros(())
    assert bool(((found.mean(0) - want).abs() <= 5 * error + 1e-6).all())
    if matrix is normalise.gcn:
        torch.testing.assert_close(found[0, range(ids.numel()), ids], want[range(ids.numel()), ids])


def test_a_loop_is_replaced_or_added() -> None:
    a = CSR.from_dense(torch.tensor([[0.0, 2.0], [3.0, 4.0]]))
    ids = torch.tensor([0, 1])
    assert with_loops(a, ids, replace=True).dense().tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert with_loops(a, ids, replace=False).dense().tolist() == [[1.0, 2.0], [3.0, 5.0]]


@pytest.mark.parametrize(("nodes", "entries"), [(1, 1), (7, 11), (5, 1000), (1000, 20), (1000, 1000)])
def test_pieces_are_all_ids_in_order_and_no_larger_than_allowed(nodes: int, entries: int) -> None:
    whole = graph(weighted=False)
    for ids in (torch.arange(N), IDS[2]):
        pieces = list(Rows(whole, nodes=nodes, entries=entries).pieces(ids))
        assert torch.equal(torch.cat(pieces), ids)
        for piece in pieces:
            assert 1 <= piece.numel() <= nodes
            assert piece.numel() == 1 or some_rows(whole.adjacency, piece).n_entries <= entries


def test_sources_are_the_nodes_and_their_neighbours() -> None:
    whole, ids = graph(weighted=False), torch.tensor([3, 9, 29])
    source, target = whole.edge_index
    want = sorted({*ids.tolist(), *source[torch.isin(target, ids)].tolist()})
    assert Rows(whole, nodes=2, entries=3).sources(ids).tolist() == want


@pytest.mark.parametrize(("nodes", "entries"), [(0, 1), (1, 0)])
def test_an_empty_piece_is_refused(nodes: int, entries: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Rows(graph(weighted=False), nodes=nodes, entries=entries)
