"""What an answer is, and the data that it is about.

An answer begins with the numbers of nodes and ends with their logits, both in the memory of the host. Reading what it
needs (rows of features, and for a network that passes messages the neighbourhood) and bringing it to the device is its
fetch; the forward pass and the way of the logits back to the host are its compute.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import torch
from jaxtyping import Int
from torch import Tensor

from gnnkd.data.task import NodeTask
from gnnkd.graph.rows import Rows, some_rows
from gnnkd.graph.structure import CSR, Graph


@final
@dataclass(frozen=True)
class Answer:
    """Logits of the nodes asked about, on the host, and what they took.

    Args:
        logits: [Q, C].
        fetch: seconds; None where it cannot be told from the compute.
        total: seconds, the fetch included.
        nodes: rows of features that were read; None where that was not counted.
        edges: entries of the adjacency that were read.
        size: bytes of these features, as they are stored.
    """

    logits: Tensor
    fetch: float | None
    total: float
    nodes: int | None = None
    edges: int | None = None
    size: int | None = None


class Way(ABC):
    """A way in which a network answers."""

    name: ClassVar[str]
    """How tables call it."""

    @abstractmethod
    def answer(self, nodes: Int[Tensor, " Q"] | None) -> Answer:
        """About some nodes, distinct ones in any order, or None for all; nothing of an answer before is used again."""


@final
class Clock:
    """The time at which a device has done all that it was asked to do."""

    def __init__(self, device: str) -> None:
        self._asynchronous = device == "cuda"

    def now(self) -> float:
        """Seconds from some moment on."""
        if self._asynchronous:
            torch.cuda.synchronize()
        return time.perf_counter()


@final
@dataclass(frozen=True)
class Data:
    """The nodes that are asked about, on the host, perhaps mapped from disk.

    Args:
        x: features of all nodes [N, D].
        graph: their edges.
        index: their ids in the full data.
        device: where networks compute, cpu or cuda.
    """

    x: Tensor | CSR
    graph: Graph
    index: Int[Tensor, " N"]
    device: str = "cpu"

    @staticmethod
    def of(task: NodeTask, device: str = "cpu") -> Data:
        """All nodes of a task on the host; under `ind` the unseen ones are among them."""
        known = task if task.whole is None else task.whole
        return Data(known.x, known.graph, known.index, device)

    @property
    def n(self) -> int:
        """Number of nodes."""
        return self.x.shape[0]

    @cached_property
    def clock(self) -> Clock:
        """Of the device."""
        return Clock(self.device)

    @cached_property
    def resident(self) -> Data:
        """The same on the device, where layers that are applied to all nodes need it."""
        if self.device == "cpu":
            return self
        return Data(self.x.to(self.device), moved(self.graph, self.device), self.index.to(self.device), self.device)

    def rows(self, nodes: Int[Tensor, " S"], *, dense: bool = False) -> Tensor | CSR:
        """Features of some nodes; side by side and dense ones are a view. `dense` writes sparse ones out."""
        if isinstance(self.x, CSR):
            found = some_rows(self.x, nodes)
            return found.dense() if dense else found
        first = int(nodes[0]) if nodes.numel() else 0
        if nodes.numel() and int(nodes[-1]) - first + 1 == nodes.numel() and bool((nodes.diff() == 1).all()):
            return self.x[first : first + nodes.numel()]
        return self.x[nodes]

    def size(self, nodes: Int[Tensor, " S"] | None = None) -> int:
        """Bytes of the features of some nodes, as they are stored; None is all."""
        nodes = torch.arange(self.n) if nodes is None else nodes
        if isinstance(self.x, Tensor):
            return nodes.numel() * self.x.shape[1] * self.x.element_size()
        entries = int((self.x.rowptr[nodes + 1] - self.x.rowptr[nodes]).sum())
        value = 0 if self.x.value is None else self.x.value.element_size()
        return entries * (self.x.col.element_size() + value) + self.x.rowptr.element_size() * nodes.numel()


def moved(graph: Graph, device: str) -> Graph:
    """A graph on `device`, with all that it has derived."""
    return graph.with_derived(graph.adjacency.to(device), lambda matrix: matrix.to(device))


@final
@dataclass(frozen=True)
class Reach:
    """How far some nodes see: nodes within so many edges, those nearer than that, and the edges into these."""

    nodes: Int[Tensor, " S"]
    edges: int


def reached(graph: Graph, start: Int[Tensor, " Q"], hops: int) -> Reach:
    """What is within `hops` edges of some nodes, found in memory of the size of N and of a block of edges."""
    rows = Rows(graph, nodes=1 << 16, entries=1 << 21)
    nodes, near = torch.unique(start), start[:0]
    for _ in range(hops):
        near, nodes = nodes, rows.sources(nodes)
    a = graph.adjacency
    return Reach(nodes, int((a.rowptr[near + 1].long() - a.rowptr[near].long()).sum()))
