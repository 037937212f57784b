"""What a method says of an option outside its range or list; NaN and infinity lie outside every range."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

W = TypeVar("W", bound=str)


def above_zero(name: str, value: float) -> float:
    """`value`, if it is a finite number above 0.

    Raises:
        ValueError: it is not.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"method.{name} is {value}; it must be a finite number above 0")
    return value


def at_least(name: str, value: float, low: float) -> float:
    """`value`, if it is a finite number of at least `low`.

    Raises:
        ValueError: it is not.
    """
    if not low <= value < math.inf:
        raise ValueError(f"method.{name} is {value}; it must be a finite number of at least {low}")
    return value


def fraction(name: str, value: float) -> float:
    """`value`, if it lies in [0, 1].

    Raises:
        ValueError: it does not.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"method.{name} is {value}; it must lie in [0, 1]")
    return value


def below_one(name: str, value: float) -> float:
    """`value`, if it lies in [0, 1).

    Raises:
        ValueError: it does not.
    """
    if not 0 <= value < 1:
        raise ValueError(f"method.{name} is {value}; it must lie in [0, 1)")
    return value


def word(name: str, value: W, allowed: Iterable[str]) -> W:
    """`value`, if it is one of the words `allowed`.

    Raises:
        ValueError: it is not.
    """
    words = list(allowed)
    if value not in words:
        raise ValueError(f"method.{name} is {value!r}; it must be one of {', '.join(words)}")
    return value
