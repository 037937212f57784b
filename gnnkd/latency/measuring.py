"""A teacher and a student asked in turn about random nodes, so that whatever else the machine does meets both.

Each repeat asks each of them about nodes of its own, drawn anew, so that nobody finds what another one has read. Where
a network can answer in several ways they are tried first, and the one that was faster in the middle is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from gnnkd.compare.latency import ALL, SIZES, threads
from gnnkd.compare.progress import Board, Nothing
from gnnkd.data.augment import generator
from gnnkd.data.task import NodeTask
from gnnkd.latency import ENGINES, REPEATS, SECONDS
from gnnkd.latency.answers import Answer, Data
from gnnkd.latency.contenders import Contender, Ids, contenders
from gnnkd.latency.room import Room
from gnnkd.latency.rows import Row, Timed, row, skipped
from gnnkd.predictor import Predictor

LEAST = 3
"""Timed answers at least, however long they take."""
WARMUP, TRIED = 3, 3
"""Answers that are not counted, and those by which ways are compared; a slow way gets one of each."""


@final
@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Args:
        sizes: how many nodes are asked about at once; None is all.
        repeats: timed answers of each network for each size, >= 1.
        seconds: after which fewer repeats will do, for each size; `LEAST` there are in any case, or `repeats`.
        threads: of the processor that torch and ONNX Runtime use, >= 1.
        engines: of a student that looks at rows alone, among `ENGINES`.
    """

    sizes: tuple[int | None, ...] = (*SIZES, None)
    repeats: int = REPEATS
    seconds: float = SECONDS
    threads: int = 1
    engines: tuple[str, ...] = ENGINES


def measure(
    teacher: Predictor,
    student: Predictor,
    task: NodeTask,
    *,
    effort: Effort | None = None,
    device: str = "cpu",
    room: Room | None = None,
    board: Board | None = None,
    heard: Callable[[list[Row]], object] | None = None,
) -> list[Row]:
    """Milliseconds of both networks about random nodes of a task, in eval mode.

    Args:
        teacher: any network of nodes.
        student: any network of nodes; engines other than eager need one that looks at rows alone.
        task: whose nodes are asked about; under `ind` the unseen ones are among them. It stays on the host.
        effort: sizes, repeats, threads, engines.
        device: where networks compute, cpu or cuda; an answer begins and ends on the host.
        room: what may be taken of the host's memory; half of what is free by default.
        board: where progress is shown.
        heard: told all rows so far after each size, for whoever keeps what a later size may never come to.

    Returns:
        A row for each size and network and engine: `size` (a number, or "all"), `side`, `engine`, `status`, and where
        that is not `measured` a `reason`. Where it is: `way`, `n` repeats, `total_ms`, `fetch_ms` and `compute_ms` as
        {"p50", "p95"} (both null where they are one), `nodes`, `edges` and `bytes` that were read (medians), `tried`,
        {"total_ms", "fetch_ms"} of each way, medians of a few answers, and `notes`.

    Raises:
        UserError: a network that does not answer the same in two ways, or does not fit into the memory.
    """
    effort, board = effort or Effort(), board or Nothing()
    data = Data.of(task.to("cpu"), device)
    with threads(effort.threads):
        there = contenders(teacher, student, task.to("cpu"), data, effort.engines, room or Room.half(), board)
        draws = generator("asked nodes", task.seed, data.n)
        found: list[Row] = []
        for size in effort.sizes:
            found += _sized(size, there, data, draws, effort, board)
            if heard is not None:
                heard(found)
        return found


def _sized(
    size: int | None, there: Sequence[Contender], data: Data, draws: torch.Generator, effort: Effort, board: Board
) -> Iterator[Row]:
    said = ALL if size is None else size
    if size is not None and size > data.n:
        reason = f"the graph has {data.n} nodes"
        yield from (skipped(said, one, one.reason or reason) for one in there)
        return

    def draw() -> Ids | None:
        return None if size is None else torch.randperm(data.n, generator=draws)[:size]

    probes = None if size is None else [torch.randperm(data.n, generator=draws)[:size] for _ in range(TRIED)]
    timed = [Timed(one, *one.ways(probes)) for one in there]
    running = [one for one in timed if one.ways]
    asked = "all nodes" if size is None else f"{size} node{'s' * (size > 1)}"
    board.now([f"{asked}: warming up"])
    spent = sum(_tried(one, draw, effort) for one in running)
    board.more(effort.repeats)
    for repeat in range(effort.repeats):
        if repeat >= LEAST and spent >= effort.seconds:
            board.more(repeat - effort.repeats)
            break
        board.now([f"{asked}: {repeat} of {effort.repeats} repeats"])
        spent += sum(_asked(one, draw()) for one in _turned(running, repeat))
        board.done()
    yield from (row(said, one) for one in timed)


def _turned(running: Sequence[Timed], repeat: int) -> list[Timed]:
    """The networks in turn, each time another one first."""
    first = repeat % max(1, len(running))
    return [*running[first:], *running[:first]]


def _asked(one: Timed, nodes: Ids | None) -> float:
    answer = one.ways[0].answer(nodes)
    # The logits are of no use any more, and of all nodes they are large.
    one.answers.append(Answer(answer.logits[:0], *_numbers(answer)))
    return answer.total


def _numbers(answer: Answer) -> tuple[Any, ...]:
    return answer.fetch, answer.total, answer.nodes, answer.edges, answer.size


def _tried(one: Timed, draw: Callable[[], Ids | None], effort: Effort) -> float:
    """Warm each way up, leave the faster one in front, and say how long that took."""
    first = [way.answer(draw()) for way in one.ways]
    spent = sum(answer.total for answer in first)
    slow = max(answer.total for answer in first) > effort.seconds / (4 * TRIED)
    if len(one.ways) == 1:
        return spent + sum(one.ways[0].answer(draw()).total for _ in range(0 if slow else WARMUP - 1))
    one.tried = {way.name: [answer] if slow else [] for way, answer in zip(one.ways, first, strict=True)}
    for _ in range(0 if slow else TRIED):
        for way in one.ways:
            one.tried[way.name].append(way.answer(draw()))
            spent += one.tried[way.name][-1].total
    one.ways.sort(key=lambda way: statistics.median(answer.total for answer in one.tried[way.name]))
    return spent
