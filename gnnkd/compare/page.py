"""A comparison as one page that opens without a network: what was compared, pictures, tables, and what failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnnkd.compare import imitation, plots
from gnnkd.compare.grid import Grid, Item
from gnnkd.compare.grids import grids
from gnnkd.compare.markup import STYLE, capital, figure, table, text
from gnnkd.compare.sections import TEACHER, Row, Section, sections
from gnnkd.provenance import versions
from gnnkd.train.checkpoint import write_bytes

NAME, TUNING = "report.html", "tuning.json"


def write(rows: Sequence[Row], folder: Path, *, against: str, about: Mapping[str, str] | None = None) -> Path:
    """Write `report.html`.

    Args:
        rows: lines of `results.jsonl`; curves are read from the folders that they name.
        folder: where it goes; a `tuning.json` there is read, too.
        against: label of the reference.
        about: more lines for the head, as the command.

    Raises:
        UserError: it cannot be written.
    """
    file = folder / NAME
    write_bytes(file, page(rows, against=against, about=about, tuning=_tuning(rows, folder)).encode())
    return file


def page(
    rows: Sequence[Row],
    *,
    against: str,
    about: Mapping[str, str] | None = None,
    tuning: Mapping[str, Any] | None = None,
) -> str:
    """The whole page."""
    found = sections(rows, against)
    title = f"Distillation on {', '.join(dict.fromkeys(row['dataset'] for row in rows))}"
    parts = [f"<h1>{text(title)}</h1>", _head(rows, found, {**(about or {}), **_budget(tuning)}), _contents(found)]
    for section in found:
        parts += [f'<h2 id="{text(section.key)}">{text(capital(section.title))}</h2>', *_section(section)]
    parts += _learnt(found)
    parts += _failed(rows)
    parts += _tuned(tuning)
    head = f'<meta charset="utf-8"><title>{text(title)}</title><style>{STYLE}</style>'
    width = '<meta name="viewport" content="width=device-width,initial-scale=1">'
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}{width}</head>\n<body>\n{body}\n</body></html>\n'


# -- head ----------------------------------------------------------------------------------------------------------


def _head(rows: Sequence[Row], found: Sequence[Section], more: Mapping[str, str]) -> str:
    first: Row = next((row for row in rows if row.get("versions")), {})
    made = ", ".join(f"{name} {version}" for name, version in (first.get("versions") or versions()).items())
    splits = {row["dataset"]: row["protocol"] for row in rows}
    counts = {
        status: sum(row["status"] == status for row in rows) for status in dict.fromkeys(r["status"] for r in rows)
    }
    seeds = sorted({row["seed"] for row in rows})
    said = {
        "Data and split": ", ".join(f"{name} ({protocol})" for name, protocol in splits.items()),
        "Settings": ", ".join(dict.fromkeys(section.setting for section in found)),
        "Teachers": ", ".join(dict.fromkeys(section.teacher for section in found)),
        "Students": ", ".join(dict.fromkeys(section.student for section in found)),
        "Methods": ", ".join(dict.fromkeys(label for section in found for label in section.labels)),
        "Seeds": f"{len(seeds)}: {', '.join(map(str, seeds))}",
        "Reference of the tests": ", ".join(dict.fromkeys(section.against for section in found)),
        "Runs": ", ".join(f"{count} {status}" for status, count in counts.items()),
        **more,
        "Versions": made,
        "Commit": _commits(rows),
    }
    lines = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in said.items())
    honest = (
        "All methods have the same splits, teachers and seeds: a seed sets split, first weights and dropout. The epoch "
        "whose weights are kept is chosen by validation accuracy, never by test accuracy."
    )
    return f"<dl>{lines}</dl>\n<p>{honest}</p>"


def _commits(rows: Sequence[Row]) -> str:
    """Of which commits the finished runs are, and how many of each; a run outside of a repository knows none."""
    found = Counter(row.get("commit") or "not known" for row in rows if row["status"] == "finished")
    return ", ".join(f"{name} ({count} {'run' if count == 1 else 'runs'})" for name, count in found.items()) or "none"


def _contents(found: Sequence[Section]) -> str:
    links = [(section.key, section.title) for section in found]
    items = "".join(f'<li><a href="#{text(key)}">{text(capital(title))}</a></li>' for key, title in links)
    return f"<nav><ul>{items}</ul></nav>"


# -- sections ------------------------------------------------------------------------------------------------------


def _section(section: Section) -> Iterator[str]:
    """Pictures, each before the tables that it goes with."""
    first, *others = grids(section)
    late = [grid for grid in others if grid.title.startswith(("fidelity", "costs"))]
    n, where = len(section.seeds), section.title
    yield figure(
        plots.accuracy(section),
        f"{section.key}-accuracy",
        f"Test accuracy of each method by data set, {where}.",
        f"Each dot is one of {n} seeds; the mark is their mean, the bar one standard deviation (ddof 1) to each side. "
        "Axes do not start at zero.",
    )
    yield table(first)
    yield from (table(grid) for grid in others if grid not in late)
    pictures = (
        ("parameters", plots.against_parameters(section), "number of parameters"),
        (
            "latency",
            plots.against_latency(section),
            "time of an answer about one node, the fetch of its neighbourhood included",
        ),
    )
    for name, drawn, words in pictures:
        alt = f"Test accuracy against the {words}, {where}."
        said = f"{alt} Bars: one standard deviation (ddof 1). Marks of equal {name} stand side by side."
        yield figure(drawn, f"{section.key}-{name}", alt, said)
    yield figure(
        plots.learning(section),
        f"{section.key}-learning",
        f"Validation accuracy over the epochs, {where}.",
        "Learning curves: mean over seeds and a band of one standard deviation (ddof 1) to each side, drawn as long as "
        "at least half of the seeds still train.",
    )
    yield from map(table, late)


def _learnt(found: Sequence[Section]) -> Iterator[str]:
    """How well generators imitate their teachers' gradients, and how large a bias their students got."""
    teachers: dict[tuple[str, str, str], Any] = {}
    for section in found:
        for dataset, cell in section.cells.get(TEACHER, {}).items():
            teachers.setdefault((section.setting, section.teacher, dataset), cell)
    parts = []
    for (setting, teacher, dataset), cell in teachers.items():
        where = f"{dataset}, {setting}, teacher {teacher}"
        alt = f"Cosine between the teacher's gradients and those that its generators guess, {where}."
        parts.append(
            figure(plots.imitation(cell), f"imitation-{setting}-{teacher}-{dataset}", alt, f"{alt} *: of one gradient.")
        )
    grid = imitation.cosines(teachers)
    if grid is None:
        return
    yield "<h2>Gradients that generators imitate</h2>"
    yield from parts
    yield table(grid)
    for section in found:
        for dataset in section.datasets:
            cells = {label: cells[dataset] for label, cells in section.cells.items() if dataset in cells}
            alt = f"Size of the bias by that of the gradient, {dataset}, {section.title}."
            drawn = plots.bias({label: cell for label, cell in cells.items() if label != TEACHER})
            yield figure(drawn, f"{section.key}-bias-{dataset}", alt, alt)


