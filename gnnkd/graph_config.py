"""One teacher and one student on one graph: all that determines the result of a run, and how it is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from gnnkd import distillers, models, options, processes
from gnnkd.data.dataset import NodeDataset
from gnnkd.data.row_store import LEAST
from gnnkd.data.task import NodeTask
from gnnkd.data.task import task as make_task
from gnnkd.distillers.base import Distiller
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.errors import Unfit, UserError
from gnnkd.halves import as_arguments
from gnnkd.logits import Logits
from gnnkd.models import Model, Teacher
from gnnkd.train.settings import TrainSettings, said

if TYPE_CHECKING:
    from gnnkd.places import Place
    from gnnkd.train.progress import Progress

NOT_COMPARED = ("checkpoint_every",)
"""Settings without influence on the result."""


@final
@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How a dataset is read; None leaves the choice to the data.

    Args:
        undirected: add the mirror of each edge.
        normalise: divide each row of features by its sum ("row") or not ("raw"); "auto" follows the protocol.
        graph: "given" takes the data's edges; "knn" joins each node to its k nearest by its features; "uem" to the k
            most alike by unified edge measurement, with weights, which gat, monet and modules of the user's do not look
            at (a note says so); None is "given" where there are edges, else "knn".
        k: neighbours of a node, for graphs made of features, >= 1; None is 8.
        fractions: of training, validation and test, under the split `random`.
        storage: type in which the teacher's logits on all rows are kept for students: "float16" takes half the disk and
            has three digits; accuracies of the teacher are of what is kept.
    """

    undirected: bool = True
    normalise: Literal["auto", "row", "raw"] = "auto"
    graph: Literal["given", "knn", "uem"] | None = None
    k: int | None = None
    fractions: tuple[float, float, float] | None = None
    storage: Literal["float32", "float16"] = "float32"


