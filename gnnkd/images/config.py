"""One teacher and one student on one dataset of images: all that determines the result of a run, and how it is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from gnnkd import options, processes
from gnnkd.data import images
from gnnkd.data.folder import LEAST_SIZE
from gnnkd.data.image_split import MOST_VALIDATED
from gnnkd.data.image_task import ImageTask
from gnnkd.errors import UserError
from gnnkd.halves import as_arguments
from gnnkd.images.presets import KINDS
from gnnkd.train.settings import ImageTrainSettings

if TYPE_CHECKING:
    from gnnkd.places import Place
    from gnnkd.train.progress import Progress

NOT_COMPARED = ("checkpoint_every", "workers")
"""Settings without influence on the result."""
ASKING = ("batch_size", "precision", "channels_last", "compile")
"""Settings of training that also say how a network is asked; a published teacher has these alone."""
IDLE = frozenset(field.name for field in dataclasses.fields(ImageTrainSettings)) - frozenset(ASKING)
"""Settings that a published teacher has no use for."""


@final
@dataclass(frozen=True, kw_only=True)
class ImageDataSettings:
    """How a dataset of images is read; None leaves the choice to the data.

    Args:
        val_fraction: share of the training images that validate, in [0, 0.5]; with 0 the last epoch is kept.
        augment: "crop" shifts a training image, "crop_flip" also mirrors it, "none" leaves it; "auto" is the dataset's.
        size: height and width that images of a folder are brought to, >= 8.
        workers: processes that read a folder's files, >= 0; no influence on the result.

    Raises:
        UserError: an option outside its range.
    """

    val_fraction: float = 0.1
    augment: Literal["auto", "none", "crop", "crop_flip"] = "auto"
    size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction <= MOST_VALIDATED:
            raise UserError(f"data.val_fraction is {self.val_fraction}; it must lie in [0, {MOST_VALIDATED}]")
        for name, low in (("size", LEAST_SIZE), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UserError(f"data.{name} is {value}; it must be at least {low}")


@final
@dataclass(frozen=True)
class Published:
    """A checkpoint that stands for a teacher's training: its file, and the SHA-256 of its content."""

    file: Path
    sha256: str


