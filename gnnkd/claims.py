"""Whether a place may be written to, and whether a teacher is the one that a student needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gnnkd import processes
from gnnkd.errors import UserError
from gnnkd.held import held
from gnnkd.places import Place, read_json, read_result
from gnnkd.tensorboard import FOLDER
from gnnkd.train.checkpoint import write_json

FILES = (
    "model.safetensors",
    "last.safetensors",
    "method.safetensors",
    "generators.safetensors",
    "outputs.safetensors",
    "checkpoint.safetensors",
    "config.json",
    "result.json",
    "measures.json",
    "metrics.jsonl",
    "curves.png",
)
"""All that a run may leave in its folder, beside `NODES` and TensorBoard's files."""
NODES = "node*.safetensors"
"""Networks of a run that has several."""
HASHES = ("fingerprint", "content")
"""Keys of a description that say that the data differs, and not how."""
_GENERATORS = "teacher.generators"


def claim(
    place: Place,
    description: Mapping[str, Any],
    differing: tuple[str, str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    way: str = "choose a --tag",
) -> bool:
    """Make a place ready for the run described; False if that run is finished there already, and stays.

    The description is written to `config.json`. Nothing that a run left is lost unless `overwrite` says so. `differing`
    is as in `check_teacher`, and `way` says how this command writes to another place.

    Raises:
        UserError: another configuration lies there, an unfinished run (without `resume`), damaged files, or the folder
            cannot be written.
    """
    left = {name for name in FILES if (place.folder / name).exists()}
    if overwrite:
        _cleared(place)
    elif left - {"config.json"}:
        _check_same(place, description, differing, way)
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


def undisturbed(place: Place, *, overwrite: bool = False) -> AbstractContextManager[None]:
    """Keeps other commands from training in a place for the duration of a block; whoever only reads is in nobody's way.

    Of several processes the first one does so for all.

    Raises:
        UserError: another command trains there.
    """
    if processes.rank() == 0 and (overwrite or not place.finished):
        return held(place.folder, what="trains")
    return nullcontext()


def _cleared(place: Place) -> None:
    # The result goes first: what is left when this is interrupted counts as unfinished.
    named = [place.folder / name for name in ("result.json", *FILES)]
    for file in (*named, *place.folder.glob(NODES)):
        try:
            file.unlink(missing_ok=True)
        except OSError as problem:
            raise UserError(f"{file} cannot be removed ({problem.strerror})") from None
    shutil.rmtree(place.folder / FOLDER, ignore_errors=True)


def _check_same(place: Place, description: Mapping[str, Any], differing: tuple[str, str], way: str) -> None:
    if not place.config.exists():
        raise UserError(f"{place.folder} holds a run without config.json; {way}, or --overwrite it")
    changed = differences(read_json(place.config), description)
    words = dict(zip(HASHES, differing, strict=True))
    told = [one for one in changed if _last(one[0]) not in HASHES]
    if told:
        data_first = sorted(told, key=lambda one: not one[0].startswith("data."))
        what = f"of another configuration: {said(data_first)}"
    else:
        what = "on " + ", and ".join(dict.fromkeys(words[_last(key)] for key, _, _ in changed))
    if changed:
        raise UserError(f"{place.folder} holds a run {what}; {way}, or --overwrite it")


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What differs between two descriptions: dotted key, value there, value here, None for a missing one.

    A teacher's generators are left out where the description here, of a student that hears nothing of them, does.
    """
    old, new = dict(_flat(there)), dict(_flat(here))
    if not any(key.startswith(_GENERATORS) for key in new):
        old = {key: value for key, value in old.items() if not key.startswith(_GENERATORS)}
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


def check_teacher(
    teacher: Place, wanted: Mapping[str, Any], given: frozenset[str], differing: tuple[str, str]
) -> dict[str, Any]:
    """The description of a finished teacher that a student of the task `wanted` may learn from.

    Its own options may differ from those of `wanted` unless the user gave them himself (`given`). `differing` says in
    words what another fingerprint, and another content, of a task mean.

    Raises:
        UserError: it was trained on other data or another split, or is not what the user asks for.
    """
    there = read_json(teacher.config)
    read_result(teacher.result)
    retrain = "train another one with --mode tea and a --tag, or replace it with --overwrite"
    for key, what in zip(HASHES, differing, strict=True):
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
