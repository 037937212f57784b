"""How the benchmarks measure: repeats of all candidates interleaved, medians, and memory counted by torch itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import torch

Work = Callable[[], object]


def medians(candidates: Mapping[str, Work], *, repeats: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of each candidate; round by round, so that a busy moment of the machine hits all alike."""
    seen: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(repeats + 1):
        for name, work in candidates.items():
            _wait(device)
            start = time.perf_counter()
            work()
            _wait(device)
            if round_:  # the first round warms up caches
                seen[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in seen.items()}


def peak_bytes(work: Work, device: torch.device) -> int:
    """Most memory that torch held during `work` on top of what it held before."""
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    # `profile.events()` credits most allocations to operators; the order in time is in the raw results only.
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes), default=0)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
