"""A labelled graph, and the one gate through which every array from outside passes."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from gnnkd.data import edges, features, labels, made
from gnnkd.errors import UserError
from gnnkd.graph.build import Neighbourhood
from gnnkd.graph.split import Split
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import UNKNOWN

FIELDS = ("edge_index", "y", "x", *features.PARTS, *labels.MASKS)
"""The arrays that a graph consists of; the features are `x` or the four CSR parts, the masks are optional."""


@final
@dataclass(frozen=True)
class NodeDataset:
    """A graph whose nodes have features and, some or all of them, a class.

    `x` is of float32, or of float16 where a mapped file is and nobody asked for `in_full`. `y` holds class ids 0 .. C -
    1, ascending with the labels, or `UNKNOWN`; `classes` holds the label of each id. `split` is the one that came with
    the data and `protocol` its name: `public` or `ogb` if it was published with the graph, else `given`. `made` is the
    rule by which the edges were made of the features, None where they were given. `notes` say what reading changed.
    """

    name: str
    x: Tensor | CSR
    y: Int[Tensor, " N"]
    graph: Graph
    classes: tuple[int, ...]
    split: Split | None = None
    protocol: str = "given"
    made: Neighbourhood | None = None
    notes: tuple[str, ...] = ()

    def in_full(self) -> NodeDataset:
        """The same with features of float32, read into memory if they were float16; itself if they were not."""
        if self.x.dtype != torch.float16:
            return self
        assert isinstance(self.x, Tensor)
        return replace(self, x=self.x.float(), notes=(*self.notes, "features of type float16 read as float32"))

    @property
    def labels(self) -> Int[Tensor, " N"]:
        """The labels as they were given, -1 where unknown."""
        return torch.where(self.y == UNKNOWN, UNKNOWN, torch.tensor(self.classes)[self.y])


def from_arrays(
    arrays: Mapping[str, npt.NDArray[Any]],
    *,
    name: str = "graph",
    where: str | None = None,
    undirected: bool = True,
    protocol: str = "given",
    graph: str | None = None,
    k: int | None = None,
) -> NodeDataset:
    """Check the arrays of a graph and put them in order.

    Args:
        arrays: by the names in `FIELDS`; others are left out with a note.
        name: of the dataset.
        where: how errors call the place that the arrays are from; `name` by default.
        undirected: add the mirror of each edge.
        protocol: what the masks are: `public` or `ogb` if they were published with the graph.
        graph: `given` takes `edge_index`, `knn` and `uem` make the edges of `x` (see `graph.build.Neighbourhood`); by
            default `given` where there is an `edge_index`, else `knn`, which a note says.
        k: neighbours of a node, for edges that are made; 8 by default.

    Raises:
        UserError: anything that is missing, of a wrong shape, type or length, out of range or not finite.
    """
    where = where or name
    _check_there(arrays, graph, where)
    by = made.rule(graph, k, edges="edge_index" in arrays, where=where)
    notes = _extra(arrays)
    x, done = features.read(arrays, where)
    notes += done
    known, done = labels.checked(arrays["y"], where)
    notes += done
    n = x.shape[0]
    if known.size != n:
        raise UserError(f"{where}: x has {n} rows and y has {known.size} labels; both must have one for each node")
    if by is None:
        found, done = edges.merged(edges.checked(arrays["edge_index"], n, where), n, undirected=undirected)
        joined = Graph.from_edge_index(torch.from_numpy(found), n)
    else:
        joined, done = made.edges(x, by, where)
        notes.append(made.said(by, instead="edge_index" in arrays))
    notes += done
    split = labels.masks(arrays, known, where)
    y, classes = labels.numbered(known)
    if classes != tuple(range(len(classes))):
        notes.append(f"labels {_span(classes)} numbered 0..{len(classes) - 1}")
    return NodeDataset(
        name=name,
        x=x,
        y=torch.from_numpy(y),
        graph=joined,
        classes=classes,
        split=split,
        protocol=protocol,
        made=by,
        notes=tuple(notes),
    )


def _check_there(arrays: Mapping[str, npt.NDArray[Any]], graph: str | None, where: str) -> None:
    # Edges under a name that is nearly right are no wish for other edges.
    misspelt = graph in (None, "given") and bool(_typo("edge_index", arrays))
    for needed in ("edge_index", "y") if misspelt else ("y",):
        if needed not in arrays:
            held = ", ".join(f"{key!a}" for key in sorted(arrays)[:12]) or "nothing"
            raise UserError(f"{where}: {needed} is missing; add it{_typo(needed, arrays)}; the arrays are: {held}")


def to_arrays(dataset: NodeDataset) -> dict[str, npt.NDArray[Any]]:
    """The arrays of which `from_arrays` makes an equal dataset.

    Raises:
        ValueError: edge weights, which have no place there.
    """
    if dataset.graph.adjacency.value is not None:
        raise ValueError(f"{dataset.name} has edge weights, which have no array; keep the features and make it again")
    split = dataset.split
    masks = (split.train, split.val, split.test) if split else ()
    return {
        "edge_index": dataset.graph.edge_index.cpu().numpy(),
        "y": dataset.labels.cpu().numpy(),
        **features.parts_of(dataset.x),
        **{field: mask.cpu().numpy() for field, mask in zip(labels.MASKS, masks, strict=False)},
    }


def _extra(arrays: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    notes = []
    for name in sorted(set(arrays) - set(FIELDS)):
        near = difflib.get_close_matches(name, [f for f in FIELDS if f not in arrays], n=1, cutoff=0.8)
        notes.append(f"{name!a} is not used" + (f" (did you mean '{near[0]}'?)" if near else ""))
    return notes


def _typo(needed: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(needed, [n for n in names if n not in FIELDS], n=1)
    return f" (is it {near[0]!a}?)" if near else ""


def _span(classes: tuple[int, ...]) -> str:
    shown = [str(c) for c in classes]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", shown[-1]])
