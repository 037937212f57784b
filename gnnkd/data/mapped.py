"""A graph as a folder of arrays that are mapped into memory: what does not fit there is read as it is needed.

    graph.json                              what is in the folder, and the SHA-256 of each array
    x.npy                                   [N, D] features, float32 or float16
    rowptr.npy, col.npy                     the adjacency in compressed rows: row = target, column = source; int32 where
                                            that suffices, else int64
    y.npy                                   [N] class ids, -1 = unknown
    train_mask.npy, val_mask.npy, test_mask.npy    [N] booleans

`graph.json` may name the labels of the classes, the protocol of the masks, and notes on how the graph was made.

Features and the adjacency stay on disk until they are touched, in the type that they have there; the system may drop
them again at any time. Reading checks lengths, types and indices; not the digests, for which all would be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from gnnkd.data.dataset import NodeDataset
from gnnkd.data.labels import MASKS
from gnnkd.data.row_arrays import shared
from gnnkd.errors import UserError
from gnnkd.graph.split import Split
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import UNKNOWN

Array = npt.NDArray[Any]

CARD = "graph.json"
FORMAT = 1
ARRAYS = ("x", "rowptr", "col", "y", *MASKS)
_BLOCK = 1 << 22
"""Entries looked at together in checks, so that they take no memory of the size of the array."""


def index_type(*sizes: int) -> np.dtype[Any]:
    """The smaller type in which indices below each of `sizes` can be kept: int32 or int64."""
    return np.dtype(np.int32 if max(sizes) < 2**31 else np.int64)


@final
class Writer:
    """Arrays of a folder, written block by block; the folder appears when all of it is there (see `writing`).

    Args:
        draft: the folder that is written in.
    """

    def __init__(self, draft: Path) -> None:
        self.draft = draft
        self.digests: dict[str, str] = {}

    def array(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...], blocks: Iterable[Array]) -> None:
        """Write one array, whose rows are those of `blocks` one after another.

        Raises:
            ValueError: the blocks hold more or fewer rows than `shape` says.
        """
        kind = np.dtype(dtype).newbyteorder("<")
        digest, rows = hashlib.sha256(f"{kind.str}|{shape}".encode()), 0
        with (self.draft / f"{name}.npy").open("xb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                data = np.ascontiguousarray(block, dtype=kind)
                digest.update(data.data)
                file.write(data.data)
                rows += data.shape[0]
        if rows != shape[0]:
            raise ValueError(f"{name} was to have {shape[0]} rows and {rows} were written")
        self.digests[name] = digest.hexdigest()

    def card(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write what the graph is, with the arrays' digests, and return what was written."""
        card = {"format": FORMAT, **facts, "sha256": self.digests}
        (self.draft / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        return card


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """Write a folder whole or not at all.

    Raises:
        UserError: it is there already, or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; remove it to make it anew, or give another --name")
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        try:
            draft.mkdir(parents=True)
            yield Writer(draft)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}; choose another place") from error


def keeps(dataset: NodeDataset) -> bool:
    """Whether a folder can hold a graph: with dense features and masks, without edge weights or edges by a rule."""
    plain = dataset.made is None and dataset.graph.adjacency.value is None
    return plain and isinstance(dataset.x, torch.Tensor) and dataset.split is not None


def write(folder: Path, dataset: NodeDataset) -> None:
    """Write a graph as a folder of which `read` makes an equal one.

    Raises:
        UserError: the folder is there already, or cannot be written.
        ValueError: it is none that `keeps` a graph.
    """
    split, x, a = dataset.split, dataset.x, dataset.graph.adjacency
    if split is None or not isinstance(x, torch.Tensor) or not keeps(dataset):
        raise ValueError(f"{dataset.name} has sparse features, weights, edges made of its features, or no masks")
    n, kind = dataset.graph.n_nodes, index_type(dataset.graph.n_nodes, a.n_entries)
    tensors = {"x": x, "y": dataset.y, **dict(zip(MASKS, (split.train, split.val, split.test), strict=True))}
    with writing(folder) as writer:
        for name, pointers in (("rowptr", a.rowptr), ("col", a.col)):
            writer.array(name, kind, tuple(pointers.shape), (part.numpy() for part in torch.split(pointers, _BLOCK)))
        for name, tensor in tensors.items():
            parts = torch.split(tensor, max(1, _BLOCK // max(1, tensor[:1].numel())))
            writer.array(name, parts[0].numpy().dtype, tuple(tensor.shape), (part.numpy() for part in parts))
        facts = {"name": dataset.name, "nodes": n, "edges": a.n_entries, "features": x.shape[1]}
        more = {"labels": list(dataset.classes), "protocol": dataset.protocol, "notes": list(dataset.notes)}
        writer.card({**facts, "classes": len(dataset.classes), **more})


def arrays(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `graph.json` says, and the arrays as they lie on disk: mapped, of the type they are kept in, read-only.

    Raises:
        UserError: a file that is missing, truncated or not what `graph.json` says.
    """
    card = _card(folder)
    n, edges, width = (card[key] for key in ("nodes", "edges", "features"))
    shapes = {"x": (n, width), "rowptr": (n + 1,), "col": (edges,)}
    found = {}
    for name in ARRAYS:
        file = folder / f"{name}.npy"
        try:
            # Not copy-on-write, which systems refuse for files larger than their memory.
            found[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{file} is missing, truncated or damaged ({reason}); make the folder again") from error
        shape = shapes.get(name, (n,))
        if found[name].shape != shape:
            raise UserError(f"{file} has shape {list(found[name].shape)}; {CARD} says {list(shape)}: make it again")
    if found["x"].dtype not in (np.float32, np.float16):
        raise UserError(f"{folder / 'x.npy'} is of type {found['x'].dtype}; features are float32 or float16")
    return card, found


def read(folder: str | os.PathLike[str], *, name: str | None = None) -> NodeDataset:
    """A graph whose features and adjacency stay on disk until they are touched.

    Networks compute in float32: of features of float16 each batch is cast, or all by `NodeDataset.in_full`.

    Args:
        folder: that has `graph.json`, or the path of that file.
        name: of the dataset; what `graph.json` says by default.

    Raises:
        UserError: as `arrays`, and for an adjacency that is none.
    """
    folder = Path(folder)
    folder = folder.parent if folder.name == CARD else folder
    card, found = arrays(folder)
    x = found["x"]
    n = x.shape[0]
    _check_adjacency(found["rowptr"], found["col"], n, folder)
    y = torch.from_numpy(found["y"].astype(np.int64))
    classes = card["classes"]
    if int(y.min()) < UNKNOWN or int(y.max()) >= classes:
        raise UserError(f"{folder / 'y.npy'} holds a class outside 0..{classes - 1}; make it again")
    return NodeDataset(
        name=name or card["name"],
        x=shared(x),
        y=y,
        graph=Graph(CSR(shared(found["rowptr"]), shared(found["col"]), None, (n, n))),
        classes=tuple(card.get("labels", range(classes))),
        split=Split(*(torch.from_numpy(np.array(found[mask], dtype=bool)) for mask in MASKS)),
        protocol=card.get("protocol", "given"),
        notes=tuple(card.get("notes", ())),
    )


def _card(folder: Path) -> dict[str, Any]:
    file = folder / CARD
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}); make the folder again") from error
    numbers = ("nodes", "edges", "features", "classes")
    if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("name"), str):
        raise UserError(f"{file} is not of format {FORMAT} of a graph's folder; make the folder again")
    if not all(isinstance(card.get(key), int) and card[key] > 0 for key in numbers):
        raise UserError(f"{file} lacks one of {', '.join(numbers)}, integers above 0; make the folder again")
    labels = card.get("labels", list(range(card["classes"])))
    if not isinstance(labels, list) or len(labels) != card["classes"] or not all(isinstance(c, int) for c in labels):
        raise UserError(f"{file} has labels that are not one integer for each class; make the folder again")
    return card


def _check_adjacency(rowptr: Array, col: Array, n: int, folder: Path) -> None:
    """An index outside would be read from foreign memory."""
    for name, array in (("rowptr", rowptr), ("col", col)):
        if array.dtype not in (np.int32, np.int64):
            raise UserError(f"{folder / name}.npy is of type {array.dtype}; indices are int32 or int64")
    if rowptr[0] != 0 or rowptr[-1] != col.size or bool((np.diff(rowptr) < 0).any()):
        raise UserError(f"{folder / 'rowptr.npy'} does not rise from 0 to {col.size}; make the folder again")
    for start in range(0, col.size, _BLOCK):
        block = col[start : start + _BLOCK]
        if block.min() < 0 or block.max() >= n:
            raise UserError(f"{folder / 'col.npy'} holds a node outside 0..{n - 1}; make the folder again")
