"""What a graph of networks consists of, and what it must be to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from torch import nn

from gnnkd import distillers
from gnnkd.distillers.base import Distiller
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.errors import UserError
from gnnkd.train.settings import ImageTrainSettings, TrainSettings
from gnnkd.train.together.gates import Correct, Cutoff, Gate
from gnnkd.types import Step

SHARED = ("epochs", "patience", "batch_size", "per_class")
"""Settings that are of all nodes together: a batch is one batch for all of them."""


@final
@dataclass(frozen=True, eq=False)
class Edge:
    """What a node hears from one source.

    Args:
        source: number of the node that is heard; None for the node's own labels (a self edge).
        distiller: the method, an object of this edge alone; it keeps the default gradients.
        gate: how much passes, by epoch or by row.
        weight: factor of the loss, above 0.
    """

    source: int | None
    distiller: Distiller
    gate: Gate
    weight: float = 1.0


@final
@dataclass(frozen=True, eq=False)
class Node:
    """A network and how it learns.

    Args:
        name: of the network, for people.
        model: `model(x, graph) -> Output`, an object of this node alone.
        settings: of its optimizer; epochs, patience and batches are those of all nodes.
        edges: what it hears.
        frozen: it stays as it is, in eval mode.
        follows: number of another node and a momentum m in [0, 1], or pairs [epoch, momentum]: after each batch every
            parameter p becomes `m p + (1 - m) q`, q the one of that name in the other node. Such a node begins as a
            copy, runs in train mode without gradients, and hears nothing.
    """

    name: str
    model: nn.Module
    settings: TrainSettings | ImageTrainSettings
    edges: tuple[Edge, ...]
    frozen: bool = False
    follows: tuple[int, Weight] | None = None

    @property
    def trained(self) -> bool:
        """Whether it has an optimizer."""
        return not self.frozen and self.follows is None


def checked(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes without their cut edges.

    Raises:
        UserError: node 0 can learn nothing, another node neither learns nor is frozen, an edge that cannot be.
    """
    if not nodes:
        raise UserError("a graph of networks has at least one node, and there is none")
    kept = tuple(replace(n, edges=tuple(e for e in n.edges if not isinstance(e.gate, Cutoff))) for n in nodes)
    _check_alone([n.model for n in nodes], "network")
    _check_alone([e.distiller for n in kept for e in n.edges], "distiller")
    for i, node in enumerate(kept):
        for edge in node.edges:
            _check_edge(i, edge, len(kept))
        _check_follows(i, node, kept)
    _check_zero(kept[0], cut=bool(nodes[0].edges))
    for i, node in enumerate(kept[1:], start=1):
        if node.trained and not node.edges:
            raise UserError(f"node {i} ({node.name}) hears nothing; freeze it, or open one of its gates")
    for i, node in enumerate(kept):
        if node.edges and not node.trained:
            how = "is frozen" if node.frozen else "follows another"
            raise UserError(f"node {i} ({node.name}) {how} and has edges that are not cut; cut them")
    _check_settings(kept)
    return kept


def _check_alone(things: Sequence[object], what: str) -> None:
    if len({id(thing) for thing in things}) < len(things):
        raise UserError(f"a {what} is used twice in a graph of networks; make one for each place")


def _check_zero(node: Node, *, cut: bool) -> None:
    """Refuse a node 0 that learns nothing, saying why."""
    epochs = node.settings.epochs
    if node.frozen:
        why = "it is frozen; freeze other nodes only"
    elif node.follows is not None:
        why = f"it follows node {node.follows[0]}; make the one that learns node 0"
    elif not node.edges:
        why = f"{'all its incoming gates are cutoff' if cut else 'it has no incoming edge'}; open one of its gates"
    elif not any(edge.gate.weight(Step(epoch, epochs)) > 0 for edge in node.edges for epoch in (0, epochs - 1)):
        why = f"its gates are 0 in a training of {epochs} epoch; train longer, or choose other gates"
    else:
        return
    raise UserError(f"node 0 ({node.name}) is the one that counts and can learn nothing: {why}")


def _check_edge(node: int, edge: Edge, count: int) -> None:
    where = f"edge {node}<-{node if edge.source is None else edge.source}"
    method = type(edge.distiller).__name__
    if edge.source is not None and not 0 <= edge.source < count:
        raise UserError(f"{where}: there is no node {edge.source}; the nodes are 0 to {count - 1}")
    if edge.source == node:
        raise UserError(f"{where}: a node does not teach itself; its self edge has no source")
    if edge.source is None and isinstance(edge.gate, Correct):
        raise UserError(f"{where}: the gate correct asks a source, and a self edge has none; choose through")
    if not 0 < edge.weight < float("inf"):
        raise UserError(f"{where}: its weight is {edge.weight}; it must be a finite number above 0, or its gate cutoff")
    if not plain(type(edge.distiller)):
        raise UserError(f"{where}: {method} has gradients of its own; choose one of {', '.join(allowed())}")
    if edge.source is None and edge.distiller.needs_teacher:
        raise UserError(f"{where}: {method} needs a teacher, and a self edge has none; choose supervised")
    if edge.source is not None and not edge.distiller.needs_teacher:
        raise UserError(f"{where}: {method} does not listen to a source; choose a method that does, as kd")
    if lack := edge.distiller.missing():
        raise UserError(f"{where}: {lack}")


def plain(kind: type[Distiller]) -> bool:
    """Whether a method may be that of an edge: it keeps the default gradients, which add up over edges."""
    return kind.gradients is Distiller.gradients and kind.combine is Distiller.combine


def allowed() -> list[str]:
    """Names of the methods that may be those of an edge."""
    return sorted(name for name, kind in distillers.methods().items() if plain(kind))


def _check_follows(i: int, node: Node, nodes: Sequence[Node]) -> None:
    if node.follows is None:
        return
    j, momentum = node.follows
    if not 0 <= j < len(nodes) or j == i or not nodes[j].trained:
        raise UserError(f"node {i} ({node.name}) follows node {j}; it must be another node that is trained")
    if node.frozen:
        raise UserError(f"node {i} ({node.name}) is frozen and follows node {j}; leave one of them out")
    try:
        right = all(m <= 1 for _, m in Schedule.of("momentum", momentum).points)
    except ValueError:
        right = False
    if not right:
        raise UserError(
            f"node {i} ({node.name}) follows with momentum {momentum}; it must lie in [0, 1], or be pairs "
            "[epoch, momentum] with ascending epochs"
        )
    there = {name: p.shape for name, p in nodes[j].model.named_parameters()}
    for name, p in node.model.named_parameters():
        if there.get(name) != p.shape:
            raise UserError(f"node {i} ({node.name}) follows node {j}, which has no {name} {list(p.shape)}")


def _check_settings(nodes: Sequence[Node]) -> None:
    first = nodes[0].settings
    for i, node in enumerate(nodes):
        if type(node.settings) is not type(first):
            raise UserError(f"node {i} ({node.name}) has settings of another kind than node 0; train all of them alike")
        for name in SHARED if node.trained else ():
            theirs, ours = getattr(node.settings, name, None), getattr(first, name, None)
            if theirs != ours:
                raise UserError(
                    f"node {i} ({node.name}) has {name} {theirs}, and node 0 has {ours}; give both the same"
                )
