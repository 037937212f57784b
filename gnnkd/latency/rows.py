"""The rows of a report: what one network on one engine took at one size, or why it was not measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

from gnnkd.compare.latency import percentiles
from gnnkd.latency.answers import Answer, Way
from gnnkd.latency.contenders import Contender

Row: TypeAlias = dict[str, Any]

MEASURED, SKIPPED = "measured", "skipped"


@final
@dataclass
class Timed:
    """A contender at one size, with the answers that count."""

    contender: Contender
    ways: list[Way]
    notes: list[str]
    tried: dict[str, list[Answer]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)


def row(size: int | str, one: Timed) -> Row:
    """What it took about `size` nodes, or "all", as `measuring.measure` says."""
    if not one.answers:
        return skipped(size, one.contender, one.contender.reason or "; ".join(one.notes))
    found, split = one.answers, one.answers[0].fetch is not None
    fetches = [answer.fetch for answer in found if answer.fetch is not None]
    computes = [answer.total - answer.fetch for answer in found if answer.fetch is not None]
    return {
        "size": size,
        "side": one.contender.side,
        "engine": one.contender.engine,
        "status": MEASURED,
        "way": one.ways[0].name,
        "n": len(found),
        "total_ms": _spread([answer.total for answer in found]),
        "fetch_ms": _spread(fetches) if split else None,
        "compute_ms": _spread(computes) if split else None,
        "nodes": _median([answer.nodes for answer in found]),
        "edges": _median([answer.edges for answer in found]),
        "bytes": _median([answer.size for answer in found]),
        "tried": {name: _briefly(answers) for name, answers in one.tried.items()},
        "notes": one.notes,
    }


def skipped(size: int | str, contender: Contender, reason: str) -> Row:
    """Why nothing was measured."""
    named: Mapping[str, Any] = {"size": size, "side": contender.side, "engine": contender.engine}
    return {**named, "status": SKIPPED, "reason": reason}


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    found = percentiles(seconds)
    return {"p50": found["p50"], "p95": found["p95"]}


def _briefly(answers: Sequence[Answer]) -> dict[str, float | None]:
    """Median milliseconds of a way that was tried, and of its fetch."""
    fetches = [answer.fetch for answer in answers if answer.fetch is not None]
    total = statistics.median(answer.total for answer in answers)
    return {
        "total_ms": round(1000 * total, 4),
        "fetch_ms": round(1000 * statistics.median(fetches), 4) if fetches else None,
    }


def _median(counts: Sequence[int | None]) -> int | None:
    there = [count for count in counts if count is not None]
    return round(statistics.median(there)) if there else None
