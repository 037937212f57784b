"""Laws of sparse matrices and graphs: agreement with their dense form."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import scipy.sparse
import torch

from gnnkd.graph.structure import CSR, Graph


def random_entries(rows: int, cols: int, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    row, col = torch.randint(rows, (n,), generator=g), torch.randint(cols, (n,), generator=g)
    return row, col, torch.randn(n, generator=g)


def random_csr(rows: int = 9, cols: int = 7, n: int = 40, seed: int = 0) -> CSR:
    row, col, value = random_entries(rows, cols, n, seed)
    return CSR.from_coo(row, col, value, (rows, cols))


def test_coordinates_give_the_dense_matrix_and_equal_places_add_up() -> None:
    row, col, value = random_entries(9, 7, 40)
    dense = torch.zeros(9, 7).index_put((row, col), value, accumulate=True)
    assert torch.allclose(CSR.from_coo(row, col, value, (9, 7)).dense(), dense)


def test_entries_are_sorted_by_row_column_and_given_order() -> None:
    a = CSR.from_coo(torch.tensor([1, 0, 1, 1]), torch.tensor([2, 1, 0, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0]), (2, 3))
    assert a.row.tolist() == [0, 1, 1, 1]
    assert a.col.tolist() == [1, 0, 2, 2]
    assert a.values().tolist() == [2.0, 3.0, 1.0, 4.0]
    assert a.rowptr.tolist() == [0, 1, 4]


def test_dense_and_scipy_forms_round_trip() -> None:
    x = torch.randn(6, 5) * (torch.rand(6, 5) < 0.4)
    assert torch.equal(CSR.from_dense(x).dense(), x)
    m = scipy.sparse.coo_matrix((np.ones(3), ([0, 2, 2], [1, 3, 3])), shape=(4, 5))
    assert np.array_equal(CSR.from_scipy(m).dense().numpy(), m.toarray())
    assert CSR.from_scipy(m).n_entries == 2
    assert m.nnz == 3  # the caller's matrix is left alone


def test_the_transpose_is_the_dense_transpose_and_leads_back() -> None:
    a = random_csr()
    assert torch.equal(a.transpose.dense(), a.dense().t())
    assert a.transpose is a.transpose
    assert a.transpose.transpose is a


def test_the_transpose_outlives_its_origin() -> None:
    dense, t = random_csr().dense(), random_csr().transpose
    assert torch.equal(t.transpose.dense(), dense)


@pytest.mark.parametrize("origin_alive", [True, False])
def test_other_values_share_structure_and_its_transposition(origin_alive: bool) -> None:
    a = random_csr()
    b = a.with_value(torch.arange(float(a.n_entries)))
    assert b.rowptr is a.rowptr
    assert b.col is a.col
    assert b.transpose.col is a.transpose.col
    assert torch.equal(b.transpose.dense(), b.dense().t())
    t, dense = b.transpose, b.dense()
    if not origin_alive:
        del b
    assert torch.equal(t.transpose.dense(), dense)


def test_no_cycle_keeps_a_transposed_matrix_alive() -> None:
    gc.disable()
    try:
        a = random_csr()
        watched = weakref.ref(a.transpose.pattern)
        del a
        assert watched() is None
    finally:
        gc.enable()


def test_values_that_need_gradients_are_not_kept_from_another_graph() -> None:
    a = random_csr()
    value = a.values().clone().requires_grad_()
    b = a.with_value(value)
    with torch.no_grad():
        assert not b.transpose.values().requires_grad
    for _ in range(2):
        (grad,) = torch.autograd.grad(b.transpose.values().square().sum(), value)
        assert torch.allclose(grad, 2 * value)


def test_selected_rows_are_those_of_the_dense_matrix() -> None:
    a = random_csr()
    for ids in (torch.tensor([3, 0, 3, 8]), torch.tensor([], dtype=torch.long), torch.arange(9) % 2 == 0):
        assert torch.equal(a.select_rows(ids).dense(), a.dense()[ids])
    ones = a.with_value(None)
    assert torch.equal(ones.select_rows(torch.tensor([4, 1])).dense(), ones.dense()[[4, 1]])


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (0, 4), (4, 0), (3, 3)])
def test_empty_matrices_are_matrices(rows: int, cols: int) -> None:
    none = torch.empty(0, dtype=torch.long)
    a = CSR.from_coo(none, none, torch.empty(0), (rows, cols))
    assert a.dense().shape == (rows, cols)
    assert a.transpose.shape == (cols, rows)
    assert a.density == 0


def test_indices_take_four_bytes_where_they_fit() -> None:
    a = random_csr()
    assert a.col.dtype == a.rowptr.dtype == a.row.dtype == a.transpose.col.dtype == torch.int32
    wide = CSR.from_coo(torch.tensor([0]), torch.tensor([2**31]), None, (1, 2**31 + 1))
    assert wide.col.dtype == torch.int64


def test_pickled_and_copied_matrices_are_equal() -> None:
    a = random_csr()
    dense = a.transpose.dense()
    for b in (pickle.loads(pickle.dumps(a)), copy.deepcopy(a), pickle.loads(pickle.dumps(a.transpose)).transpose):
        assert torch.equal(b.transpose.dense(), dense)


def test_moving_to_the_same_device_is_free() -> None:
    g = Graph(random_csr(7, 7))
    assert g.to("cpu") is g
    assert g.adjacency.to(torch.device("cpu")) is g.adjacency


def test_moving_keeps_shape_and_type() -> None:
    g = Graph(random_csr(7, 7)).to("meta")
    assert g.adjacency.device.type == "meta"
    assert g.adjacency.shape == (7, 7)
    assert g.n_edges == 40


@pytest.mark.parametrize(
    ("row", "col", "said"),
    [([0, 9], [0, 0], r"row indices span \[0, 9\]"), ([0, 1], [-1, 0], r"column indices span \[-1, 0\]")],
)
def test_an_index_outside_the_matrix_is_named(row: list[int], col: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CSR.from_coo(torch.tensor(row), torch.tensor(col), None, (9, 7))


def test_a_wrong_number_of_values_is_named() -> None:
    with pytest.raises(ValueError, match="one for each of 40 entries"):
        random_csr().with_value(torch.ones(3))


def test_a_graph_is_square() -> None:
    with pytest.raises(ValueError, match="square"):
        Graph(random_csr())


def test_messages_go_from_source_to_target() -> None:
    g = Graph.from_edge_index(torch.tensor([[0, 2], [1, 1]]), 3)
    assert torch.equal(g.adjacency.dense(), torch.tensor([[0.0, 0, 0], [1, 0, 1], [0, 0, 0]]))
    assert g.edge_index.tolist() == [[0, 2], [1, 1]]
    assert (g.n_nodes, g.n_edges) == (3, 2)


def test_an_edge_list_round_trips_but_for_order() -> None:
    g = Graph(random_csr(7, 7))
    again = Graph.from_edge_index(g.edge_index, 7, g.adjacency.values())
    assert torch.equal(again.adjacency.dense(), g.adjacency.dense())


def test_a_derived_matrix_is_computed_once_per_function() -> None:
    g = Graph(random_csr(7, 7))
    calls = []

    def twice(a: CSR) -> CSR:
        calls.append(a)
        return a.with_value(2 * a.values())

    assert g.derived(twice) is g.derived(twice)
    assert len(calls) == 1
    assert torch.equal(g.derived(twice).dense(), 2 * g.adjacency.dense())
    assert g.derived(lambda a: a) is g.adjacency


def test_derived_matrices_go_along_to_another_adjacency() -> None:
    g = Graph(random_csr(7, 7))

    def twice(a: CSR) -> CSR:
        return a.with_value(2 * a.values())

    ids = torch.tensor([5, 0, 2])
    kept = g.derived(twice)
    piece = g.subgraph(ids)
    found = g.with_derived(piece.adjacency, lambda a: CSR.from_dense(10 * a.dense()[ids][:, ids]))
    assert found.adjacency is piece.adjacency
    assert torch.equal(found.derived(twice).dense(), 10 * kept.dense()[ids][:, ids])
    assert torch.equal(found.derived(lambda a: a).dense(), piece.adjacency.dense())
    assert g.derived(twice) is kept, "the first graph is as it was"
    same = g.with_derived(g.adjacency, lambda a: a)
    assert same.derived(twice) is kept
    assert torch.equal(same.derived(lambda a: a.with_value(4 * a.values())).dense(), 4 * g.adjacency.dense())


def test_a_subgraph_is_the_submatrix() -> None:
    g = Graph(random_csr(9, 9))
    ids = torch.tensor([5, 0, 7, 2])
    dense = g.adjacency.dense()
    assert torch.allclose(g.subgraph(ids).adjacency.dense(), dense[ids][:, ids])
    mask = torch.zeros(9, dtype=torch.bool).index_fill(0, ids, True)
    assert torch.allclose(g.subgraph(mask).adjacency.dense(), dense[mask][:, mask])
    assert g.subgraph(torch.tensor([], dtype=torch.long)).n_nodes == 0


def test_weights_beside_a_graph_are_refused() -> None:
    g = Graph(random_csr(7, 7))
    assert Graph.of(g, 7) is g
    with pytest.raises(ValueError, match="holds its own weights"):
        Graph.of(g, 7, torch.ones(40))
