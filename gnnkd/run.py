"""What determines the result of a run: names and options, resolved and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch

from gnnkd import distillers, nn, options
from gnnkd.data.graphs import SOURCES
from gnnkd.data.task import PROTOCOLS, SETTINGS, NodeTask
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.errors import UserError
from gnnkd.presets import preset
from gnnkd.train.settings import TrainSettings

Groups = Mapping[str, Mapping[str, Any]]
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
    what the user said himself, `group.option`; the rest are presets and defaults.
    """

    dataset: str
    split: str | None
    setting: str
    teacher_model: str
    student_model: str
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

    def check_generators(self) -> None:
        """Refuse, before anything is trained, a method that needs generators and will have none.

        Raises:
            UserError: it does.
        """
        wraps, chosen = distillers.methods()[self.method].wraps, self.options
        if wraps and self.generators is None and chosen.get("beta") != 0 and chosen.get("k") != 0:
            raise UserError(f"method.generators is false, and {self.method} learns from them; leave it out")

    def describe_teacher(self, task: NodeTask) -> dict[str, Any]:
        """All that determines the teacher's result, as plain values."""
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
    teacher_model: str = "gcn",
    student_model: str = "mlp",
    method: str = "dgd",
    levels: tuple[Groups, ...] = (),
) -> Config:
    """Names and options become a checked configuration.

    Args:
        levels: groups `data teacher student method train` of options, weakest first; presets and defaults stand below.

    Raises:
        UserError: an unknown name or option, a value of a wrong type or out of range.
    """
    split = None if split is None else options.word("split", split, PROTOCOLS)
    setting = options.word("setting", setting, SETTINGS)
    teacher_model = options.word("teacher model", teacher_model, nn.MODELS)
    student_model = options.word("student model", student_model, nn.MODELS)
    method = options.word("method", method, distillers.methods())
    _check_both(levels, teacher_model, student_model)
    low = preset(dataset, split or _natural_split(dataset), teacher_model, student_model)
    groups = options.layered((low, *levels))
    said = options.layered(levels)
    base, of_method, generators = _method(method, groups["method"], nn.needs_graph(student_model))
    teacher, teacher_train = _network("teacher", teacher_model, groups["teacher"])
    student, student_train = _network("student", student_model, groups["student"])
    return Config(
        dataset=dataset,
        split=split,
        setting=setting,
        teacher_model=teacher_model,
        student_model=student_model,
        method=method,
        base=base,
        base_given=said["method"].get("base", "auto") != "auto",
        data=_data(groups["data"]),
        teacher=teacher,
        teacher_train=teacher_train,
        student=student,
        student_train=student_train,
        options=of_method,
        generators=generators,
        given=_given(said, wraps=base is not None),
    )


def _given(said: Groups, *, wraps: bool) -> frozenset[str]:
    """What the user said, by the keys of a description; generators matter only to a method that reads them."""
    names = {f"{group}.{name}" for group, values in said.items() for name in values}
    return frozenset(names | ({f"generators.{name}" for name in said["method"]} if wraps else set()))


def _check_both(levels: tuple[Groups, ...], teacher_model: str, student_model: str) -> None:
    """Mistakes in the group `train` are named as such, before its options are handed to the two stages."""
    of_teacher, of_student = options.of(nn.MODELS[teacher_model]), options.of(nn.MODELS[student_model])
    common = {name: option for name, option in of_teacher.items() if name in of_student}
    for level in levels:
        options.checked("train", level.get("train", {}), common | options.of(TrainSettings))


def _natural_split(dataset: str) -> str:
    """The protocol of a dataset known by name where none is asked for; other datasets have no presets."""
    source = SOURCES.get(dataset.lower().replace("_", "-"))
    return "public" if source is not None and source.published else "cpf"


def _data(values: Mapping[str, Any]) -> DataSettings:
    settings = DataSettings(**options.checked("data", values, options.of(DataSettings)))
    if settings.k is not None and settings.k < 1:
        raise UserError(f"data.k is {settings.k}; it must be at least 1")
    return settings


def _network(group: str, model: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], TrainSettings]:
    """Options of a network and of its training; ranges are checked where they are used, on a network without memory."""
    of_network, of_training = options.of(nn.MODELS[model]), options.of(TrainSettings)
    found = options.checked(group, values, of_network | of_training)
    try:
        with torch.device("meta"):
            nn.MODELS[model](1, 2, **{name: found[name] for name in of_network})
        return {name: found[name] for name in of_network}, TrainSettings(**{n: found[n] for n in of_training})
    except UserError as mistake:
        raise UserError(f"{group}: {mistake}") from None
    except RuntimeError:  # sizes beyond what a tensor can have
        raise UserError(
            f"{group}: layers and width make no network that a machine can hold; give smaller ones"
        ) from None


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
