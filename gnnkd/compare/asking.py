"""What a comparison's flags come to: names and words checked, defaults filled in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd import options
from gnnkd.compare.cells import READY
from gnnkd.compare.comparison import Comparison, known
from gnnkd.compare.entries import Entry, entries, split
from gnnkd.data import graphs
from gnnkd.data.task import PROTOCOLS, SETTINGS
from gnnkd.errors import UserError, unknown
from gnnkd.nn import MODELS
from gnnkd.request import seeds_of

if TYPE_CHECKING:
    from gnnkd.halves import Groups


def asked(values: Mapping[str, Any], levels: tuple[Groups, ...], seeds: Mapping[str, Any], command: str) -> Comparison:
    """What flags of their kinds come to.

    Args:
        values: by long flag name.
        levels: groups of options, weakest first.
        seeds: `seed` or `seeds`.
        command: as it was typed.

    Raises:
        UserError: an unknown name, option or value, or contradicting flags.
    """
    _check(values)
    names = _names(values)
    words = split(values.get("methods", ["mlp,glnn,dgd"]))
    mine, chosen = _entries(words, names["students"]), seeds_of(seeds)
    device, out = options.device(values.get("device", "auto")), Path(values.get("out", "runs"))
    comparison = Comparison(
        **names,
        entries=mine,
        against=_against(values.get("against"), mine),
        seeds=chosen,
        out=out,
        report=Path(values.get("report", out / "compare" / _name(names, words, levels, values.get("tune", 0)))),
        groups=levels,
        data_root=values.get("data_root"),
        device=device,
        jobs=_jobs(values.get("jobs", "auto"), device),
        tune=values.get("tune", 0),
        tune_seeds=_tune_seeds(values, len(chosen)),
        train=not values.get("no_train", False),
        overwrite=values.get("overwrite", False),
        costs=not values.get("no_costs", False),
        quiet=values.get("quiet", False),
        command=command,
    )
    comparison.check()
    return comparison


def _check(values: Mapping[str, Any]) -> None:
    """Refuse flags that contradict one another."""
    if values.get("resume") and values.get("overwrite"):
        raise UserError("--resume continues what is there, and --overwrite removes it; give one of them")
    if values.get("no_train") and (values.get("overwrite") or values.get("tune")):
        raise UserError("--no_train trains nothing; leave out --overwrite and --tune")
    if "teacher" in values and "teacher_logits" in values:
        raise UserError("--teacher_logits stands for a teacher; leave out --teacher")


def _names(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared on what, by the fields of `Comparison`."""
    ready = Path(values["teacher_logits"]) if "teacher_logits" in values else None
    datasets = split(values.get("dataset", ["digits"]))
    if not datasets:
        raise UserError("no dataset is named; leave the flag out, or say which")
    return {
        "datasets": _datasets(datasets),
        "settings": _words("setting", values.get("setting", ["tran"]), SETTINGS),
        "teachers": (READY,) if ready else _words("teacher model", values.get("teacher", ["gcn"]), MODELS),
        "students": _words("student model", values.get("students", ["mlp"]), MODELS),
        "split": options.word("split", values["split"], PROTOCOLS) if "split" in values else None,
        "ready": ready,
    }


def _datasets(said: Sequence[str]) -> tuple[str, ...]:
    """Names as they are, whatever their case and dashes, each once; a path stays what it is.

    Raises:
        UserError: two names of one graph.
    """
    plain = [name.lower().replace("_", "-") for name in said]
    there = graphs.names()
    found = tuple(dict.fromkeys(one if one in there else name for one, name in zip(plain, said, strict=True)))
    made: dict[Any, str] = {}
    for name in found:
        other = made.setdefault(graphs.MADE.get(name, name), name)
        if other != name:
            raise UserError(f"--dataset {other} and {name} are one graph; leave one out")
    return found


def _words(what: str, said: Sequence[str], allowed: Iterable[str]) -> tuple[str, ...]:
    there = list(allowed)
    found = tuple(dict.fromkeys(options.word(what, word, there) for word in split(said)))
    if not found:
        raise UserError(f"no {what} is named; leave the flag out, or say which")
    return found


def _entries(words: Sequence[str], students: Sequence[str]) -> dict[str, tuple[Entry, ...]]:
    """The entries of each student; a network's name must be that of a student."""
    if not words:
        raise UserError("--methods is empty; say what to compare, as mlp,glnn,dgd")
    for word in words:
        name = word.partition(":")[0].lower().replace("-", "_")
        if name in MODELS and name not in students:
            raise UserError(f"'{word}' is a network trained on labels alone, and no student; add it to --students")
    found = {student: entries(words, student) for student in students}
    idle = next((student for student, mine in found.items() if not mine), None)
    if idle is not None:
        raise UserError(f"--students {idle}: no method teaches it; add one to --methods, as {idle} or kd")
    for student, mine in found.items():
        for entry in mine:
            _check_options(entry, known(entry, student))
    return found


def _check_options(entry: Entry, allowed: Iterable[str]) -> None:
    """Refuse an option of a word that its method would not read."""
    for name in entry.options:
        if name not in allowed:
            raise unknown(f"option of {entry.label.partition(':')[0]}:", name, allowed)


def _against(said: str | None, found: Mapping[str, Sequence[Entry]]) -> str:
    """The label of the reference: the method that the user means by a word of his, or GLNN, or the first."""
    labels = [entry.label for mine in found.values() for entry in mine]
    if said is None:
        return "glnn" if "glnn" in labels else labels[0]
    if said in labels:
        return said
    same = {_means(entry): entry.label for mine in found.values() for entry in mine}
    try:
        meant = [_means(entry) for student in found for entry in entries([said], student)]
    except UserError:  # what is no method is refused later, with the labels that there are
        return said
    return next((same[one] for one in meant if one in same), said)


def _means(entry: Entry) -> tuple[str, str | None, str | None]:
    return entry.method, entry.base, entry.tag


def _name(mine: Mapping[str, Any], methods: Sequence[str], levels: Sequence[Groups], tune: int) -> str:
    """A folder's name that says what is compared; a digest at its end keeps other methods and options apart."""
    datasets = [Path(name).stem.lower() for name in mine["datasets"]]
    parts = ["+".join(datasets), mine["split"], *("+".join(mine[n]) for n in ("settings", "teachers", "students"))]
    digest = hashlib.sha256(json.dumps([list(methods), list(levels), tune], sort_keys=True).encode()).hexdigest()
    return "-".join(part for part in (*parts, f"tuned{tune}" if tune else None) if part)[:120] + f"-{digest[:6]}"


def _jobs(said: Any, device: str) -> int:
    if str(said).lower() == "auto":
        return 1 if device == "cuda" else _cores()
    if isinstance(said, bool) or not str(said).isdecimal() or int(said) < 1:
        raise UserError(f"--jobs is {said!r}; it must be auto, or a number of processes from 1 on")
    return int(said)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tune_seeds(values: Mapping[str, Any], seeds: int) -> int:
    said: int = values.get("tune_seeds", min(3, seeds))
    if said > seeds:
        raise UserError(f"--tune_seeds is {said}; there are {seeds} seeds (--seeds)")
    return said
