"""A table as text in cells, in no form yet; and how numbers are written in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from gnnkd.compare.statistics import Spread


@final
@dataclass(frozen=True)
class Item:
    """A cell of a table; `mark` is `UP`, `DOWN` or nothing, `notes` are numbers of footnotes."""

    text: str
    best: bool = False
    mark: str = ""
    notes: tuple[int, ...] = ()


@final
@dataclass(frozen=True)
class Grid:
    """A table: the first `names` columns are words, the others numbers; `+-` stands for a plus-minus sign."""

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[Item, ...], ...]
    caption: str
    names: int = 1
    notes: tuple[str, ...] = ()

    def by_first(self) -> Iterator[Grid]:
        """A table for each word of the first of several columns of words, without that column."""
        if self.names < 2:
            yield self
            return
        for word in dict.fromkeys(row[0].text for row in self.body):
            body = tuple(row[1:] for row in self.body if row[0].text == word)
            title = f"{word}: {self.title}"
            yield replace(self, title=title, head=self.head[1:], body=body, names=self.names - 1)


def percent(found: Spread) -> str:
    """A share as percent with its spread."""
    return number(found, 100, ".2f", ".2f")


def number(found: Spread, scale: float, form: str, spread: str) -> str:
    """Mean +- standard deviation, each times `scale` and in its format; the mean alone of one value."""
    deviation = "" if found.std is None else f" +- {scale * found.std:{spread}}"
    return f"{round(scale * found.mean, 6) + 0.0:{form}}{deviation}"
