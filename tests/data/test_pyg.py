"""A `Data` of the user's own passes the same gate as a file."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gnnkd.data.graphs import from_pyg
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR


def data(**changes) -> SimpleNamespace:
    fields = {
        "edge_index": torch.tensor([[0, 1, 2], [1, 2, 3]]),
        "x": torch.eye(4, 30),
        "y": torch.tensor([3, 5, 3, -1]),
        **changes,
    }
    return SimpleNamespace(**{name: value for name, value in fields.items() if value is not None})


def test_it_is_read_like_a_file():
    dataset = from_pyg(data(), name="mine")
    assert (dataset.name, dataset.classes, dataset.y.tolist()) == ("mine", (3, 5), [0, 1, 0, -1])
    assert dataset.graph.n_edges == 6
    assert from_pyg(data(), undirected=False).graph.n_edges == 3


@pytest.mark.parametrize("form", [torch.Tensor.to_sparse_coo, torch.Tensor.to_sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")  # torch, of its own CSR
def test_sparse_features_equal_dense_ones(form):
    dense, sparse = from_pyg(data()).x, from_pyg(data(x=form(torch.eye(4, 30)))).x
    assert isinstance(sparse, CSR)
    assert torch.equal(dense.dense(), sparse.dense())


def test_the_users_tensors_are_copied():
    mine = data(x=torch.ones(4, 2))
    dataset = from_pyg(mine)
    mine.x.zero_()
    assert dataset.x.min() == 1


def test_gradients_and_half_precision_are_taken_off():
    x = torch.ones(4, 2, dtype=torch.bfloat16, requires_grad=True)
    dataset = from_pyg(data(x=x))
    assert dataset.x.dtype == torch.float32
    assert not dataset.x.requires_grad


def test_masks_are_the_given_split():
    masks = {name: torch.arange(4) == i for i, name in enumerate(("train_mask", "val_mask", "test_mask"))}
    assert from_pyg(data(**masks)).split.sizes == (1, 1, 1)


def test_edge_weights_are_left_out_with_a_note():
    assert "'edge_weight' is not used" in from_pyg(data(edge_weight=torch.ones(3))).notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "x is missing"),
        ({"y": None}, "y is missing"),
        ({"edge_index": None}, r"mine: k is 8; the 4 nodes allow 1 to 3 .* or give the edges as edge_index"),
        ({"edge_index": None, "adj_t": object()}, "adj_t stands in for data.edge_index"),
        ({"x": [[1.0]]}, "data.x is a list; it must be a tensor"),
        ({"edge_index": torch.tensor([[0], [4]])}, r"mine: edge_index\[1, 0\] is 4"),
        ({"x": torch.full((4, 2), torch.nan)}, "the first of 8 features"),
        (
            {name: torch.ones(4, 10, dtype=torch.bool) for name in ("train_mask", "val_mask", "test_mask")},
            r"choose one: train_mask\[:, 0\]",
        ),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(UserError, match=message):
        from_pyg(data(**changes), name="mine")
