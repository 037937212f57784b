"""What people write about a graph of networks, checked value by value; each check raises a `UserError`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gnnkd import distillers, options
from gnnkd.errors import UserError, unknown
from gnnkd.train.together.gates import GATES
from gnnkd.train.together.node import allowed, plain

KL = "kl"
"""The loss of an edge between two nodes where none is named: T^2 KL(source || node)."""


def method(said: Any, where: str) -> str:
    """The name of a method that an edge may have, with its base if it has one: `logitstd(gkd)`."""
    found = str(said).lower().replace("-", "_").replace(" ", "")
    name, there = found.partition("(")[0], [*allowed(), KL]
    there.remove("supervised")  # it hears no source
    if name in distillers.methods() and not plain(distillers.methods()[name]):
        raise UserError(f"{where}: {name} has gradients of its own; choose one of {', '.join(sorted(there))}")
    if name not in there:
        raise UserError(f"{where}: {unknown('method of an edge', str(said), there)}")
    return found


def above_zero(said: Any, where: str) -> float:
    """A finite number above 0."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < math.inf:
        raise UserError(f"{where} is {said!r}; it must be a number above 0")
    return float(said)


def gates(said: Any, n: int) -> tuple[tuple[str, ...], ...]:
    """The matrix [n, n] of names of gates."""
    size = f"it must have {n} rows of {n} gates, one for each of the {n} nodes" if n > 1 else "it must be [[through]]"
    if not isinstance(said, Sequence) or isinstance(said, str):
        what = "are missing" if said is None else f"is {said!r}"
        raise UserError(f"the graph: gates {what}; {size}")
    if len(said) != n:
        raise UserError(f"the graph: gates has {_many(len(said), 'row')}; {size}")
    rows = []
    for i, row in enumerate(said):
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != n:
            many = (
                f"has {_many(len(row), 'gate')}"
                if isinstance(row, Sequence) and not isinstance(row, str)
                else f"is {row!r}"
            )
            raise UserError(f"the graph: row {i} of gates {many}; {size}")
        rows.append(tuple(_gate(one, i, j) for j, one in enumerate(row)))
    return tuple(rows)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _gate(said: Any, i: int, j: int) -> str:
    try:
        name = options.word("gate", said, GATES)
    except UserError as mistake:
        raise UserError(f"edge {i}<-{j}: {mistake}") from None
    if name == "correct" and i == j:
        raise UserError(
            f"edge {i}<-{i}: the gate correct asks what a source gets right, and labels are always; choose through"
        )
    return name


def mapping(said: Any, where: str) -> dict[str, Any]:
    """A mapping with words for keys."""
    if not isinstance(said, Mapping):
        raise UserError(f"{where} is {said!r}; it must be a mapping of names to values")
    return {str(key): value for key, value in said.items()}


def words(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Names of options as they are written inside."""
    return {name.lower().replace("-", "_"): value for name, value in tree.items()}


def check_keys(tree: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse a key that nobody reads, with the nearest one that is."""
    for key in tree:
        if key not in known:
            raise unknown(f"key of {where}:", key, known)
