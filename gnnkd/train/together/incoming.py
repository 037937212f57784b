"""All that a node hears as one method, so that a node's update is the one optimisation step of the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

from jaxtyping import Bool
from torch import Tensor, nn

from gnnkd.distillers.base import TASK, Distiller, Lesson
from gnnkd.errors import UserError
from gnnkd.tensors import under
from gnnkd.train.together.node import Edge
from gnnkd.types import Batch, Output, Step


@final
class Incoming(Distiller):
    """`sum over edges of gate * weight * terms of the edge's method`.

    An edge from another node leaves the term `ce` of its method out: labels are for the self edge. Terms are called
    `node<i>/<term>` of the self edge and `node<i>/from<j>/<term>` of others; edges from one source add up.

    Where rows are gated, a method hears those that pass, its terms times their share of all rows. Where none passes
    (for a method of features: fewer than two) it hears all of them, times 0, so that the same parameters are reached in
    every step and on every process.

    Args:
        node: number of the node that hears.
        edges: what it hears, none of them cut.
    """

    def __init__(self, node: int, edges: Sequence[Edge]) -> None:
        self.node, self.edges = node, tuple(edges)
        self.needs_teacher = False
        self.reads_maps = any(edge.distiller.reads_maps for edge in edges)
        self._heard: dict[int, Output] = {}

    def hear(self, outputs: Sequence[Output] | Mapping[int, Output]) -> None:
        """Take in what the nodes say about this batch, by number, cut off from the weights that said it."""
        sources = {edge.source for edge in self.edges if edge.source is not None}
        self._heard = {j: detached(outputs[j]) for j in sources}

    def meet(self, lessons: Sequence[Lesson]) -> None:
        """Prepare the method of each edge with a lesson of its own, in the order of the edges."""
        parts = {}
        for k, (edge, lesson) in enumerate(zip(self.edges, lessons, strict=True)):
            edge.distiller.prepare(lesson)
            if edge.distiller.part is not None:
                parts[f"edge{k}"] = edge.distiller.part
        self.part = nn.ModuleDict(parts) if parts else None

    def prepare(self, lesson: Lesson) -> None:
        """Prepare all edges with one lesson."""
        self.meet([lesson] * len(self.edges))

    def wants_clean(self, step: Step) -> bool:
        """Whether a method of an edge does."""
        return any(edge.distiller.wants_clean(step) for edge in self.edges)

    def missing(self) -> str | None:
        """What the first edge lacks that lacks something."""
        return next((lack for edge in self.edges if (lack := edge.distiller.missing())), None)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms of all edges.

        Raises:
            UserError: no edge has a term.
        """
        found: dict[str, Tensor] = {}
        for edge in self.edges:
            weight = edge.weight * edge.gate.weight(step)
            for name, term in self._terms(edge, batch, student, step).items():
                key = self._named(edge, name)
                found[key] = found[key] + weight * term if key in found else weight * term
        if not found:
            raise UserError(f"node {self.node} has no loss: the methods of its edges have nothing but a cross-entropy")
        return found

    def _terms(self, edge: Edge, batch: Batch, student: Output, step: Step) -> dict[str, Tensor]:
        if edge.source is None:
            return edge.distiller.loss(batch, student, None, step)
        source = self._heard[edge.source]
        passed, share = _passed(edge, batch, source)
        if passed is not None:
            batch, student, source = of_batch(batch, passed), of_output(student, passed), of_output(source, passed)
        terms = edge.distiller.loss(batch, student, source, step)
        return {name: share * term for name, term in terms.items() if name != TASK}

    def _named(self, edge: Edge, name: str) -> str:
        start = f"node{self.node}" if edge.source is None else f"node{self.node}/from{edge.source}"
        return f"{start}/{name}"

    def state(self) -> dict[str, Tensor]:
        """Those of the edges' methods."""
        return {f"edge{k}.{name}": t for k, edge in enumerate(self.edges) for name, t in edge.distiller.state().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`, after `prepare`."""
        for k, edge in enumerate(self.edges):
            edge.distiller.load_state(under(tensors, f"edge{k}."))

    def diagnostics(self) -> Mapping[str, Tensor]:
        """Those of the edges' methods, named as their terms are."""
        return {self._named(edge, name): t for edge in self.edges for name, t in edge.distiller.diagnostics().items()}


def _passed(edge: Edge, batch: Batch, source: Output) -> tuple[Bool[Tensor, " N"] | None, float]:
    """The rows that an edge's method hears, None for all, and what its terms are multiplied by."""
    passed = edge.gate.rows(batch, source)
    if passed is None:
        return None, 1.0
    count, least = int(passed.sum()), 2 if edge.distiller.reads_maps else 1
    return (None, 0.0) if count < least else (passed, count / passed.numel())


def of_batch(batch: Batch, rows: Bool[Tensor, " N"]) -> Batch:
    """Some rows of a batch; `x` and `graph` stay whole, for no method runs a network."""
    view = None if batch.view is None else batch.view[rows]
    return replace(batch, y=batch.y[rows], index=batch.index[rows], labelled=batch.labelled[rows], view=view)


def of_output(output: Output, rows: Bool[Tensor, " N"]) -> Output:
    """Some rows of an output, sparse operands left out."""
    return Output(
        output.logits[rows],
        {name: h[rows] for name, h in output.hidden.items() if isinstance(h, Tensor)},
        {name: h[rows] for name, h in output.raw.items()},
        output.averaged,
        None if output.clean is None else of_output(output.clean, rows),
        tuple(m[rows] for m in output.maps),
        tuple(m[rows] for m in output.raw_maps),
        None if output.pooled is None else output.pooled[rows],
    )


def detached(output: Output) -> Output:
    """The same values, from which no gradient finds back to the weights."""
    return Output(
        output.logits.detach(),
        {name: h.detach() if isinstance(h, Tensor) else h for name, h in output.hidden.items()},
        {name: h.detach() for name, h in output.raw.items()},
        output.averaged,
        None if output.clean is None else detached(output.clean),
        tuple(m.detach() for m in output.maps),
        tuple(m.detach() for m in output.raw_maps),
        None if output.pooled is None else output.pooled.detach(),
    )
