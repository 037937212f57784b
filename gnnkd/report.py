"""Results of finished runs as a table, and one run's history as a picture: `python -m gnnkd.report runs/digits`."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gnnkd.errors import UserError
from gnnkd.places import BEST_ON_TEST, LAST, read_result, shared
from gnnkd.scores import PARTS

if TYPE_CHECKING:
    from rich.table import Table

Result = Mapping[str, Any]


@final
@dataclass(frozen=True)
class Row:
    """One configuration: its folder's name, and the results of its seeds."""

    name: str
    results: tuple[Result, ...]

    @property
    def order(self) -> tuple[Any, ...]:
        """Teachers first, then the plain student, then methods by name."""
        first = self.results[0]
        student = first["student_model"]
        where = (first["dataset"], first["protocol"], first["setting"], first["teacher_model"])
        return (*where, student is not None, student or "", first["method"] != "supervised", self.name)


def rows(folder: Path) -> list[Row]:
    """All finished runs under `folder`, seeds of one configuration together.

    Raises:
        UserError: there is none, or a file is damaged.
    """
    found: dict[tuple[Path, str], list[Result]] = {}
    for file in sorted(folder.rglob("result.json")):
        result = read_result(file)
        same = json.dumps(shared(result["config"]), sort_keys=True)
        found.setdefault((file.parent.parent, same), []).append(result)
    if not found:
        raise UserError(f"no result.json under {folder}; run `python -m gnnkd.main` first")
    grouped = [Row(_name(place, results[0]), tuple(results)) for (place, _), results in found.items()]
    return sorted(grouped, key=lambda row: row.order)


def _name(place: Path, result: Result) -> str:
    """A graph of networks has a name of its own, which may be a method's; what a search trains again has more rows."""
    if result["config"].get("retrain"):
        return f"search {place.parent.name}: {place.name} (train+val)"
    return f"together: {place.name}" if result["method"] == "together" else place.name


def table(found: Iterable[Row]) -> Table:
    """Accuracy on the test nodes or images (mean +- standard deviation with ddof 1 over seeds), parameters, seconds.

    Where a row is of the inductive setting, what its accuracy is made of has columns of its own. Of images it is that
    of the epoch which validates best, and that of the last epoch stands beside it.
    """
    from rich import box
    from rich.table import Table

    every = list(found)
    named = {f"test_acc_{part}": part for part in PARTS} | {LAST: "last", BEST_ON_TEST: "best on test"}
    parts = {key: words for key, words in named.items() if any(_has(row, key) for row in every)}
    # Where nothing validates there is no best epoch: its column is empty, and the last epoch's has the number.
    of_images = all(_has(row, LAST) for row in every)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("dataset", "protocol", "method", "teacher", "student"):
        shown.add_column(head)
    first = "best %" if of_images else "test accuracy %"
    for head in (first, *(f"{words} %" for words in parts.values()), "seeds", "parameters", "seconds"):
        shown.add_column(head, justify="right")
    for row in every:
        shown.add_row(*_cells(row, list(parts)))
    return shown


def _cells(row: Row, parts: Sequence[str]) -> tuple[str, ...]:
    first = row.results[0]
    chosen = not _has(row, LAST) or _has(row, "val_acc")
    return (
        first["dataset"],
        f"{first['protocol']}-{first['setting']}",
        row.name,
        first["teacher_model"],
        first["student_model"] or "",
        _percent(row, "test_acc") if chosen else "",
        *(_percent(row, part) if _has(row, part) else "" for part in parts),
        str(len(row.results)),
        f"{first['n_parameters']:,}",
        f"{statistics.fmean(result['seconds'] for result in row.results):.1f}",
    )


def _has(row: Row, name: str) -> bool:
    return all(result.get(name) is not None for result in row.results)


def _percent(row: Row, name: str) -> str:
    """Mean and spread of one accuracy over the seeds of a row."""
    values = [100 * result[name] for result in row.results]
    spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of the folder named on the command line; returns the exit code."""
    folders = sys.argv[1:] if argv is None else list(argv)
    try:
        if len(folders) != 1 or folders[0].startswith("-"):
            raise UserError("usage: python -m gnnkd.report FOLDER, as in runs or runs/digits")
        found = rows(Path(folders[0]))
    except UserError as mistake:
        print(f"gnnkd: error: {mistake}", file=sys.stderr)
        return 2
    from rich.console import Console

    # Outside a terminal rich takes 80 columns and would cut the table.
    Console(width=None if sys.stdout.isatty() else 200).print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
