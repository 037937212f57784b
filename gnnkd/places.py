"""Where a run's files lie, and whether a place may be written to."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gnnkd.errors import UserError
from gnnkd.scores import NAMES
from gnnkd.train.checkpoint import write_json

NOT_SHARED = ("seed", "fingerprint", "content")
"""What differs between two seeds of one configuration."""


@final
@dataclass(frozen=True)
class Place:
    """The folder of one run of one seed; a student's place knows that of its teacher, if it has one."""

    folder: Path
    teacher: Place | None = None

    @property
    def model(self) -> Path:
        """Weights of the best epoch."""
        return self.folder / "model.safetensors"

    @property
    def last(self) -> Path:
        """An image network's weights after the last epoch, where that was not the best."""
        return self.folder / "last.safetensors"

    @property
    def method(self) -> Path:
        """The method's own part after the last epoch, of an image student whose method keeps it."""
        return self.folder / "method.safetensors"

    @property
    def generators(self) -> Path:
        """A teacher's best generators."""
        return self.folder / "generators.safetensors"

    @property
    def outputs(self) -> Path:
        """A teacher's logits on all rows."""
        return self.folder / "outputs.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where an interrupted run continues; gone when it has finished."""
        return self.folder / "checkpoint.safetensors"

    @property
    def config(self) -> Path:
        """What determined the result."""
        return self.folder / "config.json"

    @property
    def result(self) -> Path:
        """The numbers; written last, so it marks a finished run."""
        return self.folder / "result.json"

    @property
    def metrics(self) -> Path:
        """One line of scalars an epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        """`metrics` drawn."""
        return self.folder / "curves.png"

    @property
    def summary(self) -> Path:
        """Mean and spread over the seeds beside this one."""
        return self.folder.parent / "summary.json"

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.result.is_file()


@final
@dataclass(frozen=True)
class Branch:
    """The folder of all runs with one dataset, protocol, setting and teacher (`logits` where those were ready)."""

    folder: Path

    @staticmethod
    def of(out: Path, dataset: str, protocol: str, setting: str, teacher_model: str) -> Branch:
        """`OUT/<dataset>/<protocol>-<setting>/<teacher>`."""
        return Branch(out / dataset / f"{protocol}-{setting}" / teacher_model)

    def teacher(self, seed: int, tag: str | None = None) -> Place:
        """`teacher[@tag]/seed<k>`."""
        return Place(self.folder / _tagged("teacher", tag) / f"seed{seed}")

    def student(
        self,
        seed: int,
        model: str,
        method: str,
        teacher: Place | None,
        *,
        base: str | None = None,
        tag: str | None = None,
    ) -> Place:
        """`<student>/<method>[+base][@tag]/seed<k>`."""
        name = f"{method}+{base}" if base else method
        return Place(self.folder / model / _tagged(name, tag) / f"seed{seed}", teacher)


def _tagged(name: str, tag: str | None) -> str:
    return f"{name}@{tag}" if tag else name


def checked_tag(tag: str) -> str:
    """A tag that can be part of a folder's name.

    Raises:
        UserError: it cannot.
    """
    if not re.fullmatch(r"\w[\w.+-]{0,63}", tag, flags=re.ASCII):
        raise UserError(f"tag '{tag}' must be letters, digits, '.', '_', '+' or '-', at most 64, the first no sign")
    return tag


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file is missing, unreadable, cut off, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UserError(f"{path} cannot be read ({problem}); run it again with --overwrite") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; run it again with --overwrite")
    return content


RESULT = ("dataset", "protocol", "setting", "teacher_model", "student_model", "method", "seed", "test_acc", "val_acc",
          "n_parameters", "seconds", "config")  # fmt: skip
"""What others read from a result."""
LAST = "test_acc_last"
"""Of images: test accuracy after the last epoch, beside that of the epoch which validates best."""
BEST_ON_TEST = "test_acc_best_on_test"
"""Of images: the best test accuracy of all epochs; for comparison with the literature only."""
_SCORES = (*NAMES, LAST, BEST_ON_TEST)
ACCURACIES = (*_SCORES, "val_acc", *(f"teacher_{name}" for name in _SCORES))
"""What a summary is over, where every seed has it."""


def read_result(path: Path) -> dict[str, Any]:
    """The content of a `result.json`.

    Raises:
        UserError: as `read_json`, and for a missing entry.
    """
    result = read_json(path)
    missing = [name for name in RESULT if name not in result]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; run it again with --overwrite")
    return result


def summarise(place: Place) -> dict[str, Any]:
    """Write `summary.json`: each accuracy over the finished seeds of this place's configuration.

    `mean` and `std` at the top are those of `test_acc`; `std` has ddof 1, so it is null for a single seed.
    """
    same = shared(read_json(place.config))
    found: dict[int, dict[str, Any]] = {}
    for folder in place.folder.parent.glob("seed*"):
        other = Place(folder)
        if other.finished and other.config.exists() and shared(read_json(other.config)) == same:
            result = read_result(other.result)
            found[int(result["seed"])] = result
    seeds = sorted(found)
    names = [name for name in ACCURACIES if all(result.get(name) is not None for result in found.values())]
    spreads = {name: _spread([found[k][name] for k in seeds]) for name in names}
    summary = {**spreads["test_acc"], "n": len(seeds), "seeds": seeds, **spreads}
    write_json(place.summary, summary)
    return summary


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def shared(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A description without what differs between two seeds of one configuration."""
    return {
        key: shared(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if key not in NOT_SHARED
    }


def writable(out: Path) -> None:
    """Check before any work is done that results can be kept.

    Raises:
        UserError: the folder, or the first of its parents that exists, is no folder or cannot be written.
    """
    there = out
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
    except OSError as problem:
        raise UserError(f"--out: no folder can have that name ({problem.strerror})") from None
    if not there.is_dir():
        raise UserError(f"--out {out}: {there} is not a folder; choose another one with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {there} cannot be written; choose another folder with --out")
