"""PyTorch Geometric's `Data` as a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gnnkd.data.dataset import FIELDS, NodeDataset, from_arrays
from gnnkd.errors import UserError


def from_pyg(
    data: Any,
    *,
    name: str = "graph",
    undirected: bool = True,
    protocol: str = "given",
    graph: str | None = None,
    k: int | None = None,
) -> NodeDataset:
    """Read a `Data` object, or anything with its attributes; the tensors are copied.

    Args:
        data: with `edge_index` [2, E], `x` [N, D] (dense or sparse) and `y` [N], -1 = unknown; `edge_index` and
            `train_mask`, `val_mask`, `test_mask` [N] are optional. Other attributes, edge weights among them, are left
            out with a note.
        name: of the dataset.
        undirected: add the mirror of each edge.
        protocol: what the masks are: `public` or `ogb` if they were published with the graph.
        graph: what the edges are, as in `from_arrays`.
        k: neighbours of a node, for edges that are made.

    Raises:
        UserError: as `from_arrays`, and for an attribute that is no tensor.
    """
    arrays = arrays_of(data, name)
    return from_arrays(arrays, name=name, undirected=undirected, protocol=protocol, graph=graph, k=k)


def arrays_of(data: Any, name: str) -> dict[str, npt.NDArray[Any]]:
    """What `from_pyg` reads of `data`, as `from_arrays` takes it; `name` is for errors."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for field in ("edge_index", "x", "y", "train_mask", "val_mask", "test_mask"):
        value = getattr(data, field, None)
        if value is not None:
            arrays.update(_arrays(field, value, name))
    if "edge_index" not in arrays and getattr(data, "adj_t", None) is not None:
        raise UserError(f"{name}: data.adj_t stands in for data.edge_index; give edge_index [2, E]")
    keys = data.keys() if callable(getattr(data, "keys", None)) else vars(data)
    # Of what is not read only the names count, for the notes.
    return arrays | {key: np.empty(0) for key in keys if key not in (*FIELDS, "num_nodes") and key[0] != "_"}


def _arrays(field: str, value: Any, name: str) -> dict[str, npt.NDArray[Any]]:
    if isinstance(value, np.ndarray):
        return {field: value.copy()}
    if not isinstance(value, Tensor):
        raise UserError(f"{name}: data.{field} is a {type(value).__name__}; it must be a tensor")
    tensor = value.detach().cpu()
    if field == "x" and tensor.layout in (torch.sparse_coo, torch.sparse_csr):
        rows = tensor if tensor.layout == torch.sparse_csr else _compressed(tensor)
        parts = (rows.values(), rows.col_indices(), rows.crow_indices(), torch.tensor(rows.shape))
        return dict(zip(("x_data", "x_indices", "x_indptr", "x_shape"), (_numpy(p) for p in parts), strict=True))
    if tensor.layout != torch.strided:
        raise UserError(f"{name}: data.{field} has the layout {tensor.layout}; give a dense tensor")
    return {field: _numpy(tensor)}


def _compressed(tensor: Tensor) -> Tensor:
    if tensor.dense_dim():
        raise UserError(f"data.x is a sparse tensor with {tensor.dense_dim()} dense dimensions; both must be sparse")
    return tensor.coalesce().to_sparse_csr()


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    # NumPy has no bfloat16; float32 holds every value of it.
    plain = tensor.as_subclass(Tensor)
    return np.array((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())
