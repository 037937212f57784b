"""What is compared, in words: `glnn`, `dgd(krd)`, `fitnet:kd_weight=1:weight=100`, or a student's own name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from gnnkd.errors import UserError, unknown

LONGEST = 64
"""Characters of a tag."""
_HEX = 8


@final
@dataclass(frozen=True)
class Entry:
    """One way to teach a student.

    Args:
        label: as the user called it.
        method: a key of `distillers.graph_methods()`.
        base: what a wrapping method wraps; None leaves it to the student, or there is nothing to wrap.
        options: of the method and its base that the word gives.
        student: options of the student's network and its training that the word gives.
    """

    label: str
    method: str
    base: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    student: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def tag(self) -> str | None:
        """The options as a part of a folder's name; None without options."""
        said = {**self.options, **{f"student.{name}": value for name, value in self.student.items()}}
        return tag_of([f"{name}-{value}" for name, value in said.items()])

    @property
    def groups(self) -> dict[str, dict[str, Any]]:
        """The options by group."""
        method = {**self.options, **({"base": self.base} if self.base else {})}
        return {"method": method, "student": dict(self.student)}


def tag_of(parts: Sequence[str]) -> str | None:
    """Parts of a tag in one; what a folder cannot be called, or is too long, is replaced by a digest of the whole."""
    said = "+".join(parts)
    if not said or re.fullmatch(rf"\w[\w.+-]{{0,{LONGEST - 1}}}", said, flags=re.ASCII):
        return said or None
    plain = re.sub(r"[^\w.+-]", "_", said, flags=re.ASCII)[: LONGEST - _HEX - 1]
    return f"{plain}-{hashlib.sha256(said.encode()).hexdigest()[:_HEX]}"


def entries(words: Iterable[str], student: str) -> tuple[Entry, ...]:
    """The entries for one student, those that come to the same once.

    A network's name stands for that network trained on labels alone; it concerns the student of that name only.

    Raises:
        UserError: an unknown method, or a word that is not made as it must be.
    """
    found: dict[tuple[Any, ...], Entry] = {}
    for word in words:
        entry = _entry(word, student)
        if entry is not None:
            found.setdefault((entry.method, entry.base, entry.tag), entry)
    return tuple(found.values())


def split(said: Iterable[str]) -> tuple[str, ...]:
    """The words in a text, or in several, separated by commas or spaces."""
    return tuple(dict.fromkeys(word for text in said for word in re.split(r"[,\s]+", text) if word))


def _entry(word: str, student: str) -> Entry | None:
    from gnnkd import nn

    name, *pairs = word.split(":")
    method, base = _names(name, word)
    if method in nn.MODELS:
        if method != student:
            return None
        method = "supervised"
    options: dict[str, dict[str, Any]] = {"method": {}, "student": {}}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        group, dot, option = path.lower().replace("-", "_").rpartition(".")
        if not equals or not option or not text or (dot and group not in options):
            raise UserError(
                f"'{word}': '{pair}' must be option=value, as in fitnet:kd_weight=1 or glnn:student.lr=.001"
            )
        options[group or "method"][option] = _value(text)
    inner = options["method"].pop("base", base)
    if base is not None and inner != base:
        raise UserError(f"'{word}' names two bases, {base} and {inner}; give one of them")
    return Entry(word, *_checked(word, method, inner), options["method"], options["student"])


def _names(name: str, word: str) -> tuple[str, str | None]:
    """A method and its base: `dgd(krd)` and `dgd+krd` are the same."""
    plain = name.lower().replace("-", "_")
    found = re.fullmatch(r"(\w+)(?:\((\w+)\)|\+(\w+))?", plain, flags=re.ASCII)
    if found is None:
        raise UserError(f"'{word}' is no method; say it as glnn, dgd(krd) or fitnet:kd_weight=1")
    return found[1], found[2] or found[3]


def _checked(word: str, method: str, base: str | None) -> tuple[str, str | None]:
    from gnnkd import distillers, nn

    there = distillers.graph_methods()
    if method not in there and method in distillers.image_methods():
        raise UserError(
            f"'{word}': {method} teaches networks of images, and python -m gnnkd.compare compares methods on graphs"
        )
    if method not in there:
        raise unknown("method", method, [*there, *nn.MODELS])
    if base is None or str(base) == "auto":
        return method, None
    if not there[method].wraps:
        wrapping = ", ".join(name for name, kind in there.items() if kind.wraps)
        raise UserError(f"'{word}': {method} wraps no other method; those that do are {wrapping}")
    plain = [name for name, kind in there.items() if not kind.wraps]
    if base not in plain:
        raise unknown("base", str(base), plain)
    return method, base


def _value(text: str) -> Any:
    """A number, true, false or null, a list of one of them in brackets; everything else is a word."""
    if text[0] + text[-1] == "[]":  # more would be separated by commas, as words are
        return [_value(text[1:-1])]
    plain = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
