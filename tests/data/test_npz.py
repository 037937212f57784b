"""The user's graph file: what is accepted, what is changed, and every way in which it can be wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse
import torch

from gnnkd.data import npz
from gnnkd.data.graphs import load
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, SPARSE_BELOW

N, D = 6, 4


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A small correct graph; each test breaks one thing."""
    masks = {name: np.isin(np.arange(N), ids) for name, ids in zip(MASKS, ([0, 1], [2], [3, 4]), strict=True)}
    return {
        "edge_index": np.array([[0, 1, 1, 2, 3], [1, 0, 2, 3, 4]]),
        "x": np.arange(1, N * D + 1, dtype=np.float32).reshape(N, D),
        "y": np.array([0, 1, 0, 1, 0, -1]),
        **masks,
    }


MASKS = ("train_mask", "val_mask", "test_mask")


@pytest.fixture
def read(tmp_path, arrays):
    """Write the arrays with some changed (None: left out) and read them."""

    def go(undirected=True, **changes):
        path = tmp_path / "graph.npz"
        np.savez(path, **{name: a for name, a in {**arrays, **changes}.items() if a is not None})
        return load(str(path), undirected=undirected)

    return go


def refused(read, message, **changes):
    with pytest.raises(UserError, match=message) as caught:
        read(**changes)
    text = str(caught.value)
    assert "\n" not in text
    assert "graph.npz" in text


def csr(x) -> dict[str, np.ndarray | None]:
    m = scipy.sparse.csr_array(x)
    return {"x": None, "x_data": m.data, "x_indices": m.indices, "x_indptr": m.indptr, "x_shape": np.array(m.shape)}


def wide() -> np.ndarray:
    """Features sparse enough to stay sparse."""
    x = np.zeros((N, 50), dtype=np.float32)
    x[np.arange(N), np.arange(N) * 8] = 1.5
    return x


# What is read


def test_a_correct_file_is_read_as_it_is(read, arrays):
    data = read()
    assert (data.name, data.classes) == ("graph", (0, 1))
    assert torch.equal(data.x, torch.from_numpy(arrays["x"]))
    assert data.y.tolist() == arrays["y"].tolist()
    assert data.protocol == "given"
    assert data.split.sizes == (2, 1, 2)


def test_edges_are_mirrored_and_merged_and_it_says_so(read):
    data = read(edge_index=np.array([[0, 0, 1, 2, 2, 3], [1, 1, 0, 3, 2, 4]]))
    assert data.graph.edge_index.T.tolist() == [[1, 0], [0, 1], [2, 2], [3, 2], [2, 3], [4, 3], [3, 4]]
    assert data.notes == ("1 duplicate edge merged", "2 reverse edges added", "1 self loop kept")


def test_directions_are_kept_on_request(read, arrays):
    data = read(undirected=False)
    assert sorted(data.graph.edge_index.T.tolist()) == sorted(arrays["edge_index"].T.tolist())
    assert data.notes == ()


def test_reading_what_was_read_changes_nothing(read):
    once = read(edge_index=np.array([[0, 0, 5, 2, 2], [1, 1, 0, 3, 2]]))
    twice = read(edge_index=once.graph.edge_index.numpy())
    assert torch.equal(once.graph.edge_index, twice.graph.edge_index)
    assert twice.notes == ("1 self loop kept",)


def test_labels_need_not_be_contiguous(read):
    data = read(y=np.array([70, 7, 70, 9, 7, -1]))
    assert data.y.tolist() == [2, 0, 2, 1, 0, -1]
    assert data.classes == (7, 9, 70)
    assert data.labels.tolist() == [70, 7, 70, 9, 7, -1]
    assert data.notes[-1] == "labels 7, 9, 70 numbered 0..2"


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.float32, np.float64, ">i4"])
def test_labels_of_any_whole_numbers_are_read(read, arrays, dtype):
    assert read(y=arrays["y"].astype(dtype)).y.tolist() == arrays["y"].tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, bool, ">f8"])
