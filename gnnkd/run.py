"""Names and options of a run on a graph, resolved and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gnnkd import batching, distillers, models, options, presets
from gnnkd.data.graphs import SOURCES
from gnnkd.data.task import PROTOCOLS, SETTINGS
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.errors import Unfit, UserError
from gnnkd.graph_config import Config, DataSettings
from gnnkd.logits import Logits
from gnnkd.models import Groups
from gnnkd.nn import MODELS
from gnnkd.nn.network import Layer

__all__ = ["Config", "DataSettings", "resolve"]


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
        UserError: an unknown name or option, a value of a wrong type or out of range; an `Unfit` where names and
            options are good, and cannot go together.
    """
    split = None if split is None else options.word("split", split, PROTOCOLS)
    setting = options.word("setting", setting, SETTINGS)
    taught = teacher_model if isinstance(teacher_model, Logits) else models.chosen("teacher model", teacher_model)
    learner = models.chosen("student model", student_model)
    method = _method_name(method)
    models.check_levels(levels, taught, learner)
    low = models.presets(dataset, split or _natural_split(dataset), taught, learner)
    said = options.layered(levels)
    groups = options.layered((low, {"method": _preset(dataset, setting, method, said["method"])}, *levels))
    base, of_method, generators = _method(method, groups["method"], models.needs_graph(learner))
    for name in (method, *([base] if base else [])):
        _check_student(name, learner)
    teacher, teacher_train = models.settings("teacher", taught, groups["teacher"])
    student, student_train = models.settings("student", learner, groups["student"])
    for name in (method, *([base] if base else [])):
        _check_layers(name, learner, student)
    _check_curved(method, student, of_method)
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
    batching.check(config)
    if config.logits is not None:
        config.check_lesson()
    return config


def _method_name(said: str) -> str:
    there = distillers.graph_methods()
    if str(said).lower().replace("-", "_") in distillers.image_methods().keys() - there.keys():
        raise UserError(
            f"method '{said}' teaches networks of images; on a graph there are {', '.join(sorted(there))} "
            "(digits are images with --dataset digits-images)"
        )
    return options.word("method", said, there)


def _preset(dataset: str, setting: str, method: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is published for the method on this dataset; of a method around another one, for that."""
    named = str(said.get("base", "auto")).lower().replace("-", "_")
    inner = named if distillers.graph_methods()[method].wraps else method
    return presets.of_method(dataset, setting, inner)


def _check_student(method: str, learner: models.Model) -> None:
    """Refuse a student that a method does not teach.

    Raises:
        Unfit: it does not.
    """
    kind, name, on_graph = distillers.graph_methods()[method], models.name(learner), models.needs_graph(learner)
    if on_graph and not kind.on_graphs:
        raise Unfit(f"{method} teaches students that look at rows alone, and {name} passes messages; use mlp")
    if not on_graph and not kind.on_rows:
        raise Unfit(f"{method} teaches students that pass messages, and {name} looks at rows alone; use gcn or sage")
    if not isinstance(learner, str) and not kind.wraps and kind.learner is not distillers.Distiller.learner:
        raise Unfit(f"{method} builds its student around a network of gnnkd's own, and {name} is a module; use mlp")


def _check_layers(method: str, learner: models.Model, options: Mapping[str, Any]) -> None:
    """Refuse a student without hidden rows, of a method that compares them; a module is asked when it has seen data.

    Raises:
        Unfit: it is one.
    """
    least = distillers.graph_methods()[method].least_layers
    if least == 1 or not isinstance(learner, str):
        return
    with torch.device("meta"):
        network = MODELS[learner](1, 2, **options)
    if sum(isinstance(part, Layer) for part in network.modules()) < least:
        deeper = "student.layers=2" if "layers" in options else "a student such as gcn"
        raise Unfit(
            f"{method} compares hidden rows, and {learner} with one layer of weights has none; use {deeper}, or a "
            "method of logits such as glnn"
        )


def _check_curved(method: str, student: Mapping[str, Any], of_method: Mapping[str, Any]) -> None:
    """Refuse a student in which a method that weights by curvature would change nothing.

    Behind a layer norm, as behind a softmax, a gradient sums to zero over the outputs, whatever the weights are.

    Raises:
        Unfit: it is one.
    """
    if (
        distillers.graph_methods()[method].wraps
        and student.get("norm") == "layer"
        and of_method.get("control") != "flat"
    ):
        raise Unfit(
            f"student.norm is 'layer': the curvature that {method} weights by is zero behind layer norms, so it would "
            "change nothing; set student.norm=batch or none, or method.control=flat"
        )


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
    if settings.k is not None and settings.graph == "given":
        raise UserError(f"data.k is {settings.k}, and data.graph=given takes the edges as they are: leave one out")
    return settings


def _method(
    method: str, values: Mapping[str, Any], student_needs_graph: bool
) -> tuple[str | None, dict[str, Any], GeneratorSettings | None]:
    """The base's name, the options of the method and its base, and those of the generators, None for no generators."""
    base, own = None, options.of(distillers.graph_methods()[method])
    if distillers.graph_methods()[method].wraps:
        plain_ones = [name for name, kind in distillers.graph_methods().items() if not kind.wraps]
        base = options.word("value of method.base", values.get("base", "auto"), ["auto", *plain_ones])
        base = distillers.default_base(student_needs_graph) if base == "auto" else base
        own = options.of(distillers.graph_methods()[base]) | own | {"base": options.Option(str, "auto")}
    of_generators = options.of(GeneratorSettings)
    switch = {"generators": options.Option(bool, True)}
    # An option that both know, as `preset`, reaches both.
    found = options.checked("method", values, switch | of_generators | own)
    mine = {name: found[name] for name in own if name != "base"}
    told = {name: found[name] for name in of_generators if name in values}
    try:
        distillers.build(
            method, None, base=base or "auto", student_needs_graph=student_needs_graph, on_graphs=True, **mine
        )
        settings = GeneratorSettings(**told).resolved()
    except ValueError as mistake:
        raise UserError(str(mistake)) from None
    return base, mine | ({"base": base} if base else {}), settings if found["generators"] else None
