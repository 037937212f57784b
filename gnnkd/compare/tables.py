"""The tables of a comparison in the forms that others read: Markdown, CSV, LaTeX, and on a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from csv import DictWriter
from typing import TYPE_CHECKING, Any

from gnnkd.compare.grid import Grid, Item
from gnnkd.compare.grids import accuracy, grids, parts
from gnnkd.compare.markup import capital
from gnnkd.compare.rows import is_number
from gnnkd.compare.sections import TEACHER, Cell, Row, Section, sections
from gnnkd.compare.statistics import Spread

if TYPE_CHECKING:
    from rich.console import Group

COLUMNS = (
    "dataset", "protocol", "setting", "teacher", "student", "label", "method", "base", "needs", "metric", "mean", "std",
    "n", "asked", "against", "difference", "difference_std", "p", "p_holm", "wins", "ties", "losses", "reason",
)  # fmt: skip
"""Of the CSV file, which has a row for each data set, setting, method and metric."""
_NO_METRIC = frozenset({"seed", "tuned"})


def markdown(rows: Sequence[Row], against: str) -> str:
    """All tables of all sections."""
    return "\n".join(_markdown(grid) for section in sections(rows, against) for grid in grids(section))


def _markdown(grid: Grid) -> str:
    def cell(item: Item) -> str:
        text = item.text.replace("|", "\\|")
        text = f"**{text}**" if item.best else text
        return text + (f" {item.mark}" if item.mark else "") + "".join(f" [{n}]" for n in item.notes)

    lines = [grid.head, ["---"] * grid.names + ["---:"] * (len(grid.head) - grid.names)]
    lines += [[cell(item) for item in row] for row in grid.body]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n* [{n}] {text}" for n, text in enumerate(grid.notes, start=1))
    return f"### {capital(grid.title)}\n\n{table}\n\n{grid.caption}\n{notes}\n"


def latex(rows: Sequence[Row], against: str) -> str:
    """All tables for a document that loads booktabs and graphicx; a long one becomes one for each data set.

    A table that is wider than a line is made smaller.
    """
    found = [_latex(one) for section in sections(rows, against) for grid in grids(section) for one in grid.by_first()]
    return "% \\usepackage{booktabs,graphicx}\n\n" + "\n".join(found)


def _latex(grid: Grid) -> str:
    def cell(item: Item) -> str:
        text = escaped(item.text)
        text = f"\\textbf{{{text}}}" if item.best else text
        small = [_TEX[item.mark]] if item.mark else []
        return text + "".join(f"$^{{{one.strip('$')}}}$" for one in (*small, *map(str, item.notes)))

    body = [" & ".join(cell(item) for item in row) + r" \\" for row in grid.body]
    notes = [rf"\par $^{{{n}}}$ {escaped(text)}" for n, text in enumerate(grid.notes, start=1)]
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\small",
        rf"\caption{{{escaped(capital(grid.title))}. {escaped(grid.caption)}}}",
        r"\smallskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * grid.names}{'r' * (len(grid.head) - grid.names)}}}",
        r"\toprule",
        " & ".join(escaped(name) for name in grid.head) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_TEX = {"▲": r"$\uparrow$", "▼": r"$\downarrow$", "+-": r"$\pm$"}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def escaped(text: str) -> str:
    """A text as LaTeX writes it."""
    plain = "".join(_SPECIAL.get(sign, sign) for sign in text)
    for sign, tex in _TEX.items():
        plain = plain.replace(sign, tex)
    return plain


def terminal(rows: Sequence[Row], against: str) -> Group:
    """The accuracies of each section, for `rich` to print; all other tables are in the files."""
    from rich.console import Group

    found = []
    for section in sections(rows, against):
        found += _terminal(accuracy(section))
        if section.setting == "ind":
            found += _terminal(parts(section))
    return Group(*found)


def _terminal(grid: Grid) -> list[Any]:
    """Title, table and notes one below another: inside of a table they would wrap at its width."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(grid.head):
        table.add_column(Text(name), justify="left" if i < grid.names else "right")
    for row in grid.body:
        table.add_row(*(_styled(item) for item in row))
    notes = "".join(f"\n[{n}] {text}" for n, text in enumerate(grid.notes, start=1))
    return [Text(capital(grid.title), style="bold"), table, Text(f"{grid.caption}{notes}\n")]


def _styled(item: Item) -> Any:
    from rich.text import Text

    text = Text(item.text, style="bold" if item.best else "")
    text.append("".join([f" {item.mark}" if item.mark else "", *(f" [{n}]" for n in item.notes)]))
    return text


# -- CSV -----------------------------------------------------------------------------------------------------------


def csv(rows: Sequence[Row], against: str) -> str:
    """The long form: a row for each data set, setting, method and metric, shares in [0, 1]."""
    out = io.StringIO()
    writer = DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    told: set[int] = set()
    for section in sections(rows, against):
        for cell in section.every():
            # A teacher stands in each section under it, and is written once.
            if cell.label != TEACHER or id(cell.rows[0]) not in told:
                told.add(id(cell.rows[0]))
                writer.writerows(_lines(section, cell))
    return out.getvalue()


def _lines(section: Section, cell: Cell) -> Iterator[dict[str, Any]]:
    first = cell.first
    names = {
        "dataset": cell.dataset,
        "protocol": first["protocol"],
        "setting": section.setting,
        "teacher": section.teacher,
        "student": first["student_model"] or "",
        "label": cell.label,
        "method": first.get("method") or "",
        "base": first.get("base") or "",
        "needs": "; ".join(first.get("needs") or ()),
        "asked": len(cell.rows),
        "reason": "; ".join(cell.reasons),
    }
    metrics = list(_metrics(cell))
    if not metrics:
        yield {**names, "metric": "test_acc", "n": 0}
    for metric in metrics:
        found = cell.spread(metric)
        if found is not None:
            yield {
                **names,
                "metric": metric.removeprefix("measures/"),
                **_spread(found),
                **_against(section, cell, metric),
            }
    for metric, value in _costs(cell.costs):
        yield {**names, "metric": metric, "mean": value, "n": 1}


def _metrics(cell: Cell) -> Iterator[str]:
    """What the finished rows have numbers for, in their order."""
    yield from dict.fromkeys(
        [key for row in cell.finished for key, value in row.items() if is_number(value) and key not in _NO_METRIC]
        + [f"measures/{key}" for row in cell.finished for key in row.get("measures") or {}]
    )


def _spread(found: Spread) -> dict[str, Any]:
    return {"mean": found.mean, "std": "" if found.std is None else found.std, "n": found.n}


def _against(section: Section, cell: Cell, metric: str) -> dict[str, Any]:
    """The paired test, of accuracies on the test set."""
    if cell.label == TEACHER or not metric.startswith("test_acc"):
        return {}
    found = section.differences(cell.label, metric).get(cell.dataset)
    if found is None:
        return {}
    return {
        "against": section.against,
        "difference": found.spread.mean,
        "difference_std": "" if found.spread.std is None else found.spread.std,
        "p": found.p,
        "p_holm": found.holm,
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
    }


def _costs(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name in ("hops", "macs"):
        if name in found:
            yield name, found[name]
    for kind in ("latency_ms", "fetch_ms"):
        for size, times in found.get(kind, {}).items():
            yield f"{kind}_{size}_p50", times["p50"]
            yield f"{kind}_{size}_p95", times["p95"]