def test_features_of_any_real_type_become_float32(read, arrays, dtype):
    x = arrays["x"].astype(dtype)
    data = read(x=x)
    assert data.x.dtype == torch.float32
    assert data.x.tolist() == x.astype(np.float32).tolist()
    assert f"features of type {np.dtype(dtype)} read as float32" in data.notes


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_masks_may_be_zero_and_one(read, arrays, dtype):
    data = read(**{name: arrays[name].astype(dtype) for name in MASKS})
    assert data.split.sizes == (2, 1, 2)


def test_masks_may_be_left_out(read):
    assert read(train_mask=None, val_mask=None, test_mask=None).split is None


def test_sparse_parts_and_dense_features_are_the_same_thing(read):
    dense, sparse = read(x=wide()), read(**csr(wide()))
    assert isinstance(dense.x, CSR)
    assert isinstance(sparse.x, CSR)
    assert dense.x.dense().tolist() == sparse.x.dense().tolist() == wide().tolist()


def test_sparse_parts_of_full_features_become_dense(read, arrays):
    assert torch.equal(read(**csr(arrays["x"])).x, torch.from_numpy(arrays["x"]))


def test_the_threshold_of_sparseness(read):
    x = np.zeros((N, 100), dtype=np.float32)
    x.flat[: round(SPARSE_BELOW * x.size)] = 1
    assert isinstance(read(x=x).x, torch.Tensor)
    x[0, 0] = 0
    assert isinstance(read(x=x).x, CSR)


def test_repeated_entries_of_sparse_features_are_summed(read):
    parts = csr(wide())
    parts["x_data"] = np.append(parts["x_data"], np.float32(2))
    parts["x_indices"] = np.append(parts["x_indices"], parts["x_indices"][-1])
    parts["x_indptr"][-1] += 1
    data = read(**parts)
    assert data.x.dense()[-1].max() == 3.5
    assert "1 repeated entries of x summed" in data.notes


def test_other_arrays_are_left_out_with_a_note(read):
    data = read(edge_weight=np.ones(5), train_masks=np.ones(3), **dict.fromkeys(MASKS))
    assert data.notes[:2] == ("'edge_weight' is not used", "'train_masks' is not used (did you mean 'train_mask'?)")


# What is written


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("changes", [{}, {"y": np.array([70, 7, 70, 9, 7, -1])}, csr(wide()), dict.fromkeys(MASKS)])
def test_a_written_dataset_is_read_as_an_equal_one(read, tmp_path, changes, undirected):
    data = read(undirected=undirected, **changes)
    npz.write(tmp_path / "deep" / "copy.npz", data)
    again = npz.read(tmp_path / "deep" / "copy.npz", name="graph", undirected=undirected)
    assert torch.equal(data.graph.edge_index, again.graph.edge_index)
    assert data.classes == again.classes
    assert torch.equal(data.y, again.y)
    assert dense(data.x).tolist() == dense(again.x).tolist()
    assert (data.split is None) == (again.split is None)
    assert data.split is None or torch.equal(data.split.test, again.split.test)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["copy.npz"]


def dense(x):
    return x.dense() if isinstance(x, CSR) else x


