"""The network of a stage: one of the house's by name and options, or a module of the user's, taken as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from gnnkd import nn, options
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.images.networks import known
from gnnkd.logits import NAME, Logits
from gnnkd.nn.own import Own, copied
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
    if known(said) is not None and said.lower() not in nn.MODELS:
        raise UserError(
            f"{what} '{said}' is a network of images, and this dataset is a graph; choose one of "
            f"{', '.join(sorted(nn.MODELS))}"
        )
    return options.word(what, said, nn.MODELS)


def name(model: Teacher) -> str:
    """What results call it."""
    return NAME if isinstance(model, Logits) else model if isinstance(model, str) else model.name


def needs_graph(model: Model) -> bool:
    """Whether it passes messages along edges."""
    return nn.needs_graph(model) if isinstance(model, str) else model.graph


def reads_weights(model: Model) -> bool:
    """Whether the weights of edges matter to it; a module is called with the edges alone."""
    return isinstance(model, str) and nn.reads_weights(model)


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
    """A fresh network for a task, on its device; a module is copied and tried once, in eval mode and in training.

    Args:
        given: options of the constructor.
        role: "teacher" or "student", for errors.

    Raises:
        UserError: a module that fails, returns something else than logits [N, C], changes its inputs, keeps its graph,
            or has nothing that can be trained.
    """
    if isinstance(model, str):
        return nn.MODELS[model](task.n_features, task.n_classes, **given).to(task.y.device)
    if any(getattr(part, "cached", False) is True for part in model.modules()):
        raise UserError(
            f"the {role} keeps the first graph that it sees (cached=True), whatever graph it is asked about later; "
            "make it with cached=False"
        )
    return _tried(model, task, role)


def _tried(model: Own, task: NodeTask, role: str) -> Own:
    """A copy that has seen the data, so that its lazy layers have their sizes."""
    # The module sees copies: what it changes must not be the data's.
    x = task.x.clone() if isinstance(task.x, torch.Tensor) else task.x.dense()
    inputs = {"x": x, "edge_index": task.graph.edge_index}
    fresh = [tensor._version for tensor in inputs.values()]
    with _trial(model, task, role):
        network = copied(model).to(task.y.device).eval()
        with torch.no_grad():
            columns = network(*inputs.values()).logits.shape[1]
        if columns != task.n_classes:
            raise UserError(f"{model.name} returns {columns} columns; the data has {task.n_classes} classes")
        weights = [p for p in network.parameters() if p.requires_grad]
        if not weights:
            way_out = "give its logits as a teacher instead" if role == "teacher" else "set requires_grad=True on some"
            raise UserError(f"{model.name} has no weight to train; {way_out}")
        untrained = copied(network.module)
        logits = network.train()(*inputs.values()).logits
        if not logits.requires_grad or not _reached(logits, weights):
            raise UserError(f"{model.name} returns logits that no weight has a gradient of: detached, or under no_grad")
        for (name, tensor), version in zip(inputs.items(), fresh, strict=True):
            if tensor._version != version:
                raise UserError(f"{model.name} changes {name} in place; let it work on a copy, as {name}.clone()")
        network.module = untrained
    return network.eval()


def _reached(logits: torch.Tensor, weights: Sequence[torch.Tensor]) -> bool:
    return any(g is not None for g in torch.autograd.grad(logits.sum(), weights, allow_unused=True))


@contextmanager
def _trial(model: Own, task: NodeTask, role: str) -> Iterator[None]:
    """A module's mistakes become the user's, in a line; the random state stays."""
    with torch.random.fork_rng(devices=[task.y.device] if task.y.device.type == "cuda" else []):
        try:
            yield
        except UserError as mistake:
            raise UserError(f"the {role}: {mistake}") from None
        # The module is the user's: whatever it raises is news to him, with his own lines in the traceback.
        except Exception as problem:
            said = " ".join(str(problem).split())
            shape = f"x [{task.n_nodes}, {task.n_features}]" + (", edge_index" if model.graph else "")
            edges = f"; if it takes {'no ' if model.graph else ''}edges, say so with gnnkd.nn.own.Own(module, graph="
            way_out = f"{edges}{not model.graph})" if isinstance(problem, TypeError) else ""
            raise UserError(
                f"the {role} {model.name} fails on {shape}: {type(problem).__name__}: {said}{way_out}"
            ) from problem
