"""Finished runs, seed by seed; with the test of their differences (`gnnkd.paired`) for the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gnnkd.paired import EQUAL, outcomes, wilcoxon

__all__ = ["EQUAL", "Run", "outcomes", "runs", "students", "wilcoxon"]

Run = dict[str, Any]


def runs(folder: Path) -> dict[int, Run]:
    """Results by seed of one configuration, with the epochs' history."""
    found = {}
    for file in folder.glob("seed*/result.json"):
        result = json.loads(file.read_text())
        metrics = file.parent / "metrics.jsonl"  # a published teacher has none
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        found[result["seed"]] = result | {"history": [json.loads(line) for line in lines]}
    return dict(sorted(found.items()))


def students(branch: Path) -> list[Path]:
    """Folders of all student configurations under a teacher's branch, by student model and name."""
    return sorted({file.parents[1] for file in branch.glob("*/*/seed*/result.json")})