def test_a_place_that_cannot_be_written_is_named(read, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        npz.write(tmp_path / "file" / "graph.npz", read())


# Files that are none


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        load(tmp_path / "none.npz")


def test_a_folder(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x04."])
def test_not_an_npz_file(tmp_path, content):
    path = tmp_path / "graph.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"no \.npz file, or a truncated one"):
        load(path)


def test_a_single_array_is_no_graph(tmp_path):
    path = tmp_path / "graph.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(UserError, match=r"no \.npz file"):
        load(path)


def test_a_file_cut_anywhere_is_refused(read, tmp_path):
    read()
    whole = (tmp_path / "graph.npz").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"truncated|damaged"):
            load(tmp_path / "cut.npz")


def test_a_file_with_bytes_changed_is_read_right_or_refused_in_one_line(read, tmp_path):
    whole = bytearray((read(), (tmp_path / "graph.npz").read_bytes())[1])
    rng = np.random.RandomState(0)
    for _ in range(150):
        broken = bytearray(whole)
        broken[rng.randint(len(broken))] ^= 1 << rng.randint(8)
        (tmp_path / "broken.npz").write_bytes(broken)
        try:
            load(tmp_path / "broken.npz")
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("field", ["x", "y", "extra"])
def test_pickled_objects_are_never_read(read, field):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("the file ran code",)

    bomb = np.empty(1, dtype=object)
    bomb[0] = Bomb()
    refused(read, f"{field} holds pickled objects", **{field: bomb})


# Edges


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        ([[0, 1], [1, 6]], r"edge_index\[1, 1\] is 6, the first of 1 ids outside 0\.\.5"),
        ([[0, -1], [1, 2]], r"edge_index\[0, 1\] is -1"),
        ([[0, 1], [1, 2], [2, 3]], r"shape \[3, 2\]; it must be \[2, E\]; transpose it"),
        ([0, 1], r"shape \[2\]"),
        ([[0.0, 1.0], [1.0, 2.0]], "type float64; node ids must be integers"),
        (np.empty((2, 0), dtype=int), "has no edge"),
        (np.array([[0, 2**64 - 1], [1, 2]], dtype=np.uint64), "is 18446744073709551615"),
    ],
)
def test_wrong_edges(read, edge_index, message):
    refused(read, message, edge_index=np.array(edge_index))


@pytest.mark.parametrize("field", ["y", "x"])
def test_a_missing_array(read, field):
    refused(read, f"{field} is missing", **{field: None})


def test_a_missing_array_under_another_name(read, arrays):
    refused(read, r"edge_index is missing; add it \(is it 'edge_indices'\?\)", edge_index=None, edge_indices=np.ones(1))


# Features


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite(read, arrays, value):
    arrays["x"][2, 3] = arrays["x"][4, 0] = value
    refused(read, rf"x\[2, 3\] is {value}, the first of 2 features", x=arrays["x"])


def test_features_beyond_float32(read, arrays):
    x = arrays["x"].astype(np.float64)
    x[1, 1] = 1e300
    refused(read, r"x\[1, 1\] is 1e\+300, beyond the largest float32", x=x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(6), r"shape \[6\]; it must be \[N, D\]"),
        (np.ones((6, 0)), r"shape \[6, 0\]"),
        (np.ones((6, 4), dtype=complex), "type complex128"),
        (np.full((6, 4), "a"), "type <U1"),
        (np.ones((5, 4)), "x has 5 rows and y has 6 labels"),
    ],
)
def test_wrong_features(read, x, message):
    refused(read, message, x=x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_data": None}, "x_data missing; sparse features need all"),
        ({"x": np.ones((6, 4))}, "both x and x_data are there"),
        ({"x_shape": np.array([6, -1])}, r"x_shape is \[6, -1\]"),
        ({"x_shape": np.array([6.0, 50.0])}, "x_shape is"),
        ({"x_shape": np.array([5, 50])}, "x_indptr has 7 entries; 5 rows in x_shape need 6"),
        ({"x_shape": np.array([6, 40])}, r"x_indices\[5\] is 40; columns in x_shape go from 0 to 39"),
        ({"x_shape": np.array([10**15, 50])}, "x_indptr has 7 entries"),
        ({"x_indices": np.array([0, 1, 2, -1, 0, 0])}, r"x_indices\[3\] is -1"),
        ({"x_indices": np.zeros(6)}, "x_indices is of type float64"),
        ({"x_indices": np.zeros(5, dtype=int)}, "x_data has 6 entries and x_indices 5"),
        ({"x_indptr": np.array([0, 1, 2, 3, 4, 5, 7])}, "ends at 7 and falls 0 times; it must rise from 0 to .* 6"),
        ({"x_indptr": np.array([1, 1, 2, 3, 4, 5, 6])}, "starts at 1"),
        ({"x_indptr": np.array([0, 9, 2, 3, 4, 5, 6])}, "falls 1 times"),
        ({"x_indptr": np.array([0, 9, 2, 3, 4, 5, 6], dtype=np.uint8)}, "falls 1 times"),
        ({"x_data": np.ones((6, 1), dtype=np.float32)}, r"x_data has shape \[6, 1\]"),
        ({"x_data": np.array([1, 1, 1, np.nan, 1, 1])}, r"x\[3, 24\] \(x_data\[3\]\) is nan, the first of 1"),
    ],
)
def test_wrong_sparse_parts(read, change, message):
    refused(read, message, **{**csr(wide()), **change})


