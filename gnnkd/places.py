"""Where a run's files lie, and whether a place may be written to."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gnnkd.errors import UserError
from gnnkd.train.checkpoint import write_json

FILES = (
    "model.safetensors",
    "generators.safetensors",
    "outputs.safetensors",
    "checkpoint.safetensors",
    "config.json",
    "result.json",
    "metrics.jsonl",
    "curves.png",
)
"""All that a run may leave in its folder."""
NOT_SHARED = ("seed", "fingerprint", "content")
"""What differs between two seeds of one configuration."""


@final
@dataclass(frozen=True)
class Place:
    """The folder of one run of one seed; a student's place knows that of its teacher."""

    folder: Path
    teacher: Place | None = None

    @property
    def model(self) -> Path:
        """Weights of the best epoch."""
        return self.folder / "model.safetensors"

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
    """The folder of all runs with one dataset, protocol, setting and teacher."""

    folder: Path

    @staticmethod
    def of(out: Path, dataset: str, protocol: str, setting: str, teacher_model: str) -> Branch:
        """`OUT/<dataset>/<protocol>-<setting>/<teacher>`."""
        return Branch(out / dataset / f"{protocol}-{setting}" / teacher_model)

    def teacher(self, seed: int, tag: str | None = None) -> Place:
        """`teacher[@tag]/seed<k>`."""
        return Place(self.folder / _tagged("teacher", tag) / f"seed{seed}")

    def student(
        self, seed: int, model: str, method: str, teacher: Place, *, base: str | None = None, tag: str | None = None
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


def claim(place: Place, description: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False) -> bool:
    """Make a place ready for the run described; False if that run is finished there already, and stays.

    The description is written to `config.json`. Nothing that a run left is lost unless `overwrite` says so.

    Raises:
        UserError: another configuration lies there, an unfinished run (without `resume`), damaged files, or the folder
            cannot be written.
    """
    left = {name for name in FILES if (place.folder / name).exists()}
    if overwrite:
        _cleared(place)
    elif left - {"config.json"}:
        _check_same(place, description)
        if place.finished:
            read_result(place.result)
            return False
        if place.checkpoint.exists() and not resume:
            raise UserError(
                f"{place.folder} holds an unfinished run of this configuration; continue it with --resume "
                "or start anew with --overwrite"
            )
    write_json(place.config, description)
    return True


def _cleared(place: Place) -> None:
    # The result goes first: what is left when this is interrupted counts as unfinished.
    for name in ("result.json", *FILES):
        try:
            (place.folder / name).unlink(missing_ok=True)
        except OSError as problem:
            raise UserError(f"{place.folder / name} cannot be removed ({problem.strerror})") from None


def _check_same(place: Place, description: Mapping[str, Any]) -> None:
    if not place.config.exists():
        raise UserError(f"{place.folder} holds a run without config.json; choose a --tag, or --overwrite it")
    changed = differences(read_json(place.config), description)
    if changed:
        raise UserError(
            f"{place.folder} holds a run of another configuration: {said(changed)}; choose a --tag, or --overwrite it"
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What differs between two descriptions: dotted key, value there, value here, None for a missing one."""
    old, new = dict(_flat(there)), dict(_flat(here))
    return [(key, old.get(key), new.get(key)) for key in new | old if old.get(key) != new.get(key)]


def said(changed: list[tuple[str, Any, Any]], most: int = 3) -> str:
    """Differences in words."""
    shown = ", ".join(
        f"{key} is {json.dumps(old)} there and {json.dumps(new)} here" for key, old, new in changed[:most]
    )
    return shown + (f", and {len(changed) - most} more" if len(changed) > most else "")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def check_teacher(teacher: Place, wanted: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The description of a finished teacher that a student of the task `wanted` may learn from.

    Its own options may differ from those of `wanted` unless the user gave them himself (`given`).

    Raises:
        UserError: it was trained on other data or another split, or is not what the user asks for.
    """
    there = read_json(teacher.config)
    read_result(teacher.result)
    retrain = "train another one with --mode tea and a --tag, or replace it with --overwrite"
    for key, what in (
        ("fingerprint", "another split, graph or order of nodes"),
        ("content", "other features or labels"),
    ):
        if there.get(key) != wanted[key]:
            known = [c for c in differences(there, wanted) if c[0].startswith("data.")]
            raise UserError(
                f"the teacher in {teacher.folder} was trained on {what} than this student would be"
                f"{f' ({said(known)})' if known else ''}; {retrain}"
            )
    changed = [
        (key, old, new)
        for key, old, new in differences(there, wanted)
        if key.startswith("data.") or key == "teacher_model" or key in given
    ]
    if changed:
        raise UserError(
            f"the teacher in {teacher.folder} is another one: {said(changed)}; leave that out "
            f"(student.X sets the student alone), or {retrain}"
        )
    return there


def summarise(place: Place) -> dict[str, Any]:
    """Write `summary.json`: test and validation accuracy over the finished seeds of this place's configuration.

    `std` has ddof 1, so it is null for a single seed.
    """
    same = shared(read_json(place.config))
    found: dict[int, dict[str, Any]] = {}
    for folder in place.folder.parent.glob("seed*"):
        other = Place(folder)
        if other.finished and other.config.exists() and shared(read_json(other.config)) == same:
            result = read_result(other.result)
            found[int(result["seed"])] = result
    seeds = sorted(found)
    test = _spread([found[k]["test_acc"] for k in seeds])
    summary = {**test, "n": len(seeds), "seeds": seeds, "val_acc": _spread([found[k]["val_acc"] for k in seeds])}
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
