"""The lines of `results.jsonl`: each cell with its numbers, or why it has none, read from the places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

from gnnkd import distillers, nn
from gnnkd.claims import differences, said
from gnnkd.compare.cells import READY, Cell
from gnnkd.compare.comparison import Comparison, Ground
from gnnkd.compare.training import measured, serves
from gnnkd.errors import UserError
from gnnkd.graph_config import Config
from gnnkd.options import plain
from gnnkd.places import Place, read_json, read_result

Row = dict[str, Any]
FINISHED, FAILED, IMPOSSIBLE, MISSING = "finished", "failed", "impossible", "missing"
STATUSES = (FINISHED, FAILED, IMPOSSIBLE, MISSING)
FAILURES, COSTS = "failures.json", "costs.json"
"""Beside the tables: why cells failed, by key; what predictions cost, by configuration."""
OF = "of"
"""Of costs: the digest of the weights that they are of."""
BESIDE = ("commit", "versions")
"""What a line has of a result that is no number."""


def rows(comparison: Comparison) -> list[Row]:
    """One line for each cell, in the order of its cells; the datasets have been read.

    A damaged file of a cell is why that cell has failed; those of the report are taken as empty.
    """
    notes = _Notes(*(_or_nothing(comparison.report / name) for name in (FAILURES, COSTS)))
    plans: dict[str, Config] = {}
    found: list[Row] = []
    for cell in comparison.cells:
        ground = comparison.grounds[cell.dataset]
        row: Row = {"status": IMPOSSIBLE, "reason": comparison.cannot(cell), **_names(cell, ground)}
        if row["reason"] is None and comparison.tune and cell.entry is not None and not cell.tuned:
            row |= {"status": MISSING, "reason": "not tuned yet"}
        elif row["reason"] is None:
            if cell.configuration not in plans:
                plans[cell.configuration] = cell.config()
            plan, place = plans[cell.configuration], cell.place(comparison.out, ground.name, ground.protocol)
            row |= _details(cell, plan)
            try:
                row |= _found(cell, plan, place, notes)
            except UserError as damage:
                row |= {"status": FAILED, "reason": str(damage), "folder": str(place.folder)}
        found.append(row)
    return found


@final
@dataclass(frozen=True)
class _Notes:
    failures: Mapping[str, Any]
    costs: Mapping[str, Any]


def there(file: Path) -> dict[str, Any]:
    """The object in a file of the report; nothing where there is no such file."""
    return read_json(file) if file.is_file() else {}


def _or_nothing(file: Path) -> dict[str, Any]:
    try:
        return there(file)
    except UserError:
        return {}


# -- who ----------------------------------------------------------------------------------------------------------


def _names(cell: Cell, ground: Ground) -> Row:
    entry = cell.entry
    return {
        "dataset": ground.name,
        "protocol": ground.protocol,
        "setting": cell.setting,
        "teacher_model": cell.teacher_model,
        "student_model": cell.student_model,
        "label": cell.label,
        "method": entry.method if entry else "teacher",
        "base": entry.base if entry else None,
        "seed": cell.seed,
        "tuned": cell.tuned,
    }


def _details(cell: Cell, plan: Config) -> Row:
    """What the configuration says: the base, options that are not the defaults', and needs."""
    if cell.entry is None:
        return {"options": {}, "needs": needs(cell.teacher_model)}
    options = {**cell.entry.groups["method"], **cell.found.get("method", {})}
    options |= {f"student.{name}": v for name, v in {**cell.entry.student, **cell.found.get("student", {})}.items()}
    options.pop("base", None)
    names = [plan.method, *([plan.base] if plan.base else [])]
    return {"base": plan.base, "options": plain(options), "needs": needs(plan.student_model, *names)}


def needs(model: str, *methods: str) -> list[str]:
    """What a prediction needs, in words.

    Args:
        model: the network.
        methods: the method, and what it wraps.
    """
    known = distillers.graph_methods()
    edges = ["edges"] if model != READY and nn.needs_graph(model) else []
    every = dict.fromkeys(["features", *edges, *(need for name in methods for need in known[name].needs)])
    return [need for need in every if not ("edges" in every and need == "edges of unseen nodes")]


# -- what ---------------------------------------------------------------------------------------------------------


def _found(cell: Cell, plan: Config, place: Place, notes: _Notes) -> Row:
    row: Row = {"folder": str(place.folder)}
    if cell.key in notes.failures:
        return row | {"status": FAILED, "reason": notes.failures[cell.key]["reason"]}
    if not place.finished:
        return row | {"status": MISSING, "reason": "not trained yet"}
    other = _other(cell, plan, place)
    if other:
        return row | {"status": MISSING, "reason": f"its place holds a run of another configuration: {other}"}
    result = read_result(place.result)
    numbers = {name: value for name, value in result.items() if is_number(value) and name != "seed"}
    beside = {name: result.get(name) for name in BESIDE}
    costs = {name: value for name, value in notes.costs.get(cell.configuration, {}).items() if name != OF}
    more = {"measures": there(measured(place)), "costs": costs}
    return row | numbers | beside | more | {"status": FINISHED}


def is_number(value: object) -> bool:
    """Whether a table can show it as a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _other(cell: Cell, plan: Config, place: Place) -> str:
    """What differs between the configuration of a finished run and a cell's, in words; data apart."""
    is_there = read_json(place.config)
    try:
        data = {name: is_there[name] for name in ("protocol", "setting", "seed", "fingerprint", "content")}
        task: Any = SimpleNamespace(name=is_there["dataset"], features=is_there["data"]["normalise"], **data)
    except (KeyError, TypeError):
        raise UserError(f"{place.config} is of another kind of run; choose another --out") from None
    if cell.entry is None:
        wanted = plan.describe_teacher(task)
        changed = [] if serves(place, wanted) else differences(is_there, wanted)
    else:
        teacher = place.teacher
        taught = (
            plan.describe_teacher(task) if teacher is None else there(teacher.config) or is_there.get("teacher", {})
        )
        changed = differences(is_there, plan.describe_student(task, taught))
    return said(changed) if changed else ""