# Labels


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0, 1, 0, 1, 0, -2]), r"y\[5\] is -2; labels must be from 0"),
        (np.array([0, 1, 0, 1, 0, 0.5]), r"y\[5\] is 0\.5; labels must be whole numbers"),
        (np.array([0, 1, 0, 1, 0, np.nan]), r"y\[5\] is nan; .* unknown class is -1"),
        (np.array([0, 1, 0, 1, 0, 1e30]), r"y\[5\] is 1e\+30"),
        (np.array(list("ababab")), "y is of type <U1; labels must be integers"),
        (np.zeros((6, 1), dtype=int), r"shape \[6, 1\]; it must be \[N\]; save y\.reshape\(-1\)"),
        (np.eye(6, dtype=int), r"shape \[6, 6\].*argmax"),
        (np.zeros(6, dtype=int), "only class 0"),
        (np.full(6, -1), "no known label"),
        (np.array([0, 1, 0, 1, 0]), "x has 6 rows and y has 5 labels"),
        (np.array([0, 1, 0, 1, 0, 2**64 - 1], dtype=np.uint64), r"y\[5\] is 18446744073709551615"),
    ],
)
def test_wrong_labels(read, y, message):
    refused(read, message, y=y)


def test_an_empty_graph(read):
    empty = {"x": np.empty((0, 4)), "y": np.empty(0, dtype=int), "edge_index": np.empty((2, 0), dtype=int)}
    refused(read, "y is empty; a graph needs nodes", **empty, **dict.fromkeys(MASKS))


# Masks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_mask": None}, "train_mask and test_mask without val_mask; give all three"),
        ({"val_mask": np.arange(6) == 1}, "train_mask and val_mask overlap in 1 nodes, first node 1"),
        ({"val_mask": np.zeros(6, dtype=bool)}, "val_mask is empty"),
        ({"val_mask": np.ones(5, dtype=bool)}, r"val_mask has shape \[5\]; a mask must be \[6\] booleans"),
        ({"val_mask": np.array([2, 3])}, r"val_mask holds 2; .* lists of node ids are not accepted"),
        ({"val_mask": np.array([0, 0, 2, 0, 0, 0])}, "val_mask holds 2"),
        ({"val_mask": np.ones(6)}, "val_mask is of type float64; a mask must be boolean"),
        ({"val_mask": np.ones((6, 10), dtype=bool)}, r"shape \[6, 10\].* choose one: val_mask\[:, 0\]"),
        ({"val_mask": np.array(True)}, r"val_mask has shape \[\]"),
        ({"test_mask": np.arange(6) > 3}, "test_mask holds 1 nodes of unknown class .* first node 5"),
    ],
)
def test_wrong_masks(read, change, message):
    refused(read, message, **change)


def test_the_message_names_the_file_as_it_was_given(tmp_path, read):
    read()
    path = tmp_path / "graph.npz"
    np.savez(path, x=np.ones((2, 2)))
    with pytest.raises(UserError, match=re.escape(f"{path}: y is missing")):
        load(path)
