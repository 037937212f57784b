"""The methods of graphs as a table made from their classes: `python scripts/method_table.py` puts it into README.md."""

from __future__ import annotations

import sys
from pathlib import Path

from gnnkd import distillers
from gnnkd.distillers import Distiller

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- methods: scripts/method_table.py -->", "<!-- end of methods -->"
"""Lines around the table."""


def table() -> str:
    """A row for each method: its key, what it does, what its student needs for a prediction, whom it teaches."""
    rows = [
        f"| `{name}` | {_said(kind)} | {', '.join(kind.needs) or 'nothing'} | {_students(kind)} |"
        for name, kind in distillers.graph_methods().items()
    ]
    head = "| `--methods` | what it does | a prediction needs, beside features | students |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def _said(kind: type[Distiller]) -> str:
    """The first line of its module."""
    return (sys.modules[kind.__module__].__doc__ or "").splitlines()[0].replace("|", r"\|")


def _students(kind: type[Distiller]) -> str:
    if kind.on_rows and kind.on_graphs:
        return "all"
    return "`mlp`" if kind.on_rows else "all but `mlp`"


def written(text: str) -> str:
    """A text with the table between its two lines."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
