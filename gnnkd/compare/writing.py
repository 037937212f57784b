"""The files of a comparison: its lines, its tables, its page."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gnnkd.compare import page, rows, tables
from gnnkd.compare.comparison import Comparison
from gnnkd.compare.rows import Row
from gnnkd.train.checkpoint import write_bytes, write_lines

LINES, PAGE = "results.jsonl", "report.html"
TABLES = {"table.md": tables.markdown, "table.csv": tables.csv, "table.tex": tables.latex}


def write(comparison: Comparison, found: Sequence[Row]) -> None:
    """Write them all.

    Raises:
        UserError: one cannot be written.
    """
    folder, against = comparison.report, comparison.against
    write_lines(folder / LINES, list(found))
    for name, made in TABLES.items():
        write_bytes(folder / name, made(found, against).encode())
    about = {"Command": comparison.command} if comparison.command else {}
    page.write(found, folder, against=against, about=about)


def told(comparison: Comparison, found: Sequence[Row]) -> None:
    """Print the table, and how many cells have come to what."""
    from rich.console import Console

    # Outside a terminal rich takes 80 columns and would cut the table.
    Console(width=None if sys.stdout.isatty() else 200).print(tables.terminal(found, comparison.against))
    count = {status: sum(row["status"] == status for row in found) for status in rows.STATUSES}
    print(f"{', '.join(f'{n} {status}' for status, n in count.items() if n)} ({comparison.report / PAGE})")
