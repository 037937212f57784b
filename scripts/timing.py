"""How the benchmarks measure: repeats of all candidates interleaved, medians, and memory counted by torch itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import accumulate

import torch

Work = Callable[[], object]
Milliseconds = tuple[float, float]
"""On the clock, and of this process's processors, which a busy machine adds less to."""


def medians(candidates: Mapping[str, Work], *, repeats: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of each candidate."""
    times = rounds(candidates, repeats=repeats, device=device)
    return {name: statistics.median(clock for clock, _ in of_rounds) for name, of_rounds in times.items()}


def rounds(candidates: Mapping[str, Work], *, repeats: int, device: torch.device) -> dict[str, list[Milliseconds]]:
    """Time of each candidate in each round: in turn, so that a busy moment of the machine hits all alike."""
    seen: dict[str, list[Milliseconds]] = {name: [] for name in candidates}
    for round_ in range(repeats + 1):
        for name, work in candidates.items():
            _wait(device)
            start, spent = time.perf_counter(), time.process_time()
            work()
            _wait(device)
            if round_:  # the first round warms up caches
                seen[name].append((1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - spent)))
    return seen


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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
