"""Options of a run: found by introspection where they are used, checked here, put together by precedence."""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, final, get_args, get_origin

from gnnkd.errors import UserError, unknown

GROUPS = ("data", "teacher", "student", "method", "train")
DEVICES = ("auto", "cpu", "cuda")


@final
@dataclass(frozen=True)
class Option:
    """What one option accepts, and what it is when nobody says."""

    annotation: Any
    default: Any


Options = Mapping[str, Option]


def of(function: Callable[..., Any], *, leave_out: Iterable[str] = ()) -> dict[str, Option]:
    """The options of a function or class: its keyword-only arguments, or the fields of a dataclass."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    every = dataclasses.is_dataclass(function)
    return {
        p.name: Option(p.annotation, p.default)
        for p in parameters
        if (every or p.kind is p.KEYWORD_ONLY) and p.name not in leave_out
    }


def checked(group: str, values: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The values of a group in the types of their options, defaults filled in.

    Raises:
        UserError: an unknown option, with the nearest match, or a value of another type.
    """
    for name in values:
        if name not in options:
            raise unknown("option", f"{group}.{name}", [f"{group}.{known}" for known in options])
    return {
        name: _value(f"{group}.{name}", values[name], option.annotation) if name in values else option.default
        for name, option in options.items()
    }


def _value(name: str, value: Any, annotation: Any) -> Any:
    from pydantic import ValidationError

    words = _words(annotation)
    if isinstance(value, str):
        value = value.lower().replace("-", "_")
        if words and value not in words:
            raise unknown(f"value of {name}", value, words)
    value = _tuples(value)
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError:
        raise UserError(f"{name} is {_shown(value)}; it must be {_described(annotation)}") from None


def _tuples(value: Any) -> Any:
    """`value` with its lists, and the lists in them, as tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


@cache
def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _words(annotation: Any) -> list[str]:
    """The words that an option of words allows; none for other types."""
    return [word for kind in _members(annotation) if get_origin(kind) is Literal for word in get_args(kind)]


def _described(annotation: Any) -> str:
    """A type in words."""
    plain = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word", NoneType: "null"}
    parts = []
    for kind in _members(annotation):
        if get_origin(kind) is Literal:
            parts.append("one of " + ", ".join(map(str, get_args(kind))))
        elif get_origin(kind) is tuple:
            parts.append(_described_list(*get_args(kind)))
        else:
            parts.append(plain.get(kind, str(kind)))
    return " or ".join(parts)


def _described_list(first: Any, *rest: Any) -> str:
    if Ellipsis not in rest:
        return f"a list of {1 + len(rest)} finite numbers"
    if get_origin(first) is tuple:
        return "a list of pairs of finite numbers"
    return "a list of whole numbers" if int in _members(first) else "a list of finite numbers"


def _shown(value: Any) -> str:
    text = repr(_lists(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _lists(value: Any) -> Any:
    """`value` with its tuples, and the tuples in them, as lists, as users write them."""
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def word(name: str, value: Any, allowed: Iterable[str]) -> str:
    """A name among `allowed`: upper and lower case, dashes and underscores are the same.

    Raises:
        UserError: another name, with the nearest match.
    """
    found = str(value).lower().replace("-", "_")
    if found not in allowed:
        raise unknown(name, str(value), allowed)
    return found


def seed(value: Any) -> int:
    """A seed, which numpy limits to 0 .. 2^32 - 1."""
    value = value if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise UserError(f"seed is {_shown(value)}; it must be a whole number from 0 to {2**32 - 1}")
    return value


def device(name: str) -> str:
    """Where to compute, cpu or cuda; auto takes the GPU if there is one.

    Raises:
        UserError: another word, or no GPU.
    """
    import torch

    chosen, there = word("device", name, DEVICES), torch.cuda.is_available()
    if chosen == "cuda" and not there:
        raise UserError("device 'cuda' is not there: torch finds no GPU; use cpu or auto")
    return "cuda" if there and chosen != "cpu" else "cpu"


def layered(levels: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Groups of several levels, weakest first, in one.

    Within a level `train.X` sets `teacher.X` and `student.X` unless the level sets those itself; a stronger level beats
    a weaker one whichever way it says it. The group `train` is gone afterwards.

    Raises:
        UserError: an unknown group, with the nearest match.
    """
    found: dict[str, dict[str, Any]] = {group: {} for group in GROUPS if group != "train"}
    for level in levels:
        for group in level:
            if group not in GROUPS:
                raise unknown("group of options", group, GROUPS)
            if not isinstance(level[group], Mapping):
                raise UserError(f"{group} is {_shown(level[group])}; it must be a mapping of options to values")
        both = level.get("train", {})
        for group, merged in found.items():
            merged.update(both if group in ("teacher", "student") else {})
            merged.update(level.get(group, {}))
    return found


def plain(value: Any) -> Any:
    """`value` as JSON holds it, so that what was written equals what is read."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
