"""What was measured, as JSON, as Markdown, and as a table on the terminal.

A ratio stands only where the milliseconds of both sides stand beside it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd.latency.contenders import STUDENT, TEACHER
from gnnkd.latency.rows import MEASURED, Row
from gnnkd.train.checkpoint import write_bytes, write_json

if TYPE_CHECKING:
    from rich.table import Table

JSON, MARKDOWN, PICTURE = "latency.json", "latency.md", "latency.png"
FORMAT = 1
HEAD = ("nodes asked", "network", "way", "fetch", "compute", "total p50", "total p95", "n", "read", "teacher / this")
NOTE = (
    "Milliseconds of one answer, from the numbers of the nodes to their logits: medians, and the 95th percentile of "
    "the total. Fetch: reading what the answer needs (features, and a neighbourhood if messages are passed), and "
    "bringing it to the device. Medians of parts need not add up to the median of the total."
)
_LEFT = 3
"""Columns of words, before those of numbers."""


def write(report: Mapping[str, Any], folder: Path) -> None:
    """Write JSON, Markdown and picture.

    Raises:
        UserError: one cannot be written.
    """
    from gnnkd.images.drawings import write as drawn
    from gnnkd.latency.picture import picture

    write_json(folder / JSON, report)
    write_bytes(folder / MARKDOWN, markdown(report).encode())
    drawn(picture(report), folder / PICTURE)


def markdown(report: Mapping[str, Any]) -> str:
    """The table with what it was measured on."""
    lines = [f"# {title(report)}", "", about(report), "", NOTE, ""]
    sides = ["---" if i < _LEFT else "---:" for i in range(len(HEAD))]
    lines += [f"| {' | '.join(HEAD)} |", f"| {' | '.join(sides)} |"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in body(report)]
    lines += ["", *(f"* {note}" for note in notes(report))]
    return "\n".join([*lines, "", "```bash", str(report["command"] or "gnnkd.latency"), "```", ""])


def table(report: Mapping[str, Any]) -> Table:
    """The same for a terminal."""
    from rich import box
    from rich.table import Table

    found = Table(title=title(report), caption=about(report), box=box.SIMPLE_HEAD, title_justify="left")
    found.caption_justify = "left"
    for i, name in enumerate(HEAD):
        found.add_column(name, justify="left" if i < _LEFT else "right", no_wrap=i != _LEFT - 1)
    last = None
    for line in body(report):
        if last is not None and line[0] != last:
            found.add_section()
        found.add_row(*("" if i == 0 and cell == last else cell for i, cell in enumerate(line)))
        last = line[0]
    return found


def title(report: Mapping[str, Any]) -> str:
    """Which networks on what; accuracies are not in it, and neither are they measured here."""
    teacher, student = report[TEACHER], report[STUDENT]
    by = f" by {student['method']}" if report["trained"] else ", untrained"
    where = f"{report['dataset']} ({report['protocol']}, {report['setting']})"
    return f"{where}: {teacher['model']} teacher against {student['model']}{by}, seed {report['seed']}"


def about(report: Mapping[str, Any]) -> str:
    """Sizes, machine and load in a line."""
    sides = [f"{s} {report[s]['n_parameters']:,} parameters" for s in (TEACHER, STUDENT)]
    load = report["machine"]["load"]
    busy = f", load {load[0]:.1f} before and {load[1]:.1f} after" if load else ""
    return (
        f"{report['nodes']:,} nodes, {report['edges']:,} directed edges, {report['features']} features; "
        f"{', '.join(sides)}; {report['machine']['processor']}, {report['device']}, threads: {report['threads']}{busy}"
    )


def body(report: Mapping[str, Any]) -> list[list[str]]:
    """Lines of cells in the order of `HEAD`."""
    rows: Sequence[Row] = report["rows"]
    taught = {row["size"]: row for row in rows if row["side"] == TEACHER}
    return [_line(row, taught.get(row["size"])) for row in rows]


def notes(report: Mapping[str, Any]) -> list[str]:
    """What ways were tried, and why others were not, each once."""
    found = []
    for row in report["rows"]:
        asked = f"{row['side']}, {_asked(row['size'])}"
        if row.get("tried"):
            tried = ", ".join(_trial(name, times) for name, times in row["tried"].items())
            found.append(f"{asked}: of the ways that were tried ({tried}) {row['way']} was taken.")
        found += [f"{asked}: {note}." for note in row.get("notes", ())]
    there = {row["size"] for row in report["rows"]}
    if missing := [_asked(size) for size in report["sizes"] if size not in there]:
        found.append(f"Not measured yet, of the sizes asked for: {', '.join(missing)}.")
    return list(dict.fromkeys(found))


def _trial(name: str, times: Mapping[str, float | None]) -> str:
    total, fetch = times["total_ms"], times["fetch_ms"]
    assert total is not None
    return f"{name} {ms(total)} ms" + ("" if fetch is None else f", {ms(fetch)} of it the fetch")


def _line(row: Row, teacher: Row | None) -> list[str]:
    name = f"{row['side']}, {row['engine']}"
    if row["status"] != MEASURED:
        return [_asked(row["size"]), name, f"{row['status']}: {row['reason']}", *[""] * (len(HEAD) - _LEFT)]
    parts = ["-" if row[part] is None else ms(row[part]["p50"]) for part in ("fetch_ms", "compute_ms")]
    total = row["total_ms"]
    read = f"{row['nodes']:,} rows, {size(row['bytes'])}"
    return [
        _asked(row["size"]),
        name,
        row["way"],
        *parts,
        ms(total["p50"]),
        ms(total["p95"]),
        str(row["n"]),
        read,
        ratio(row, teacher),
    ]


def ratio(row: Row, teacher: Row | None) -> str:
    """Both medians and what one is by the other, of a student's row."""
    if row["side"] != STUDENT or teacher is None or teacher["status"] != MEASURED:
        return ""
    slow, fast = teacher["total_ms"]["p50"], row["total_ms"]["p50"]
    return f"{ms(slow)} / {ms(fast)} = {slow / fast:.3g}" if fast > 0 else ""


def _asked(number: int | str) -> str:
    return number if isinstance(number, str) else f"{number:,}"


def ms(value: float) -> str:
    """Milliseconds to three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"


def size(count: int) -> str:
    """Bytes with their thousands as letters."""
    for unit, letter in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {letter}"
    return f"{count} B"


def processor() -> str:
    """What computes, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    return f"{named or platform.processor() or platform.machine()} ({os.cpu_count()} cores)"


def load() -> float | None:
    """Processes that wanted to compute, on average over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