@final
@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """One teacher and one student, on one dataset of images, for any seed.

    `teacher` and `student` are options of the networks, `options` those of the method and of its base. `given` names
    what the user said himself, `group.option`; the rest are presets and defaults. With `published` no teacher is
    trained. `best_on_test` scores the test images after each epoch, and chooses nothing by that. `expected_size` is the
    height and width of images that networks and presets were chosen by, None where that was open.
    """

    dataset: str
    split: str | None
    teacher_model: str
    student_model: str
    method: str
    base: str | None
    base_given: bool
    data: ImageDataSettings
    teacher: Mapping[str, Any]
    teacher_train: ImageTrainSettings
    student: Mapping[str, Any]
    student_train: ImageTrainSettings
    options: Mapping[str, Any]
    given: frozenset[str]
    published: Published | None = None
    best_on_test: bool = False
    expected_size: int | None = None
    setting: ClassVar[str] = "tran"
    logits: ClassVar[None] = None
    DIFFERING: ClassVar[tuple[str, str]] = ("another split or order of images", "other pixels or labels")

    def check_shared(self, role: str, world: int) -> None:
        """Nothing to refuse: any number of processes share a training on images."""

    def check_generators(self) -> None:
        """Nothing to refuse: methods of images learn from no generators."""

    def load(self, root: str | None) -> images.ImageDataset:
        """The dataset, from files below `root` if it has any.

        Raises:
            UserError: it is not there, or damaged.
        """
        return images.load(self.dataset, root=root, size=self.data.size, workers=self.data.workers)

    def task(self, dataset: images.ImageDataset, seed: int) -> ImageTask:
        """What is to be learnt on `dataset` with one seed.

        Raises:
            UserError: the dataset does not have the split, or a set would have no image.
        """
        share, augment = self.data.val_fraction, self.data.augment
        return images.task(dataset, protocol=self.split, seed=seed, val_fraction=share, augment=augment)

    def notes(self, task: ImageTask) -> tuple[str, ...]:
        """What a user should know of the data, and of what a published teacher may have seen."""
        seen = f"{self.published.file} may have been trained on images that validate here" if self.published else ""
        return (*task.notes, *([seen] if seen and bool(task.split.val.any()) else []))

    def check_task(self, task: ImageTask, folder: Path, *, student: bool) -> None:
        """Refuse, before a place is claimed, networks and a method that do not fit a task's images or each other.

        Raises:
            UserError: they do not; or the results in `folder` would lie among the images.
        """
        from gnnkd.images.stages import check

        named = self.dataset.lower().replace("_", "-") in KINDS
        if not named and Path(self.dataset).resolve() in folder.resolve().parents:
            raise UserError(f"results would go to {folder}, among the images; choose another folder with --out")
        if self.expected_size not in (None, task.size):
            raise UserError(
                f"the first image of {self.dataset} has {self.expected_size} x {self.expected_size} pixels and others "
                f"have not, so that all would be brought to {task.size}; say which size with --set data.size=N"
            )
        check(task, self, student=student)

    def describe_teacher(self, task: ImageTask) -> dict[str, Any]:
        """All that determines the teacher's result, as plain values."""
        found, stage = self._where(task), _stage(self.teacher, self.teacher_train)
        if self.published is None:
            return found | {"teacher_model": self.teacher_model, "teacher": stage} | _shared()
        asked = {name: value for name, value in stage.items() if name in (*self.teacher, *ASKING)}
        named = {"teacher_model": self.teacher_model, "teacher": asked}
        return found | named | {"teacher_weights": self.published.sha256}

    def describe_student(self, task: ImageTask, teacher: Mapping[str, Any]) -> dict[str, Any]:
        """All that determines the student's result, as plain values; `teacher` is the description of its teacher."""
        tracked = {"best_on_test": True} if self.best_on_test else {}
        return self._where(task) | tracked | _shared() | {
            "student_model": self.student_model,
            "student": _stage(self.student, self.student_train),
            "method": self.method,
            "base": self.base,
            "options": options.plain(self.options),
            "teacher": dict(teacher),
        }  # fmt: skip

    def _where(self, task: ImageTask) -> dict[str, Any]:
        return {
            "dataset": task.name,
            "protocol": task.protocol,
            "setting": self.setting,
            "seed": task.seed,
            "fingerprint": task.fingerprint,
            "content": task.content,
            "data": _compared(options.plain(self.data)) | {"size": task.size},
        }

    def teacher_arguments(self) -> list[str]:
        """What the user said about data and teacher, as words of a command line."""
        words = ["--teacher_weights", str(self.published.file)] if self.published else []
        values = {f"data.{name}": v for name, v in options.plain(self.data).items()}
        of_teacher = options.plain(self.teacher) | options.plain(self.teacher_train)
        values |= {f"teacher.{name}": v for name, v in of_teacher.items()}
        return words + as_arguments(values, self.given)

    def run_teacher(self, task: ImageTask, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
        """Train a teacher and write its files; the content of `result.json`."""
        from gnnkd.images.results import run_teacher

        return run_teacher(task, self, place, resume=resume, progress=progress)

    def run_student(self, task: ImageTask, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
        """Train a student from the files of its teacher and write its own; the content of `result.json`."""
        from gnnkd.images.results import run_student

        return run_student(task, self, place, resume=resume, progress=progress)


def _stage(network: Mapping[str, Any], train: ImageTrainSettings) -> dict[str, Any]:
    return _compared(options.plain({**network, **dataclasses.asdict(train)}))


def _shared() -> dict[str, Any]:
    """The number of processes, where they are several: batch norms and losses of whole batches see a share."""
    return {"processes": processes.world()} if processes.world() > 1 else {}


def _compared(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in NOT_COMPARED}
