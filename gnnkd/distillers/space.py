"""What a search may try for an option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final


@final
@dataclass(frozen=True)
class Between:
    """A number in [low, high], uniform, or uniform in its logarithm."""

    low: float
    high: float
    log: bool = False


@final
@dataclass(frozen=True)
class Whole:
    """A whole number in [low, high]."""

    low: int
    high: int


@final
@dataclass(frozen=True)
class OneOf:
    """One of some values."""

    values: tuple[float | int | str | bool, ...]


Range: TypeAlias = Between | Whole | OneOf
