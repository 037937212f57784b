"""How long an answer takes: on one thread, after warming up, each time about other rows.

What a network that passes messages must fetch first, the neighbourhood of the rows and its features, is timed apart.
Where its layers can be applied to some nodes at a time, each is applied to those that the next one reads; other
networks run on the whole neighbourhood, as it was cut out of the graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from gnnkd.compare.fetch import cut, same
from gnnkd.data.augment import generator
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import ask
from gnnkd.nn.blocks import Blocks

SIZES = (1, 10, 1000)
"""Rows that are asked about at once; beside them, all."""
ALL = "all"
WARMUP, LEAST, MOST = 3, 3, 100
"""Calls that are not timed, and timed repeats of one size, at least and at most."""
SECONDS = 5.0
"""After so many it is enough, for all sizes together; a size takes what the quicker ones before it have left."""

Times = tuple[float, float]
"""Seconds of the fetch and of the forward pass."""


@final
@dataclass(frozen=True)
class Service:
    """A network with the data that it answers about.

    Args:
        network: on the CPU, in eval mode.
        x: features of all nodes [N, D].
        graph: their edges.
        index: their ids in the full data.
        reach: how many hops must be fetched, and how many more for their degrees; None where rows alone will do.
        blocks: of a network that needs edges, where its layers can be applied to some nodes at a time; they find by
            themselves what they reach.
    """

    network: nn.Module
    x: Tensor | CSR
    graph: Graph
    index: Int[Tensor, " N"]
    reach: tuple[int, int] | None
    blocks: Blocks | None = None

    @property
    def n(self) -> int:
        """Number of nodes."""
        return self.x.shape[0]

    def answer(self, nodes: Int[Tensor, " Q"]) -> tuple[Tensor, Times]:
        """Logits of some nodes, and what they took."""
        start = time.perf_counter()
        if self.reach is None:
            x, index = _rows(self.x, nodes), self.index[nodes]
            start = middle = time.perf_counter()  # the features of what is asked about come with the question
            logits = ask(self.network, x, None, index).logits
        elif self.blocks is not None:
            near = self.blocks.around(self.graph, nodes)
            x = _rows(self.x, near.nodes)
            middle = time.perf_counter()
            logits = self.blocks.logits(x, near)
        else:
            piece = cut(self.graph, nodes, self.reach[0], margin=self.reach[1])
            x, index = _rows(self.x, piece.nodes), self.index[piece.nodes]
            middle = time.perf_counter()
            logits = ask(self.network, x, piece.graph, index).logits[piece.rows]
        return logits, (middle - start, time.perf_counter() - middle)

    def everything(self) -> tuple[Tensor, Times]:
        """Logits of all nodes in one pass, for which nothing is fetched; nothing of the pass before is used again."""
        x = self.x.with_value(self.x.value) if isinstance(self.x, CSR) else self.x.view(self.x.shape)
        graph = None if self.reach is None else same(self.graph)
        start = time.perf_counter()
        logits = ask(self.network, x, graph, self.index).logits
        return logits, (0.0, time.perf_counter() - start)


@torch.no_grad()
def measured(service: Service) -> dict[str, dict[str, dict[str, float]]]:
    """`latency_ms` of the forward pass and `fetch_ms` of what must be fetched, by number of rows.

    Each is {"p50", "p95", "n"}: milliseconds, and the number of repeats. Sizes beyond the graph's are left out; where
    rows alone will do there is no fetch.
    """
    draws = generator("asked rows", service.n)
    calls: dict[str, Callable[[], Times]] = {
        str(size): partial(_timed, service, size, draws) for size in SIZES if size <= service.n
    }
    calls[ALL] = lambda: service.everything()[1]
    with threads(1):
        found = shared(calls)
    kinds = {"latency_ms": {size: percentiles([t for _, t in times]) for size, times in found.items()}}
    if service.reach is not None:
        kinds["fetch_ms"] = {size: percentiles([t for t, _ in times]) for size, times in found.items() if size != ALL}
    return kinds


def shared(calls: Mapping[str, Callable[[], Times]], seconds: float = SECONDS) -> dict[str, list[Times]]:
    """Repeats of each call, one after another, each for its part of the time that is left."""
    found: dict[str, list[Times]] = {}
    for done, (name, call) in enumerate(calls.items()):
        found[name], spent = repeated(call, max(0.0, seconds) / (len(calls) - done))
        seconds -= spent
    return found


def repeated(
    call: Callable[[], Times], seconds: float, *, warmup: int = WARMUP, least: int = LEAST, most: int = MOST
) -> tuple[list[Times], float]:
    """What `call` took in each of its timed repeats, and all that it took, warming up included.

    Warming up, once at least, ends where it alone takes the time.
    """
    spent, times = 0.0, list[Times]()
    for _ in range(warmup):
        spent += sum(call())
        if spent >= seconds:
            break
    while len(times) < least or (len(times) < most and spent < seconds):
        times.append(call())
        spent += sum(times[-1])
    return times, spent


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds, and how many there are."""
    middle, late = np.percentile(np.asarray(seconds) * 1000, [50, 95])
    return {"p50": round(float(middle), 4), "p95": round(float(late), 4), "n": len(seconds)}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch for the duration of a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(service: Service, size: int, draws: torch.Generator) -> Times:
    return service.answer(_some(service.n, size, draws))[1]


def _some(n: int, size: int, draws: torch.Generator) -> Int[Tensor, " Q"]:
    return torch.randperm(n, generator=draws)[:size]


def _rows(x: Tensor | CSR, nodes: Int[Tensor, " S"]) -> Tensor | CSR:
    return x.select_rows(nodes) if isinstance(x, CSR) else x[nodes]
