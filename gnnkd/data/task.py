"""A dataset, a protocol and a seed make the task that a number is reported on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gnnkd.data.dataset import NodeDataset
from gnnkd.data.features import row_normalised, stored
from gnnkd.data.whole import Whole
from gnnkd.errors import UserError, unknown
from gnnkd.graph import split as splits
from gnnkd.graph.build import Neighbourhood
from gnnkd.graph.split import Split
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import UNKNOWN, Batch

PROTOCOLS = ("public", "ogb", "given", "cpf", "random")
SETTINGS = ("tran", "ind")
FEATURES = ("auto", "row", "raw")
_BLOCK = 1 << 22
"""Entries that are hashed together."""


@final
@dataclass(frozen=True)
class NodeTask:
    """Nodes to classify, and which of them train, validate and test.

    Rows are the nodes of the task in the order of the full data; `index` holds their ids there. Class ids are those of
    the dataset, so `n_classes` is the same on each split, even if a class does not occur in the largest component.
    `features` says whether rows were normalised (`row`) or not (`raw`), `made` by which rule the edges were made of the
    features as they were before that, if they were.

    Under the setting `ind` the rows are the observed nodes only, `split.test` among them; `whole` holds all nodes.
    These rows of x are a copy in memory, 4 bytes a feature (2 of float16), also where x is mapped, and so is their part
    of the graph; while it is cut out it takes about 40 bytes an edge of the whole.
    """

    name: str
    protocol: str
    setting: str
    seed: int
    x: Tensor | CSR
    y: Int[Tensor, " N"]
    graph: Graph
    split: Split
    classes: tuple[int, ...]
    index: Int[Tensor, " N"]
    features: str
    notes: tuple[str, ...] = ()
    whole: Whole | None = None
    made: Neighbourhood | None = None

    @property
    def n_nodes(self) -> int:
        """Number of nodes N."""
        return self.y.numel()

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.x.shape[1]

    @property
    def n_classes(self) -> int:
        """Number of classes C of the dataset."""
        return len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of node ids, edges, masks, protocol, setting and feature choice; not of labels or feature values.

        Two tasks with the same fingerprint have the same rows: what was computed on one may be used on the other.
        """
        a = self.graph.adjacency
        digest = hashlib.sha256(f"{self.protocol}|{self.setting}|{self.features}|{self.n_nodes}|{a.n_entries}".encode())
        for ids in (self.index, a.rowptr, a.col):
            _hash(digest, ids, "<i8")
        for mask in (self.split.train, self.split.val, self.split.test):
            _hash(digest, mask, "u1")
        return digest.hexdigest()

    @cached_property
    def content(self) -> str:
        """SHA-256 of features, edge weights, labels, classes, `whole`: what a result takes beside `fingerprint`.

        Features of float16 count as the float32 that they are computed with.
        """
        weighted = "" if self.graph.adjacency.value is None else "|weights"
        digest = hashlib.sha256(f"{tuple(self.x.shape)}|{self.classes}{weighted}".encode())
        parts = [*_parts(self.x), self.y, *_weights(self.graph)]
        if self.whole is not None:
            a = self.whole.graph.adjacency
            parts += [*_parts(self.whole.x), self.whole.y, a.rowptr, a.col, self.whole.observed]
            parts += _weights(self.whole.graph)
        for part in parts:
            _hash(digest, part, "<f4" if part.dtype == torch.float16 else None)
        return digest.hexdigest()

    def batch(self, labelled: Bool[Tensor, " N"]) -> Batch:
        """All nodes at once; only the labels in `labelled` can be read."""
        return Batch.of(self.x, self.y, self.graph, labelled, self.index)

    def to(self, device: torch.device | str) -> NodeTask:
        """The same task on `device`."""
        return replace(
            self,
            x=self.x.to(device),
            y=self.y.to(device),
            graph=self.graph.to(device),
            split=self.split.to(device),
            index=self.index.to(device),
            whole=None if self.whole is None else self.whole.to(device),
        )


def protocols(dataset: NodeDataset) -> list[str]:
    """The protocols that a dataset has, its default first."""
    return [*([] if dataset.split is None else [dataset.protocol]), "cpf", "random"]


