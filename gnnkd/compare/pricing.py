"""What predictions cost: measured by one process while no other is at work, once for each configuration."""

from __future__ import annotations

import hashlib
from typing import Any

from gnnkd import predictor
from gnnkd.compare import costs, rows
from gnnkd.compare.cells import Cell
from gnnkd.compare.comparison import Comparison
from gnnkd.compare.progress import board
from gnnkd.compare.training import Desk
from gnnkd.places import Place
from gnnkd.predictor import Predictor
from gnnkd.train.checkpoint import write_json


def priced(comparison: Comparison) -> None:
    """Measure the first seed of each configuration that is finished and has not been measured; write `costs.json`."""
    file = comparison.report / rows.COSTS
    there = rows.there(file)
    known, due = dict(there), list[tuple[Cell, Place]]()
    for cell, place in _first(comparison):
        found = known.get(cell.configuration, {})
        if found.get(rows.OF) != _mark(place):
            known.pop(cell.configuration, None)  # of other weights
        elif costs.outdated(found):
            known[cell.configuration] = costs.untimed(found)
        else:
            continue
        due.append((cell, place))
    if known != there:
        write_json(file, known)
    if not comparison.train or not comparison.costs or not due:
        return
    desk = Desk(comparison.data_root, "cpu")
    with board("costs", len(due), quiet=comparison.quiet) as shown:
        for cell, place in due:
            shown.now([cell.configuration])
            known[cell.configuration] = {**_measured(comparison, cell, place, desk), rows.OF: _mark(place)}
            write_json(file, known)
            shown.done()


def _first(comparison: Comparison) -> list[tuple[Cell, Place]]:
    found = []
    for cell in comparison.cells:
        if cell.seed == comparison.seeds[0] and comparison.cannot(cell) is None:
            ground = comparison.grounds[cell.dataset]
            place = cell.place(comparison.out, ground.name, ground.protocol)
            found += [(cell, place)] if place.finished else []
    return found


def _mark(place: Place) -> str:
    """A digest of the weights; nothing where they cannot be read."""
    try:
        return hashlib.sha256(place.model.read_bytes()).hexdigest()
    except OSError:
        return ""


def _measured(comparison: Comparison, cell: Cell, place: Place, desk: Desk) -> dict[str, Any]:
    try:
        found = predictor.load(place.model)
        assert isinstance(found, Predictor)
        return costs.of(found, desk.task(cell.config(), cell.seed))
    except ValueError as problem:
        comparison.say(f"{cell.configuration}: its costs are not known: {problem}")
        return {}
