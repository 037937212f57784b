"""What the datasets of a comparison show of themselves before anything is trained on them."""

from __future__ import annotations

from dataclasses import replace

from gnnkd.compare.comparison import Comparison, Ground
from gnnkd.data.dataset import NodeDataset
from gnnkd.data.task import protocols
from gnnkd.errors import UserError
from gnnkd.graph_config import Config


def surveyed(comparison: Comparison) -> Comparison:
    """The comparison with a ground for each dataset; each is read once.

    Raises:
        UserError: a dataset is not there or damaged, or no cell can be run.
    """
    found = replace(comparison, grounds={name: _ground(comparison, name) for name in comparison.datasets})
    reasons = [found.cannot(cell) for cell in found.cells if cell.entry is not None]
    if reasons and all(reasons):
        raise UserError(f"nothing can be run: {'; '.join(dict.fromkeys(filter(None, reasons)))}")
    return found


def _ground(comparison: Comparison, name: str) -> Ground:
    there = [cell for cell in comparison.cells if cell.dataset == name and comparison.cannot(cell) is None]
    if not there:  # methods and students do not fit, whatever the data is
        return Ground(name, comparison.split or "")
    plan = there[0].config()
    dataset = plan.load(comparison.data_root)
    cannot: dict[str, str] = {}
    notes: dict[str, None] = {}
    for setting in comparison.settings:
        said = _tried(replace(plan, setting=setting), dataset, comparison.seeds[0])
        if isinstance(said, str):
            cannot[setting] = said
        else:
            notes |= dict.fromkeys(said)
    return Ground(dataset.name, comparison.split or protocols(dataset)[0], cannot, tuple(notes))


def _tried(plan: Config, dataset: NodeDataset, seed: int) -> tuple[str, ...] | str:
    """Notes on a task, or why there is none."""
    try:
        return plan.notes(plan.task(dataset, seed))
    except UserError as mistake:
        return " ".join(str(mistake).split())
