"""The file of a user's own graph.

A file as `numpy.savez` writes it, with arrays by name and no pickled objects:

    edge_index                              [2, E] integers: node ids from 0, source and target; without it, the edges
                                            are made of the features
    x                                       [N, D] features; or, sparse,
    x_data, x_indices, x_indptr, x_shape    the four parts of a `scipy.sparse.csr_array` [N, D]
    y                                       [N] integers: any labels >= 0; -1 = unknown
    train_mask, val_mask, test_mask         [N] booleans, optional: all three or none

Other arrays are left out with a note; edges have no weights.
"""

from __future__ import annotations

import os
import uuid
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gnnkd.data.dataset import NodeDataset, from_arrays, to_arrays
from gnnkd.errors import UserError


def read(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    undirected: bool = True,
    protocol: str = "given",
    graph: str | None = None,
    k: int | None = None,
) -> NodeDataset:
    """Read a graph; nothing in the file is executed.

    Args:
        path: the file.
        name: of the dataset; the file's stem by default.
        undirected: add the mirror of each edge.
        protocol: what the masks are: `public` or `ogb` if they were published with the graph.
        graph: what the edges are, as in `from_arrays`.
        k: neighbours of a node, for edges that are made.

    Raises:
        UserError: no such file, not of this format, damaged, or with arrays that make no graph.
    """
    path = Path(path)
    try:
        arrays = _arrays(path)
    except OSError as error:
        raise UserError(f"dataset {path.name[:60]}... cannot be opened: {error.strerror or error}") from error
    return from_arrays(
        arrays, name=name or path.stem, where=str(path), undirected=undirected, protocol=protocol, graph=graph, k=k
    )


def write(path: str | os.PathLike[str], dataset: NodeDataset) -> None:
    """Write a graph whole or not at all; `read` gives an equal one (a directed graph with `undirected=False`).

    Raises:
        UserError: the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("xb") as file:
                np.savez(file, allow_pickle=False, **to_arrays(dataset))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; choose another place") from error


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the .npz file of a graph")
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the path to the .npz file of a graph")
    try:
        # Opened here, for NumPy leaves a file open that it cannot take.
        with path.open("rb") as file:
            return _members(file, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _members(file: BinaryIO, path: Path) -> dict[str, npt.NDArray[Any]]:
    if not zipfile.is_zipfile(file):
        raise UserError(f"{path} is no .npz file, or a truncated one; write it with numpy.savez")
    file.seek(0)
    name = "contents"
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {}
            for name in archive.files:
                arrays[name] = archive[name]
    # Foreign bytes fail in a dozen ways: a checksum, a header, a length, a decompressor, memory.
    except Exception as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: {name} holds pickled objects, which could run code and are never read; save plain numbers "
                "with numpy.savez"
            ) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: {name!a} cannot be read ({reason}); the file is damaged: write it again") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path}: {name!a} is no array; write the file with numpy.savez")
    return arrays
