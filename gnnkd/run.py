"""What determines the result of a run: names and options, resolved and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from torch import nn

from gnnkd import distillers, models, options
from gnnkd.data.graphs import SOURCES
from gnnkd.data.task import PROTOCOLS, SETTINGS, NodeTask
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.errors import UserError
from gnnkd.logits import Logits
from gnnkd.models import Groups, Model, Teacher
from gnnkd.train.settings import TrainSettings

NOT_COMPARED = ("checkpoint_every",)
"""Settings without influence on the result."""


@final
@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How a dataset is read; None leaves the choice to the data.

    Args:
        undirected: add the mirror of each edge.
        normalise: divide each row of features by its sum ("row") or not ("raw"); "auto" follows the protocol.
        k: neighbours of a node, for graphs made from features, >= 1.
        fractions: of training, validation and test, under the split `random`.
    """

    undirected: bool = True
    normalise: Literal["auto", "row", "raw"] = "auto"
    k: int | None = None
    fractions: tuple[float, float, float] | None = None


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

    @property
    def wants_generators(self) -> bool:
        """Whether the method learns from generators, with the options that it has."""
        wraps, chosen = distillers.methods()[self.method].wraps, self.options
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
            UserError: it does.
        """
        if self.wants_generators:
            instead = distillers.default_base(models.needs_graph(self.student_network))
            raise UserError(
                f"{self.method} learns from generators, which are learnt while a teacher trains; with ready logits use "
                f"the method {instead}, or train a teacher"
            )

    def describe_teacher(self, task: NodeTask) -> dict[str, Any]:
        """All that determines the teacher's result, as plain values."""
        if self.logits is not None:
            return self.logits.describe()
        return _where(self, task) | {
            "teacher_model": self.teacher_model,
            "teacher": _stage(self.teacher, self.teacher_train),
            "generators": options.plain(self.generators),
        }

    def describe_student(self, task: NodeTask, teacher: Mapping[str, Any]) -> dict[str, Any]:
        """All that determines the student's result, as plain values; `teacher` is the description of its teacher."""
        return _where(self, task) | {
            "student_model": self.student_model,
            "student": _stage(self.student, self.student_train),
            "method": self.method,
            "base": self.base,
            "options": options.plain(self.options),
            "teacher": dict(teacher),
        }


def _where(config: Config, task: NodeTask) -> dict[str, Any]:
    return {
        "dataset": task.name,
        "protocol": task.protocol,
        "setting": task.setting,
        "seed": task.seed,
        "fingerprint": task.fingerprint,
        "content": task.content,
        "data": options.plain(config.data) | {"normalise": task.features},
    }


def _stage(network: Mapping[str, Any], train: TrainSettings) -> dict[str, Any]:
    both = {**network, **dataclasses.asdict(train)}
    return {name: options.plain(value) for name, value in both.items() if name not in NOT_COMPARED}


def resolve(
    dataset: str = "digits",
    *,
    split: str | None = None,
    setting: str = "tran",
    teacher_model: str | nn.Module | Logits = "gcn",
    student_model: str | nn.Module = "mlp",
    method: str = "dgd",
    levels: tuple[Groups, ...] = (),
) -> Config:
    """Names and options become a checked configuration.

    Args:
        teacher_model: a name, a module, or ready logits.
        student_model: a name, or a module.
        levels: groups `data teacher student method train` of options, weakest first; presets and defaults stand below.

    Raises:
        UserError: an unknown name or option, a value of a wrong type or out of range.
    """
    split = None if split is None else options.word("split", split, PROTOCOLS)
    setting = options.word("setting", setting, SETTINGS)
    taught = teacher_model if isinstance(teacher_model, Logits) else models.chosen("teacher model", teacher_model)
    learner = models.chosen("student model", student_model)
    method = options.word("method", method, distillers.methods())
    models.check_levels(levels, taught, learner)
    low = models.presets(dataset, split or _natural_split(dataset), taught, learner)
    groups = options.layered((low, *levels))
    said = options.layered(levels)
    base, of_method, generators = _method(method, groups["method"], models.needs_graph(learner))
    teacher, teacher_train = models.settings("teacher", taught, groups["teacher"])
    student, student_train = models.settings("student", learner, groups["student"])
    config = Config(
        dataset=dataset,
        split=split,
        setting=setting,
        teacher_network=taught,
        student_network=learner,
        method=method,
        base=base,
        base_given=said["method"].get("base", "auto") != "auto",
        data=_data(groups["data"]),
        teacher=teacher,
        teacher_train=teacher_train,
        student=student,
        student_train=student_train,
        options=of_method,
        generators=None if isinstance(taught, Logits) else generators,
        given=_given(said, wraps=base is not None),
    )
    if config.logits is not None:
        config.check_lesson()
    return config


def _given(said: Groups, *, wraps: bool) -> frozenset[str]:
    """What the user said, by the keys of a description; generators matter only to a method that reads them."""
    names = {f"{group}.{name}" for group, values in said.items() for name in values}
    return frozenset(names | ({f"generators.{name}" for name in said["method"]} if wraps else set()))


def _natural_split(dataset: str) -> str:
    """The protocol of a dataset known by name where none is asked for; other datasets have no presets."""
    source = SOURCES.get(dataset.lower().replace("_", "-"))
    return (source.protocol if source is not None else None) or "cpf"


def _data(values: Mapping[str, Any]) -> DataSettings:
    settings = DataSettings(**options.checked("data", values, options.of(DataSettings)))
    if settings.k is not None and settings.k < 1:
        raise UserError(f"data.k is {settings.k}; it must be at least 1")
    return settings


def _method(
    method: str, values: Mapping[str, Any], student_needs_graph: bool
) -> tuple[str | None, dict[str, Any], GeneratorSettings | None]:
    """The base's name, the options of the method and its base, and those of the generators, None for no generators."""
    base, own = None, options.of(distillers.methods()[method])
    if distillers.methods()[method].wraps:
        plain_ones = [name for name, kind in distillers.methods().items() if not kind.wraps]
        base = options.word("value of method.base", values.get("base", "auto"), ["auto", *plain_ones])
        base = distillers.default_base(student_needs_graph) if base == "auto" else base
        own = options.of(distillers.methods()[base]) | own | {"base": options.Option(str, "auto")}
    of_generators = options.of(GeneratorSettings)
    switch = {"generators": options.Option(bool, True)}
    # An option that both know, as `preset`, reaches both.
    found = options.checked("method", values, switch | of_generators | own)
    mine = {name: found[name] for name in own if name != "base"}
    told = {name: found[name] for name in of_generators if name in values}
    try:
        distillers.build(method, None, base=base or "auto", student_needs_graph=student_needs_graph, **mine)
        settings = GeneratorSettings(**told).resolved()
    except ValueError as mistake:
        raise UserError(str(mistake)) from None
    return base, mine | ({"base": base} if base else {}), settings if found["generators"] else None
