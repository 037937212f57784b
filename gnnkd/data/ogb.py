"""Graphs of the Open Graph Benchmark, in its own folders and files.

    raw/num-node-list.csv.gz, num-edge-list.csv.gz     one number
    raw/edge.csv.gz                                    source,target: a line for each edge
    raw/node-feat.csv.gz, node-label.csv.gz            a line for each node
    split/<name>/train.csv.gz, valid.csv.gz, test.csv.gz    a node id a line

The package `ogb` is asked only for the address of what is not there, and is never imported: its import starts a request
for its newest version, and its dataset classes ask on standard input, end the process on a "no" and use a call that
torch has changed since.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnnkd.data import csv_gz
from gnnkd.data.labels import MASKS
from gnnkd.data.raw import Source
from gnnkd.errors import UserError

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

RAW = ("num-node-list", "num-edge-list", "edge", "node-feat", "node-label")
PARTS = ("train", "valid", "test")


def source(name: str, split: str) -> Source:
    """A graph by its name in OGB, as `ogbn-arxiv`, with the official split of that name."""
    files = (*(f"raw/{part}.csv.gz" for part in RAW), *(f"split/{split}/{part}.csv.gz" for part in PARTS))
    return Source(
        Path(name.replace("-", "_")),
        files,
        functools.partial(_read, name=name, split=split),
        functools.partial(_download, name=name),
        protocol="ogb",
    )


def _read(folder: Path, *, name: str, split: str) -> Mapping[str, Array]:
    _need("pandas", name)
    files = {part: folder / "raw" / f"{part}.csv.gz" for part in RAW}
    n, n_edges = (_count(files[part]) for part in RAW[:2])
    edges = csv_gz.read(files["edge"], rows=n_edges, columns=2, dtype=np.int64)
    _check_ids(edges, n, files["edge"])
    return {
        "x": csv_gz.read(files["node-feat"], rows=n, dtype=np.float32),
        "y": csv_gz.read(files["node-label"], rows=n, columns=1, dtype=np.int64)[:, 0],
        "edge_index": edges.T,
        **_masks(folder / "split" / split, n),
    }


def _count(file: Path) -> int:
    count = int(csv_gz.read(file, rows=1, columns=1, dtype=np.int64)[0, 0])
    if count < 1:
        raise UserError(f"{file} holds {count}; a graph has at least one node and one edge")
    return count


def _masks(folder: Path, n: int) -> dict[str, npt.NDArray[np.bool_]]:
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for field, part in zip(MASKS, PARTS, strict=True):
        file = folder / f"{part}.csv.gz"
        ids = csv_gz.read(file, columns=1, dtype=np.int64)[:, 0]
        _check_ids(ids[:, None], n, file)
        mask = np.zeros(n, dtype=bool)
        mask[ids] = True
        if mask.sum() < ids.size:
            raise UserError(f"{file} lists a node twice; {ids.size} lines hold {int(mask.sum())} nodes")
        for other, earlier in zip(masks.values(), PARTS, strict=False):
            both = other & mask
            if both.any():
                raise UserError(
                    f"{file} and {earlier}.csv.gz have {int(both.sum())} nodes in common, first node "
                    f"{int(both.argmax())}; a node may be in one of them at most"
                )
        masks[field] = mask
    return masks


def _check_ids(ids: Ids, n: int, file: Path) -> None:
    outside = (ids < 0) | (ids >= n)
    if outside.any():
        row, column = np.unravel_index(outside.argmax(), outside.shape)
        raise UserError(
            f"{file}: line {row + 1} holds {ids[row, column]}, the first of {int(outside.sum())} ids outside 0..{n - 1}"
        )


def _download(root: Path, *, name: str) -> None:
    _need("pandas", name)  # before a download of a gigabyte that could not be read
    url, inside = _registered(name)
    # PyG's functions, for those of ogb cannot be had without importing it.
    from torch_geometric.data import download_url, extract_zip

    archive = download_url(url, str(root))
    extract_zip(archive, str(root), log=False)
    Path(archive).unlink()
    (root / inside).rename(root / name.replace("-", "_"))


def _registered(name: str) -> tuple[str, str]:
    """Address of the zip file and name of the folder in it, from OGB's own table: a column for each dataset."""
    (place,) = _need("ogb", name).submodule_search_locations
    with (Path(place) / "nodeproppred" / "master.csv").open(encoding="utf-8", newline="") as file:
        rows = {row[0]: row for row in csv.reader(file)}
    column = rows[""].index(name)
    return rows["url"][column], rows["download_name"][column]


def _need(package: str, name: str) -> Any:
    """Where an optional package is, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None:
        raise UserError(f"dataset '{name}' needs the package {package}: pip install 'gnnkd[ogb]'")
    return found
