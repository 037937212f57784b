"""One trial of a search: students of one entry, with some settings, scored by validation; they leave no files."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, final

from gnnkd import options, results
from gnnkd.compare.cells import Cell
from gnnkd.compare.spaces import Groups
from gnnkd.compare.training import Desk
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.graph_config import NOT_COMPARED, Config
from gnnkd.places import Branch, Place
from gnnkd.stages import train_student
from gnnkd.train.progress import Silent
from gnnkd.train.settings import said


@final
@dataclass(frozen=True)
class Subject:
    """What a study is of: an entry of a comparison on one dataset, in one setting, with one teacher and one student.

    Args:
        cell: a student's, of any seed.
        branch: the folder of the runs with its dataset, protocol, setting and teacher.
        data_root: folder of the raw data.
        device: `cpu` or `cuda`.
    """

    cell: Cell
    branch: Branch
    data_root: str | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Of the study: `<dataset>/<protocol>-<setting>/<teacher>/<student>/<label>`."""
        return "/".join((*self.branch.folder.parts[-3:], str(self.cell.student_model), self.cell.label))

    @property
    def names(self) -> dict[str, Any]:
        """What is tuned, as a line of results names it."""
        cell = self.cell
        assert cell.entry is not None
        *_, dataset, where, teacher = self.branch.folder.parts
        return {
            "dataset": dataset,
            "protocol": where.rpartition("-")[0],
            "setting": cell.setting,
            "teacher_model": teacher,
            "student_model": cell.student_model,
            "label": cell.label,
            "method": cell.entry.method,
        }

    def plan(self, settings: Groups) -> Config:
        """The configuration with some settings.

        Raises:
            UserError: an unknown name, or an option out of range.
        """
        return replace(self.cell, tuned=0, found=settings).config()

    def teacher(self, seed: int) -> Place | None:
        """Where its teacher lies; None where there are ready logits."""
        return None if self.cell.ready is not None else self.branch.teacher(seed)


@final
@dataclass(frozen=True)
class Trial:
    """The trial `number` of a study: some settings, and the seeds that they are tried on. A work for a pool."""

    subject: Subject
    number: int
    settings: Groups
    seeds: tuple[int, ...]

    @property
    def key(self) -> str:
        """No other trial has it."""
        return f"{self.subject.name}/trial {self.number}"

    @property
    def title(self) -> str:
        """In a few words."""
        return f"{self.subject.name}, trial {self.number}"

    @property
    def after(self) -> None:
        """Nothing: the teachers are there."""
        return

    @property
    def group(self) -> tuple[Hashable, ...]:
        """Trials on one dataset share it."""
        return (self.subject.cell.dataset, self.subject.cell.setting, self.subject.cell.teacher_model)

    def do(self, kept: dict[Any, Any]) -> list[float]:
        """The validation accuracy of each seed, in [0, 1]; nothing is written.

        Raises:
            UserError: as `validated`.
        """
        subject, config = self.subject, self.subject.plan(self.settings)
        desk: Desk = kept.setdefault(Desk, Desk(subject.data_root, subject.device))
        return [validated(desk.task(config, seed), config, subject.teacher(seed)) for seed in self.seeds]


def validated(task: NodeTask, config: Config, teacher: Place | None) -> float:
    """Validation accuracy, in [0, 1], of the best epoch of a student that learns from the files of a teacher.

    Raises:
        UserError: it cannot be trained, its loss diverges, nothing validates, or the files are of something else.
    """
    if not bool(task.split.val.any()):
        raise UserError(f"--tune compares validation accuracies, and no row of {task.name} validates")
    logits, bank, asked = results.lesson(task, config, teacher)
    return train_student(task, config, logits, bank, Silent(), asked=asked).reached.best_score


def described(config: Config) -> dict[str, Any]:
    """What determines a student, but its data and its teacher, as plain values."""
    student = {**config.student, **options.plain(config.student_train)}
    found: dict[str, Any] = options.plain(
        {
            "student": said({name: value for name, value in student.items() if name not in NOT_COMPARED}),
            "method": config.method,
            "base": config.base,
            "options": config.options,
        }
    )
    return found
