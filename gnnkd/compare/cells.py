"""The cells of a comparison: each is one training, of a teacher or of a student, with one seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gnnkd.compare.entries import Entry, tag_of
from gnnkd.errors import Unfit, UserError

if TYPE_CHECKING:
    from gnnkd.compare.comparison import Comparison
    from gnnkd.graph_config import Config
    from gnnkd.halves import Groups, Plan
    from gnnkd.places import Branch, Place

READY = "logits"
"""Stands for a teacher's network where its logits are ready."""


@final
@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training; without a student it is the teacher's.

    Args:
        dataset: as the user called it.
        setting: `tran` or `ind`.
        teacher_model: a network's name, or `READY`.
        student_model: a network's name.
        entry: how the student is taught.
        seed: of split, initialisation and dropout.
        split: the protocol asked for.
        groups: options for all cells, weakest first, as far as they concern this one.
        generators: of a teacher: whether generators learn beside it.
        ready: the file of the ready logits.
        tuned: trials behind the options that a search has found; 0 where there was none.
        found: those options, by group.
    """

    dataset: str
    setting: str
    teacher_model: str
    student_model: str | None
    entry: Entry | None
    seed: int
    split: str | None = None
    groups: tuple[Groups, ...] = field(default=(), hash=False)
    generators: bool = False
    ready: Path | None = None
    tuned: int = 0
    found: Groups = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """The entry's, or "teacher"."""
        return self.entry.label if self.entry else "teacher"

    @property
    def configuration(self) -> str:
        """What all seeds of it have in common, in a word."""
        return "/".join([self.dataset, self.setting, self.teacher_model, self.student_model or "", self.label])

    @property
    def key(self) -> str:
        """No other cell of a comparison has it."""
        return f"{self.configuration}/{self.seed}"

    @property
    def teacher_key(self) -> str:
        """The key of its teacher."""
        return "/".join([self.dataset, self.setting, self.teacher_model, "", "teacher", str(self.seed)])

    @property
    def title(self) -> str:
        """In a few words."""
        who = f"{self.student_model} by {self.label}" if self.entry else "teacher"
        return f"{Path(self.dataset).stem} {self.setting} {self.teacher_model} {who}, seed {self.seed}"

    @property
    def tag(self) -> str | None:
        """Of the place."""
        mine = self.entry.tag if self.entry else None
        return tag_of([*([mine] if mine else []), *([f"tuned{self.tuned}"] if self.tuned else [])])

    def plan(self) -> Plan:
        """What the command line would make of it.

        Raises:
            UserError: an unknown option, or a value out of range; an `Unfit` where the method cannot teach the student.
        """
        from gnnkd import halves, logits

        said: dict[str, Any] = {"dataset": self.dataset, "setting": self.setting, "teacher_model": self.teacher_model}
        if self.ready is not None:
            said["teacher_model"] = logits.read(self.ready)
        if self.split is not None:
            said["split"] = self.split
        if self.entry is None:
            return halves.plan({**said, "method": "supervised"}, self.groups)
        said |= {"student_model": self.student_model, "method": self.entry.method}
        return halves.plan(said, (*self.groups, self.entry.groups, self.found))

    def config(self) -> Config:
        """The plan, as one of graphs.

        Raises:
            UserError: as `plan`, or it is of images.
        """
        from gnnkd.graph_config import Config

        found = self.plan()
        if not isinstance(found, Config):
            raise UserError(f"'{self.dataset}' is of images; python -m gnnkd.compare compares methods on graphs")
        return found

    def branch(self, out: Path, name: str, protocol: str) -> Branch:
        """The folder of all runs with its teacher; `name` and `protocol` are those of the data and the split."""
        from gnnkd.places import Branch

        return Branch.of(out, name, protocol, self.setting, self.teacher_model)

    def place(self, out: Path, name: str, protocol: str) -> Place:
        """Where its run lies."""
        branch = self.branch(out, name, protocol)
        teacher = None if self.ready else branch.teacher(self.seed)
        if self.entry is None:
            assert teacher is not None, "ready logits are not trained"
            return teacher
        assert self.student_model is not None
        method, base = self.entry.method, self.entry.base
        return branch.student(self.seed, self.student_model, method, teacher, base=base, tag=self.tag)


def cells(comparison: Comparison) -> list[Cell]:
    """All cells, those that cannot be run included: by dataset, setting and teacher, each teacher before its students.

    Raises:
        UserError: an unknown option, or a value out of range.
    """
    return [
        cell
        for dataset in comparison.datasets
        for setting in comparison.settings
        for teacher in comparison.teachers
        for cell in _under(comparison, {"dataset": dataset, "setting": setting, "teacher_model": teacher})
    ]


def _under(comparison: Comparison, where: Mapping[str, str]) -> Iterator[Cell]:
    """The cells of one teacher."""
    shared: dict[str, Any] = {**where, "split": comparison.split, "ready": comparison.ready}
    if comparison.ready is None:
        wants, groups = comparison.of_teacher(where)
        for seed in comparison.seeds:
            yield Cell(**shared, student_model=None, entry=None, seed=seed, groups=groups, generators=wants)
    for student in comparison.students:
        for entry in comparison.entries[student]:
            groups = comparison.of_student(entry, student)
            for seed in comparison.seeds:
                cell = Cell(**shared, student_model=student, entry=entry, seed=seed, groups=groups)
                yield comparison.with_found(cell)


def impossible(cell: Cell) -> str | None:
    """Why a cell can never be run, however its options are spelt; None if it can.

    Raises:
        UserError: an unknown option, or a value out of range.
    """
    try:
        cell.plan()
    except Unfit as unfit:
        return str(unfit)
    return None
