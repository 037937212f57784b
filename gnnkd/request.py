"""What several sources say together, weakest first, becomes a checked request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, final

from gnnkd.errors import UserError
from gnnkd.flags import MODES, SWITCHES, VALUES
from gnnkd.options import DEVICES

if TYPE_CHECKING:
    from gnnkd.halves import Groups, Plan
    from gnnkd.logits import Logits

TAUGHT_BY = ("teacher_model", "teacher_logits")
"""Ways to say what a student learns from; a source names one of them at most."""
READY = ("teacher_logits", "teacher_weights")
"""Ways to give a teacher that is trained already."""
NUMBERS = ("seed", "seeds")
"""Values that are no words."""


@final
@dataclass
class Level:
    """What one source says: top-level values by long flag name, and groups of options.

    `file` tells a file, which may be of another run, from what is typed for this one.
    """

    values: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    file: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be done, checked."""

    config: Plan
    mode: str
    seeds: tuple[int, ...]
    data_root: str | None
    out: Path
    tag: str | None
    device: str
    resume: bool
    overwrite: bool
    quiet: bool
    tensorboard: bool = False


def request(levels: Sequence[Level]) -> Request:
    """What several sources say together, checked.

    Args:
        levels: weakest first.

    Raises:
        UserError: an unknown name, option or value, a broken file, or contradicting flags.
    """
    from gnnkd import halves
    from gnnkd.options import word
    from gnnkd.places import checked_tag

    values: dict[str, Any] = {}
    seeds: tuple[int, ...] = (0,)
    for one in levels:
        if "seed" in one.values or "seeds" in one.values:
            seeds = seeds_of(one.values)
        if not one.values.keys().isdisjoint(TAUGHT_BY):  # who said it last says who teaches
            values = {name: value for name, value in values.items() if name not in TAUGHT_BY}
        values |= one.values
    for name in VALUES:
        if name in values and name not in NUMBERS and not isinstance(values[name], str):
            raise UserError(f"{name} is {values[name]!r}; it must be a word")
        if values.get(name) == "":
            raise UserError(f"{name} is empty; leave it out, or say which")
    for name in SWITCHES:
        if not isinstance(values.get(name, False), bool):
            raise UserError(f"{name} is {values[name]!r}; it must be true or false")
    mode = word("mode", values.get("mode", "tea/stu"), MODES)
    if "teacher_logits" in values:
        values["teacher_model"] = _ready(values, mode)
    names = ("dataset", "split", "setting", "teacher_model", "student_model", "method", *halves.OF_IMAGES)
    device = word("device", values.get("device", "auto"), DEVICES)
    tag = checked_tag(values["tag"]) if "tag" in values else None
    config = halves.plan({n: values[n] for n in names if n in values}, _groups(levels))
    return Request(
        config=config,
        mode=mode,
        seeds=seeds,
        data_root=values.get("data_root"),
        out=Path(values.get("out", "runs")),
        tag=tag,
        device=device,
        resume=values.get("resume", False),
        overwrite=values.get("overwrite", False),
        quiet=values.get("quiet", False),
        tensorboard=values.get("tensorboard", False),
    )


def _groups(levels: Sequence[Level]) -> tuple[Groups, ...]:
    """Options of each level; a file's teacher is without those that a ready one of a stronger level has no use for."""
    said = {name: [i for i, one in enumerate(levels) if name in one.values] for name in READY}
    found: list[Groups] = []
    for i, one in enumerate(levels):
        groups = dict(one.groups)
        if one.file and any(i < stronger for stronger in said["teacher_logits"]):
            groups.pop("teacher", None)
        if one.file and any(i < stronger for stronger in said["teacher_weights"]):
            groups["teacher"] = _untrained(groups.get("teacher", {}))
        found.append(groups)
    return tuple(found)


def _untrained(teacher: Mapping[str, Any]) -> dict[str, Any]:
    from gnnkd.images.config import IDLE

    return {name: value for name, value in teacher.items() if name not in IDLE}


def _ready(values: Mapping[str, Any], mode: str) -> Logits:
    """The ready logits that stand for a teacher, which then is neither named nor trained."""
    from gnnkd import logits

    if "teacher_model" in values:
        raise UserError(
            f"--teacher_logits and --teacher_model {values['teacher_model']} contradict each other; give one of them"
        )
    if mode == "tea":
        raise UserError("--mode tea trains a teacher, and --teacher_logits stands for one; leave one of them out")
    return logits.read(Path(values["teacher_logits"]))


def seeds_of(values: Mapping[str, Any]) -> tuple[int, ...]:
    """`seed: 3`, or `seeds` as a number N (0 to N-1), a range "10-19", or a list "3,5,7".

    Raises:
        UserError: both, or something else.
    """
    from gnnkd.options import seed

    if "seed" in values and "seeds" in values:
        raise UserError("--seed and --seeds contradict each other; give one of them")
    if "seed" in values:
        return (seed(_number(values["seed"])),)
    said = values["seeds"]
    items = said if isinstance(said, list) else str(said).split(",")
    if len(items) > 1 or isinstance(said, list):
        return tuple(dict.fromkeys(seed(_number(item)) for item in items)) or _no_seeds(said)
    low, dash, high = str(said).partition("-")
    first, last = (_number(low), _number(high)) if low and dash else (0, _number(said))
    if not isinstance(first, int) or not isinstance(last, int):
        return _no_seeds(said)
    last = last if low and dash else last - 1
    if not 0 <= first <= last or last - first >= 100_000:
        return _no_seeds(said)
    return tuple(seed(k) for k in range(first, last + 1))


def _no_seeds(said: Any) -> NoReturn:
    raise UserError(f"seeds is {said!r}; it must be a number from 1 on, a range as 10-19, or a list as 3,5,7")


def _number(said: Any) -> Any:
    """The whole number in a word from the command line; everything else as it is."""
    try:
        return int(said) if isinstance(said, str) else said
    except ValueError:
        return said
