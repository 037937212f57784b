"""What is measured against what: the teacher as it is, and the student on each engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from jaxtyping import Int
from torch import Tensor

from gnnkd import export
from gnnkd.compare import costs
from gnnkd.compare.progress import Board
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.latency.answers import Data, Way
from gnnkd.latency.engines import Eager, made
from gnnkd.latency.neighbourhoods import Messenger
from gnnkd.latency.room import Room
from gnnkd.nn.around import Around
from gnnkd.predictor import Predictor

Ids: TypeAlias = Int[Tensor, " Q"]
Ways: TypeAlias = tuple[list[Way], list[str]]
"""Ways of a network to answer, and why others are left out."""

TEACHER, STUDENT = "teacher", "student"


@final
@dataclass(frozen=True)
class Contender:
    """One network on one engine.

    Args:
        side: `TEACHER` or `STUDENT`.
        engine: one of `ENGINES`.
        ways: those that it has about nodes like some, None for all nodes, and why others are left out.
        reason: why it cannot run at all.
    """

    side: str
    engine: str
    ways: Callable[[Sequence[Ids] | None], Ways]
    reason: str | None = None


def contenders(
    teacher: Predictor,
    student: Predictor,
    task: NodeTask,
    data: Data,
    engines: Sequence[str],
    room: Room,
    board: Board,
) -> list[Contender]:
    """The teacher as it is, and the student on each engine.

    Raises:
        UserError: a network that does not answer the same in two ways, or does not fit into the memory.
    """
    board.now(["checking the teacher's ways"])
    found = [_plain(TEACHER, teacher, task, data, room)]
    for engine in engines:
        board.now([f"preparing the student, {engine}"])
        if engine == Eager.name:
            found.append(_plain(STUDENT, student, task, data, room))
            continue
        try:
            why = export.refusal(student)
            if why is not None:
                raise UserError(why)
            found.append(Contender(STUDENT, engine, _only(made(engine, student, data))))
        except UserError as lack:
            found.append(Contender(STUDENT, engine, _only(None), str(lack)))
    return found


def _plain(side: str, predictor: Predictor, task: NodeTask, data: Data, room: Room) -> Contender:
    """A network on the eager engine, from as much of the graph as it needs."""
    knows = isinstance(predictor.network, Around) and predictor.network.reads_index
    alone = not predictor.needs_graph
    if alone and knows:  # of nodes that it knows it may need no edges
        alone = costs.served(predictor, task).reach is None
    if alone:
        return Contender(side, Eager.name, _only(made(Eager.name, predictor, data)))
    return Contender(side, Eager.name, Messenger(predictor, data, task, room).ways)


def _only(way: Way | None) -> Callable[[Sequence[Ids] | None], Ways]:
    return lambda _: ([] if way is None else [way], [])