def task(
    dataset: NodeDataset,
    *,
    protocol: str | None = None,
    seed: int,
    setting: str = "tran",
    normalise: str = "auto",
    fractions: Sequence[float] | None = None,
) -> NodeTask:
    """Split a dataset by a protocol.

    Args:
        protocol: `public` or `ogb` (the published masks), `given` (the masks in the data), `cpf` (largest component, 20
            a class train, 30 validate, the rest tests; all nodes where the edges are made of the features) or `random`
            (fractions of all nodes); by default the first that exists.
        seed: 0 .. 2^32 - 1; `cpf` and `random` draw anew for each, the others do not depend on it.
        setting: `tran`: all nodes and edges are seen in training; `ind`: a fifth of the test nodes, drawn anew for each
            seed, and all their edges are not.
        normalise: `row` divides each row of features by its sum, `raw` leaves them; `auto` is `row` under `public`.
        fractions: of training, validation and test, under `random` only; (.1, .1, .8) by default.

    Raises:
        UserError: an unknown word, a protocol that the dataset does not have, a class too small for `cpf`, fewer than
            two test nodes under `ind`.
    """
    there = protocols(dataset)
    protocol = (protocol or there[0]).lower()
    setting, normalise = setting.lower(), normalise.lower()
    for what, word, allowed in (("split", protocol, PROTOCOLS), ("setting", setting, SETTINGS)):
        if word not in allowed:
            raise unknown(what, word, allowed)
    if normalise not in FEATURES:
        raise unknown("feature normalisation", normalise, FEATURES)
    if protocol not in there:
        raise UserError(f"dataset '{dataset.name}' has no split '{protocol}'; it has {', '.join(there)}")
    if fractions is not None and protocol != "random":
        raise UserError(f"fractions are of the split 'random'; leave them out with '{protocol}', or use --split random")
    index, notes = _nodes(dataset, protocol)
    y = dataset.y[index]
    form = ("row" if protocol == "public" else "raw") if normalise == "auto" else normalise
    x, graph = _rows(dataset.x, dataset.graph, index)
    made = NodeTask(
        name=dataset.name,
        protocol=protocol,
        setting=setting,
        seed=seed,
        x=row_normalised(x, dataset.name) if form == "row" else x,
        y=y,
        graph=graph,
        split=_split(dataset, protocol, y, seed, fractions),
        classes=dataset.classes,
        index=index,
        features=form,
        notes=(*dataset.notes, *notes),
        made=dataset.made,
    )
    return _observed(made, dataset) if setting == "ind" else made


def _observed(everything: NodeTask, dataset: NodeDataset) -> NodeTask:
    """The observed nodes alone: what is not in the task cannot reach training.

    Edges that were made of features are made again, for no unseen node may have a say in them.
    """
    unseen = splits.unseen(everything.split.test, everything.seed)
    observed = ~unseen
    if dataset.made is not None:
        everything = replace(everything, graph=dataset.made.attached(dataset.x, observed))
    x, graph = _rows(everything.x, everything.graph, observed.nonzero().flatten())
    x = stored(x)  # by what is observed: even the choice of a kernel is none of the unseen nodes' business
    tested = everything.split.sizes[2]
    return replace(
        everything,
        x=x,
        y=everything.y[observed],
        graph=graph,
        split=everything.split.rows(observed),
        index=everything.index[observed],
        notes=(*everything.notes, f"{int(unseen.sum())} of {tested} test nodes and their edges are unseen in training"),
        whole=Whole(everything.x, everything.y, everything.graph, observed, everything.index),
    )


def _nodes(dataset: NodeDataset, protocol: str) -> tuple[Int[Tensor, " K"], list[str]]:
    n = dataset.graph.n_nodes
    # Which nodes hang together in a graph made of features depends on features that training may not see.
    if protocol != "cpf" or dataset.made is not None:
        return torch.arange(n), []
    ids = splits.largest_component(dataset.graph.edge_index, n)
    notes = [f"largest component: {ids.numel()} of {n} nodes"] if ids.numel() < n else []
    gone = len(dataset.classes) - len(set(dataset.y[ids].tolist()) - {UNKNOWN})
    if gone:
        notes.append(f"{gone} of {len(dataset.classes)} classes do not occur in it; class ids stay as they are")
    return ids, notes


def _rows(x: Tensor | CSR, graph: Graph, index: Int[Tensor, " K"]) -> tuple[Tensor | CSR, Graph]:
    if index.numel() == graph.n_nodes:
        return x, graph
    return x.select_rows(index) if isinstance(x, CSR) else x[index], graph.subgraph(index)


def _hash(digest: Any, values: Tensor, kind: str | None = None) -> None:
    """The bytes of a tensor, as NumPy's type `kind`, copied some at a time where they are copied."""
    rows = max(1, _BLOCK // max(1, values[:1].numel()))
    for part in torch.split(values.detach(), rows):
        array = part.cpu().contiguous().numpy()
        digest.update(np.ascontiguousarray(array if kind is None else array.astype(kind, copy=False)).data)


def _parts(x: Tensor | CSR) -> list[Tensor]:
    return [x.rowptr, x.col, x.values()] if isinstance(x, CSR) else [x]


def _weights(graph: Graph) -> list[Tensor]:
    return [] if graph.adjacency.value is None else [graph.adjacency.value]


def _split(
    dataset: NodeDataset, protocol: str, y: Int[Tensor, " K"], seed: int, fractions: Sequence[float] | None
) -> Split:
    if protocol == "cpf":
        return splits.cpf(y, seed, labels=dataset.classes)
    if protocol == "random":
        return splits.random(y, seed, fractions or splits.FRACTIONS)
    assert dataset.split is not None
    return dataset.split
