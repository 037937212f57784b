"""A name, or the path to a file, becomes a labelled graph."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch import Tensor

from gnnkd.data import made, mapped, npz, ogb, raw, synthetic
from gnnkd.data.dataset import NodeDataset, from_arrays, to_arrays
from gnnkd.data.location import data_root, graph_cache
from gnnkd.data.pyg import from_pyg
from gnnkd.data.task import NodeTask, task
from gnnkd.errors import UserError, unknown
from gnnkd.graph.build import Neighbourhood

__all__ = ["NodeDataset", "NodeTask", "from_arrays", "from_pyg", "load", "names", "task"]

_CACHE_VERSION = 2
LARGE = 1 << 28
"""Bytes of features and edges from which on the copy of a published graph is a folder that is mapped."""


def digits(name: str, graph: str | None, k: int | None) -> NodeDataset:
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels in [0, 1], joined by their pixels."""
    from sklearn.datasets import load_digits

    images = load_digits()
    arrays = {"x": (images.data / 16).astype(np.float32), "y": images.target}
    found = from_arrays(arrays, name=name, graph=graph or "knn", k=k)
    # That the digits have no edges of their own is no news.
    return replace(found, notes=found.notes[1:])


MADE: Mapping[str, Callable[[str, str | None, int | None], NodeDataset]] = MappingProxyType(
    {"digits": digits, "digits-graph": digits}
)
"""Graphs that are always made of features; the arguments are the name, the rule and the number of neighbours."""

SOURCES: Mapping[str, raw.Source] = MappingProxyType(
    {
        "cora": raw.planetoid("Cora"),
        "citeseer": raw.planetoid("CiteSeer"),
        "pubmed": raw.planetoid("PubMed"),
        "amazon-photo": raw.amazon("Photo"),
        "amazon-computers": raw.amazon("Computers"),
        "coauthor-cs": raw.coauthor("CS"),
        "coauthor-physics": raw.coauthor("Physics"),
        "ogbn-arxiv": ogb.source("ogbn-arxiv", "time"),
        "ogbn-products": ogb.source("ogbn-products", "sales_ranking"),
    }
)
"""Published graphs, by name."""


def names() -> list[str]:
    """The datasets known by name."""
    return sorted([*MADE, *SOURCES, *synthetic.PLANS])


def load(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    undirected: bool = True,
    graph: str | None = None,
    k: int | None = None,
    half: bool = False,
) -> NodeDataset:
    """Load a dataset by name, or by path a graph's .npz file or the graph.json of one that is mapped into memory.

    Args:
        name: upper or lower case, dashes or underscores; or a path (see `gnnkd.data.npz` and `gnnkd.data.mapped` for
            the formats).
        root: of the raw data; by default `$GNNKD_DATA`, else a folder in the user's cache. What is not there is
            downloaded; synthetic graphs are made by `scripts/make_synthetic.py`.
        undirected: add the mirror of each edge; of those known by name only OGB's have one-way edges.
        graph: `given` takes the edges of the data, `knn` and `uem` make them of the features (see
            `graph.build.Neighbourhood`); by default `given` where there are edges, else `knn`.
        k: neighbours of a node, for edges that are made; 8 by default.
        half: leave features of float16 as they are on the disk, for those who cast what they read; else they are read
            into memory as float32.

    Raises:
        UserError: an unknown name, data that is not there or damaged, an option that does not apply.
    """
    word = os.fspath(name)
    key = word.lower().replace("_", "-")
    if key in MADE:
        return MADE[key](key, graph, k)
    known = key in SOURCES or key in synthetic.PLANS
    if known or Path(word).name == mapped.CARD:
        by = made.rule(graph, k, edges=True, where=f"'{key if known else word}'")
        found = _named(key, data_root(root), undirected=undirected) if known else mapped.read(word)
        found = found if half and by is None else found.in_full()
        return found if by is None else _joined(found, by)
    if key.endswith(".npz") or os.sep in word or os.path.isfile(word):  # noqa: PTH113, a name too long is no file
        return npz.read(word, undirected=undirected, graph=graph, k=k)
    raise UserError(f"{unknown('dataset', key, names())}; or give the path to a graph's .npz file")


def _joined(dataset: NodeDataset, by: Neighbourhood) -> NodeDataset:
    """The same nodes with edges made of their features, and what reading noted of them alone."""
    graph, alone = made.edges(dataset.x, by, dataset.name)
    return replace(dataset, graph=graph, made=by, notes=(*dataset.notes, made.said(by, instead=True), *alone))


def _named(name: str, root: Path, *, undirected: bool) -> NodeDataset:
    if name in synthetic.PLANS:  # has each edge in both directions
        return synthetic.load(name, root)
    return _published(name, root, undirected=undirected)


def _published(name: str, root: Path, *, undirected: bool) -> NodeDataset:
    """Read our own copy if there is a good one, else the raw files, and keep a copy: PyG takes seconds to import.

    The copy has the edges as they were published, so it serves either choice of `undirected`, and the first reading
    gives what later ones do. Of a large graph, whose edges take minutes and gigabytes to be merged, the copy is rather
    a folder that is mapped, one for each choice.
    """
    source = SOURCES[name]
    raw.fetch(source, name, root)
    mark = hashlib.sha256(f"{_CACHE_VERSION}|{raw.stamp(source, root)}".encode()).hexdigest()
    copy = graph_cache() / f"{name}-{mark[:16]}.npz"
    folder = copy.with_name(f"{copy.stem}-{'undirected' if undirected else 'directed'}")
    notes: list[str] = []
    protocol = source.protocol or "given"
    if folder.exists():
        try:
            return mapped.read(folder)
        except UserError as error:
            notes.append(f"read from the raw files: {error}")
            shutil.rmtree(folder, ignore_errors=True)
    if copy.is_file():
        try:
            dataset = npz.read(copy, name=name, undirected=undirected, protocol=protocol, graph="given")
            return _mapped(folder, dataset) if _is_large(dataset) else dataset
        except UserError as error:
            notes.append(f"read from the raw files: {error}")
    found = raw.read(source, name, root)
    once = from_arrays(found, name=name, where=str(source.place(root)), undirected=False, protocol=protocol)
    del found  # gigabytes, for the large ones
    large, arrays = _is_large(once), to_arrays(once)
    try:
        if not large:
            npz.write(copy, once)
    except UserError as error:
        notes.append(f"not kept for a faster start: {error}")
    del once
    dataset = from_arrays(arrays, name=name, undirected=undirected, protocol=protocol)
    del arrays
    dataset = _mapped(folder, dataset) if large else dataset
    return replace(dataset, notes=(*dataset.notes, *notes))


def _is_large(dataset: NodeDataset) -> bool:
    if not isinstance(dataset.x, Tensor) or not mapped.keeps(dataset):
        return False
    return dataset.x.nbytes + dataset.graph.adjacency.col.nbytes >= LARGE


def _mapped(folder: Path, dataset: NodeDataset) -> NodeDataset:
    """A large graph as its copy gives it, in no memory; or as it is, with a note, where none can be kept."""
    try:
        if not folder.exists():  # another process may have been faster
            mapped.write(folder, dataset)
        return mapped.read(folder)
    except UserError as error:
        return replace(dataset, notes=(*dataset.notes, f"kept in memory: {error}"))
