"""The network of a stage: one of the house's by name and options, or a module of the user's, taken as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch

from gnnkd import nn, options
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.logits import NAME, Logits
from gnnkd.nn.own import Own
from gnnkd.presets import preset
from gnnkd.train.settings import TrainSettings

Groups = Mapping[str, Mapping[str, Any]]
Model: TypeAlias = str | Own
"""A key of `nn.MODELS`, or a module."""
Teacher: TypeAlias = Model | Logits
"""What a student learns from: a network to be trained, or ready logits."""


def chosen(what: str, said: object) -> Model:
    """A network by name, or a module.

    Args:
        what: how errors call it.
        said: a key of `nn.MODELS`, whatever its case, or a `torch.nn.Module`.

    Raises:
        UserError: an unknown name, with the nearest match, or something else.
    """
    if isinstance(said, torch.nn.Module):
        return said if isinstance(said, Own) else Own(said)
    if not isinstance(said, str):
        kind = f"the class {said.__name__}" if isinstance(said, type) else f"a {type(said).__name__}"
        raise UserError(f"{what} is {kind}; give a name, or a torch.nn.Module made already")
    return options.word(what, said, nn.MODELS)


def name(model: Teacher) -> str:
    """What results call it."""
    return NAME if isinstance(model, Logits) else model if isinstance(model, str) else model.name


def needs_graph(model: Model) -> bool:
    """Whether it passes messages along edges."""
    return nn.needs_graph(model) if isinstance(model, str) else model.graph


def options_of(model: Teacher) -> dict[str, options.Option]:
    """The options of its constructor; a module has been made already."""
    return options.of(nn.MODELS[model]) if isinstance(model, str) else {}


def settings(group: str, model: Teacher, values: Mapping[str, Any]) -> tuple[dict[str, Any], TrainSettings]:
    """Options of a network and of its training; ranges are checked where they are used, on a network without memory.

    Raises:
        UserError: an unknown option, a value out of range, or an option of networks for a module.
    """
    if isinstance(model, Logits):
        return {}, TrainSettings()
    of_network, of_training = options_of(model), options.of(TrainSettings)
    if not isinstance(model, str):
        _check_made(group, model, values)
    found = options.checked(group, values, of_network | of_training)
    mine = {name: found[name] for name in of_network}
    try:
        if isinstance(model, str):
            with torch.device("meta"):
                nn.MODELS[model](1, 2, **mine)
        return mine, TrainSettings(**{n: found[n] for n in of_training})
    except UserError as mistake:
        raise UserError(f"{group}: {mistake}") from None
    except RuntimeError:  # sizes beyond what a tensor can have
        raise UserError(
            f"{group}: layers and width make no network that a machine can hold; give smaller ones"
        ) from None


def _check_made(group: str, model: Own, values: Mapping[str, Any]) -> None:
    of_networks = {option for key in nn.MODELS for option in options_of(key)}
    for option in values:
        if option in of_networks and option not in options.of(TrainSettings):
            raise UserError(
                f"{group}.{option} is an option of gnnkd's own networks, and {model.name} is a module made already: "
                "leave it out, or make the module so"
            )


def check_levels(levels: Iterable[Groups], teacher: Teacher, student: Model) -> None:
    """Name mistakes in the group `train` as such, before its options are handed to the two stages.

    Raises:
        UserError: an option that not both networks have, or one of a teacher where ready logits stand for it.
    """
    common = options_of(student)
    if not isinstance(teacher, Logits):
        common = {name: option for name, option in options_of(teacher).items() if name in common}
    for level in levels:
        for model in (teacher, student):
            if isinstance(model, Own):
                _check_made("train", model, level.get("train", {}))
        options.checked("train", level.get("train", {}), common | options.of(TrainSettings))
        if isinstance(teacher, Logits) and level.get("teacher"):
            said = ", ".join(f"teacher.{name}" for name in level["teacher"])
            raise UserError(f"{said}: ready logits need no teacher's training; leave it out")


def presets(dataset: str, split: str, teacher: Teacher, student: Model) -> Groups:
    """Presets, as far as they are options of the networks."""
    networks = {"teacher": teacher, "student": student}
    keys = [model if isinstance(model, str) else "" for model in networks.values()]
    low = preset(dataset, split, *keys)
    known = options.of(TrainSettings)
    return {
        group: {
            name: value
            for name, value in low[group].items()
            if not isinstance(model, Logits) and name in known | options_of(model)
        }
        for group, model in networks.items()
    }


def built(model: Model, given: Mapping[str, Any], task: NodeTask, role: str) -> torch.nn.Module:
    """A fresh network for a task, on its device; a module is copied and tried once, in eval mode.

    Args:
        given: options of the constructor.
        role: "teacher" or "student", for errors.

    Raises:
        UserError: a module that fails, returns something else than logits [N, C], or has nothing to train.
    """
    if isinstance(model, str):
        return nn.MODELS[model](task.n_features, task.n_classes, **given).to(task.y.device)
    if task.whole is not None and any(getattr(part, "cached", False) is True for part in model.modules()):
        raise UserError(
            f"the {role} keeps the first graph that it sees (cached=True), and the setting 'ind' asks it about three; "
            "make it with cached=False"
        )
    network = _tried(model, task, role)
    if not any(p.requires_grad for p in network.parameters()):
        raise UserError(f"the {role} {model.name} has no weight to train; give its logits as a teacher instead")
    return network


@torch.no_grad()
def _tried(model: Own, task: NodeTask, role: str) -> Own:
    """A copy that has seen the data once, so that its lazy layers have their sizes; the random state stays."""
    with torch.random.fork_rng(devices=[task.y.device] if task.y.device.type == "cuda" else []):
        try:
            network = copy.deepcopy(model).to(task.y.device).eval()
            columns = network(task.x, task.graph).logits.shape[1]
        except UserError as mistake:
            raise UserError(f"the {role}: {mistake}") from None
        # The module is the user's: whatever it raises is news to him, with his own lines in the traceback.
        except Exception as problem:
            said = " ".join(str(problem).split())
            shape = f"x [{task.n_nodes}, {task.n_features}]"
            raise UserError(f"the {role} {model.name} fails on {shape}: {type(problem).__name__}: {said}") from problem
    if columns != task.n_classes:
        raise UserError(f"the {role} returns {columns} columns; the data has {task.n_classes} classes")
    return network