# -- what failed, what was tuned -----------------------------------------------------------------------------------


def _failed(rows: Sequence[Row]) -> Iterator[str]:
    lost = [row for row in rows if row["status"] != "finished"]
    if not lost:
        return
    yield "<h2>Runs without a number</h2>"
    seeds: dict[tuple[str, ...], list[int]] = {}
    for row in lost:
        student = row["student_model"] or ""
        names = (row["dataset"], row["setting"], row["teacher_model"], student, row["label"] if student else TEACHER)
        seeds.setdefault((*names, row["status"], row.get("reason") or ""), []).append(row["seed"])
    head = ("data", "setting", "teacher", "student", "method", "what", "reason", "seeds")
    body = [tuple(Item(word) for word in (*names, ", ".join(map(str, which)))) for names, which in seeds.items()]
    yield table(Grid("", head, tuple(body), "", names=len(head)))


def _tuning(rows: Sequence[Row], folder: Path) -> Mapping[str, Any] | None:
    """What a search has found, if these rows are of what it found: the file may be of another call."""
    trials = {row.get("tuned") for row in rows if row.get("student_model")} - {0, None}
    try:
        found = json.loads((folder / TUNING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and trials == {found.get("trials")} else None


def _budget(tuning: Mapping[str, Any] | None) -> dict[str, str]:
    if tuning is None:
        return {"Tuning": "none: options are defaults, published ones where there are, or those that a name says"}
    seeds = ", ".join(map(str, tuning["seeds"]))
    return {"Tuning": f"{tuning['trials']} trials for every method alike; objective: {tuning['objective']} {seeds}"}


def _tuned(tuning: Mapping[str, Any] | None) -> Iterator[str]:
    if tuning is None:
        return
    yield "<h2>Tuning</h2>"
    head = ("data", "setting", "teacher", "student", "method", "trials", "failed", "validation %", "best settings")
    body = []
    for study in tuning["studies"]:
        names = [study.get(key) or "" for key in ("dataset", "setting", "teacher_model", "student_model", "label")]
        value = study.get("best")
        settings = study.get("why") or json.dumps(study.get("settings") or "as it is", sort_keys=True)
        numbers = [str(study.get(key, "")) for key in ("trials", "failed")]
        words = (*names, *numbers, "" if value is None else f"{100 * value:.2f}", settings)
        body.append(tuple(Item(str(word)) for word in words))
    yield table(
        Grid("", head, tuple(body), f"Objective: {tuning['objective']}; test accuracy is never looked at.", names=5)
    )
