"""A name, or the path to a file, becomes a labelled graph."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from gnnkd.data import made, mapped, npz, ogb, raw, synthetic
from gnnkd.data.dataset import NodeDataset, from_arrays, to_arrays
from gnnkd.data.location import data_root, graph_cache
from gnnkd.data.pyg import from_pyg
from gnnkd.data.task import NodeTask, task
from gnnkd.errors import UserError, unknown
from gnnkd.graph.build import Neighbourhood

__all__ = ["NodeDataset", "NodeTask", "from_arrays", "from_pyg", "load", "names", "task"]

_CACHE_VERSION = 2


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
    gives what later ones do.
    """
    source = SOURCES[name]
    raw.fetch(source, name, root)
    mark = hashlib.sha256(f"{_CACHE_VERSION}|{raw.stamp(source, root)}".encode()).hexdigest()
    copy = graph_cache() / f"{name}-{mark[:16]}.npz"
    notes: list[str] = []
    protocol = source.protocol or "given"
    if copy.is_file():
        try:
            return npz.read(copy, name=name, undirected=undirected, protocol=protocol, graph="given")
        except UserError as error:
            notes.append(f"read from the raw files: {error}")
    found = raw.read(source, name, root)
    once = from_arrays(found, name=name, where=str(source.place(root)), undirected=False, protocol=protocol)
    del found  # gigabytes, for the large ones
    try:
        npz.write(copy, once)
    except UserError as error:
        notes.append(f"not kept for a faster start: {error}")
    dataset = from_arrays(to_arrays(once), name=name, undirected=undirected, protocol=protocol)
    return replace(dataset, notes=(*dataset.notes, *notes))