@final
@dataclass(frozen=True, kw_only=True)
class Config:
    """One teacher and one student, on one dataset, for any seed.

    `teacher` and `student` are options of the networks, `options` those of the method and of its base. `given` names
    what the user said himself, `group.option`; the rest are presets and defaults. Ready logits may stand for the
    teacher's network; then no teacher is trained.
    """

    dataset: str
    split: str | None
    setting: str
    teacher_network: Teacher
    student_network: Model
    method: str
    base: str | None
    base_given: bool
    data: DataSettings
    teacher: Mapping[str, Any]
    teacher_train: TrainSettings
    student: Mapping[str, Any]
    student_train: TrainSettings
    options: Mapping[str, Any]
    generators: GeneratorSettings | None
    given: frozenset[str]
    DIFFERING: ClassVar[tuple[str, str]] = ("another split, graph or order of nodes", "other features or labels")
    """What another `fingerprint`, and another `content`, of a task mean."""

    @property
    def logits(self) -> Logits | None:
        """Ready logits, where no teacher is trained."""
        return self.teacher_network if isinstance(self.teacher_network, Logits) else None

    @property
    def teacher_model(self) -> str:
        """The teacher's network, as results call it."""
        return models.name(self.teacher_network)

    @property
    def student_model(self) -> str:
        """The student's network, as results call it."""
        return models.name(self.student_network)

    def load(self, root: str | None) -> NodeDataset:
        """The dataset, from files below `root` if it has any.

        Raises:
            UserError: it is not there, is damaged, or is not what ready logits are of.
        """
        from gnnkd import batching
        from gnnkd.data.graphs import load

        data, half = self.data, batching.casts_rows(self)
        dataset = load(self.dataset, root=root, undirected=data.undirected, graph=data.graph, k=data.k, half=half)
        if self.logits is not None:
            self.logits.check(dataset)
        return dataset

    def task(self, dataset: NodeDataset, seed: int) -> NodeTask:
        """What is to be learnt on `dataset` with one seed.

        Raises:
            UserError: the dataset does not have the split or the setting.
        """
        return make_task(
            dataset,
            protocol=self.split,
            seed=seed,
            setting=self.setting,
            normalise=self.data.normalise,
            fractions=self.data.fractions,
        )

    def notes(self, task: NodeTask) -> tuple[str, ...]:
        """What a user should know of the data, of networks that do not use all of it, and of ready logits."""
        return (*task.notes, *self._unweighted(task), *(self.logits.notes_on(task) if self.logits else ()))

    def _unweighted(self, task: NodeTask) -> tuple[str, ...]:
        """Which networks pass messages along weighted edges without their weights."""
        if task.graph.adjacency.value is None:
            return ()
        networks = [n for n in (self.teacher_network, self.student_network) if not isinstance(n, Logits)]
        blind = dict.fromkeys(models.name(n) for n in networks if models.needs_graph(n) and not models.reads_weights(n))
        return tuple(f"{name} looks at the edges, not at their weights" for name in blind)

    def check_task(self, task: NodeTask, folder: Path, *, student: bool) -> None:
        """Refuse, before a place is claimed, ready logits that do not fit a task, and a stage without room.

        Raises:
            UserError: they do not, or there is none.
        """
        from gnnkd import stage_room

        if self.logits is not None:
            self.logits.on(task)
        stage_room.check(task, self, folder, teacher=not student, student=student)

    def check_shared(self, role: str, world: int) -> None:
        """Refuse several processes for a stage that they cannot share, before anything is trained.

        Raises:
            UserError: it learns on all nodes at once, or on batches that are too small.
        """
        if world == 1:
            return
        size = (self.teacher_train if role == "teacher" else self.student_train).batch_size
        if size is None:
            raise UserError(
                f"{world} processes cannot share the {role}'s training, which is on all nodes at once: start it "
                f"without torchrun, or train it on batches with {role}.batch_size"
            )
        if size < LEAST * world:
            raise UserError(
                f"{role}.batch_size is {size}; it must be at least {LEAST * world}, {LEAST} for each of {world} "
                "processes"
            )

    def run_teacher(self, task: NodeTask, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
        """Train a teacher and write its files; the content of `result.json`."""
        from gnnkd.results import run_teacher

        return run_teacher(task, self, place, resume=resume, progress=progress)

    def run_student(self, task: NodeTask, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
        """Train a student from the files of its teacher and write its own; the content of `result.json`."""
        from gnnkd.results import run_student

        return run_student(task, self, place, resume=resume, progress=progress)

    @property
    def reads_features(self) -> bool:
        """Whether the method, or its base, reads more of the teacher than its logits."""
        return any(kind.reads_maps or kind.asks_teacher for kind in self.kinds)

    @property
    def kinds(self) -> tuple[type[Distiller], ...]:
        """The method, and its base if it has one."""
        there = distillers.graph_methods()
        return (there[self.method], *([there[self.base]] if self.base else []))

    @property
    def wants_generators(self) -> bool:
        """Whether the method learns from generators, with the options that it has."""
        wraps, chosen = self.kinds[0].wraps, self.options
        return wraps and chosen.get("beta") != 0 and chosen.get("k") != 0

    def check_generators(self) -> None:
        """Refuse, before anything is trained, a method that needs generators and will have none.

        Raises:
            UserError: it does.
        """
        if self.wants_generators and self.generators is None:
            raise UserError(f"method.generators is false, and {self.method} learns from them; leave it out")

    def check_lesson(self) -> None:
        """Refuse a method that learns from more than the logits that there are.

        Raises:
            Unfit: it does.
        """
        if self.wants_generators:
            instead = distillers.default_base(models.needs_graph(self.student_network))
            raise Unfit(
                f"{self.method} learns from generators, which are learnt while a teacher trains; with ready logits use "
                f"the method {instead}, or train a teacher"
            )
        if self.reads_features:
            asks = any(kind.asks_teacher for kind in self.kinds)
            why = (
                "asks its teacher about other features, and ready logits cannot answer"
                if asks
                else "reads a teacher's features, and ready logits have none"
            )
            raise Unfit(
                f"{self.base or self.method} {why}; use "
                f"{distillers.default_base(models.needs_graph(self.student_network))}, or train a teacher"
            )

    def describe_teacher(self, task: NodeTask) -> dict[str, Any]:
        """All that determines the teacher's result, as plain values."""
        if self.logits is not None:
            return self.logits.describe()
        return _where(self, task) | {
            "teacher_model": self.teacher_model,
            "teacher": _stage(self.teacher, self.teacher_train),
            "generators": options.plain(self.generators),
            **_shared(self.teacher_train),
        }

    def describe_student(self, task: NodeTask, teacher: Mapping[str, Any]) -> dict[str, Any]:
        """All that determines the student's result, as plain values; `teacher` is the description of its teacher.

        Generators learn beside a teacher and change nothing of it: they concern the students that learn from them.
        """
        heard = {name: value for name, value in teacher.items() if name != "generators" or self.wants_generators}
        return _where(self, task) | {
            "student_model": self.student_model,
            "student": _stage(self.student, self.student_train),
            "method": self.method,
            "base": self.base,
            "options": said(options.plain(self.options)),
            **_shared(self.student_train),
            "teacher": heard,
        }

    def teacher_arguments(self) -> list[str]:
        """What the user said about data and teacher, as words of a command line."""
        values = {f"data.{name}": v for name, v in options.plain(self.data).items()}
        of_teacher = options.plain(self.teacher) | options.plain(self.teacher_train)
        values |= {f"teacher.{name}": v for name, v in of_teacher.items()}
        generators = options.plain(self.generators) or {}
        values |= {f"method.{name}": v for name, v in generators.items() if f"generators.{name}" in self.given}
        return as_arguments(values, self.given)


def _where(config: Config, task: NodeTask) -> dict[str, Any]:
    return {
        "dataset": task.name,
        "protocol": task.protocol,
        "setting": task.setting,
        "seed": task.seed,
        "fingerprint": task.fingerprint,
        "content": task.content,
        "data": said(options.plain(config.data) | {"normalise": task.features}),
    }


def _stage(network: Mapping[str, Any], train: TrainSettings) -> dict[str, Any]:
    both = {**network, **dataclasses.asdict(train)}
    return said({name: options.plain(value) for name, value in both.items() if name not in NOT_COMPARED})


def _shared(train: TrainSettings) -> dict[str, int]:
    """The number of processes, where several share a stage: each draws its own neighbours and dropout."""
    return {} if train.batch_size is None else processes.several()
