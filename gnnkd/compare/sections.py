"""The rows of a comparison, put in order: a section for each setting, teacher and student, a cell for each method and
data set in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from gnnkd.compare.statistics import Difference, Spread, differences, spread

TEACHER = "teacher"
FINISHED = "finished"
Row = Mapping[str, Any]


@final
@dataclass(frozen=True)
class Cell:
    """All seeds of one method on one data set."""

    label: str
    dataset: str
    rows: tuple[Row, ...]

    @cached_property
    def finished(self) -> tuple[Row, ...]:
        """Those that have numbers, by seed."""
        return tuple(sorted((row for row in self.rows if row["status"] == FINISHED), key=lambda row: row["seed"]))

    @cached_property
    def reasons(self) -> dict[str, list[Any]]:
        """Why the others have none, as "status: reason", with their seeds."""
        found: dict[str, list[Any]] = {}
        for row in self.rows:
            if row["status"] != FINISHED:
                why = row.get("reason")
                said = WORDS[row["status"]]
                found.setdefault(f"{said}: {why}" if why else str(said), []).append(row["seed"])
        return found

    @property
    def first(self) -> Row:
        """A row that says what all have in common, a finished one if there is any."""
        return (*self.finished, *self.rows)[0]

    def values(self, name: str) -> dict[int, float]:
        """A number of the results by seed; `measures/NAME` is one of the measures."""
        group, _, key = name.rpartition("/")
        found = {row["seed"]: (row.get(group) or {} if group else row).get(key) for row in self.finished}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, name: str) -> Spread | None:
        """Mean and spread of a number; None where no seed has it."""
        return spread(list(self.values(name).values()))

    @property
    def costs(self) -> Mapping[str, Any]:
        """The costs, those of the first seed that has some."""
        return next((row["costs"] for row in self.finished if row.get("costs")), {})


WORDS = {"impossible": "cannot run", "failed": "failed", "missing": "not run"}
"""What a status without numbers is called."""


@final
@dataclass(frozen=True)
class Section:
    """What is compared with one another: methods of one student, in one setting, under one teacher.

    `cells` are by label, the teacher first, and data set.
    """

    setting: str
    teacher: str
    student: str
    cells: Mapping[str, Mapping[str, Cell]]
    against: str

    @property
    def title(self) -> str:
        """In words."""
        setting = {"tran": "transductive (tran)", "ind": "inductive (ind)"}.get(self.setting, self.setting)
        return f"{setting}, teacher {self.teacher}, student {self.student}"

    @property
    def key(self) -> str:
        """In a word, as a part of a name."""
        return f"{self.setting}-{self.teacher}-{self.student}"

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """In the order of the rows."""
        return tuple(dict.fromkeys(name for cells in self.cells.values() for name in cells))

    @property
    def labels(self) -> tuple[str, ...]:
        """The methods, without the teacher."""
        return tuple(label for label in self.cells if label != TEACHER)

    @property
    def protocols(self) -> dict[str, str]:
        """The split of each data set."""
        return {cell.dataset: cell.first["protocol"] for cell in self.every()}

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds asked for."""
        return tuple(sorted({row["seed"] for cell in self.every() for row in cell.rows}))

    def every(self) -> Iterator[Cell]:
        """All cells, those of the teacher first."""
        for cells in self.cells.values():
            yield from cells.values()

    def named(self, label: str) -> str:
        """How a row is called; of a method around another one that the user did not name, with that."""
        if label == TEACHER:
            return f"teacher ({self.teacher})"
        bases = {cell.first.get("base") or "" for cell in self.cells[label].values()} - {""}
        unsaid = sorted(base for base in bases if base not in label)
        return f"{label} (on {', '.join(unsaid)})" if unsaid else label

    def values(self, label: str, name: str) -> dict[str, dict[int, float]]:
        """A number by data set and seed."""
        return {dataset: cell.values(name) for dataset, cell in self.cells.get(label, {}).items()}

    def differences(self, label: str, name: str = "test_acc") -> dict[str, Difference]:
        """A method minus the reference, by data set; nothing of the reference itself."""
        if label == self.against:
            return {}
        return differences(self.values(label, name), self.values(self.against, name))

    def best(self, dataset: str, name: str = "test_acc") -> frozenset[str]:
        """The methods with the highest mean, where there are several to choose from."""
        found = {
            label: self.cells[label][dataset].spread(name) for label in self.labels if dataset in self.cells[label]
        }
        means = {label: round(one.mean, 6) for label, one in found.items() if one is not None}
        return frozenset(label for label in means if len(means) > 1 and means[label] == max(means.values()))


def sections(rows: Sequence[Row], against: str) -> list[Section]:
    """The sections in the order of the rows; a teacher belongs to each section under it."""
    teachers: dict[tuple[str, str], list[Row]] = {}
    students: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        where = (row["setting"], row["teacher_model"])
        if row["student_model"] is None:
            teachers.setdefault(where, []).append(row)
        else:
            students.setdefault((*where, row["student_model"]), []).append(row)
    return [
        Section(setting, teacher, student, _cells([*teachers.get((setting, teacher), []), *own]), against)
        for (setting, teacher, student), own in students.items()
    ]


def _cells(rows: Sequence[Row]) -> dict[str, dict[str, Cell]]:
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        label = TEACHER if row["student_model"] is None else row["label"]
        found.setdefault(label, {}).setdefault(row["dataset"], []).append(row)
    return {
        label: {dataset: Cell(label, dataset, tuple(own)) for dataset, own in cells.items()}
        for label, cells in found.items()
    }
