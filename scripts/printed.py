"""How the scripts print numbers: mean with spread, and Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], scale: float = 100, digits: int = 2, sign: str = "") -> str:
    """Mean +- standard deviation (ddof 1), the mean alone of one value; `sign` "+" is for differences."""
    scaled = [scale * v for v in values]
    mean = round(statistics.fmean(scaled), digits) + 0.0  # no -0.00
    deviation = f" +- {statistics.stdev(scaled):.{digits}f}" if len(scaled) > 1 else ""
    return f"{mean:{sign}.{digits}f}{deviation}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
