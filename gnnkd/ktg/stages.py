"""A graph of networks is trained; no files but checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from gnnkd import models
from gnnkd.data.image_task import ImageTask
from gnnkd.data.task import NodeTask
from gnnkd.graph.split import Split
from gnnkd.graph_config import Config
from gnnkd.images import networks
from gnnkd.images.predictor import ImagePredictor
from gnnkd.ktg import alone
from gnnkd.ktg.plans import Plans, planned
from gnnkd.ktg.spec import Spec
from gnnkd.places import Place, read_json
from gnnkd.predictor import Predictor
from gnnkd.train.fit import Fit
from gnnkd.train.fit import Progress as Run
from gnnkd.train.progress import Bar, Progress
from gnnkd.train.seeding import seeded
from gnnkd.train.together.bests import Best
from gnnkd.train.together.gates import gate
from gnnkd.train.together.minibatches import TogetherMinibatches
from gnnkd.train.together.node import Edge, Node
from gnnkd.train.together.whole import TogetherWhole

Task: TypeAlias = NodeTask | ImageTask
Report: TypeAlias = Callable[[int, float], None]
"""Hears an epoch, from 0, and node 0's validation accuracy after it; may raise to end the training."""


@final
@dataclass(frozen=True)
class Reached:
    """A graph of networks after its training.

    Args:
        plans: what was trained.
        predictors: each node's network with its best weights, in eval mode.
        bests: each node's best validation accuracy and its epoch.
        run: epochs, history and seconds; `last` are the weights of all nodes after the last epoch.
        task: what was learnt, without validation rows where they joined the training.
    """

    plans: Plans
    predictors: tuple[Predictor | ImagePredictor, ...]
    bests: tuple[Best, ...]
    run: Run
    task: Task

    @property
    def score(self) -> float | None:
        """Node 0's best validation accuracy; None where nothing validates."""
        return self.bests[0].score

    def last(self, node: int) -> dict[str, Tensor]:
        """A node's weights after the last epoch."""
        start = f"{node}."
        return {name.removeprefix(start): t for name, t in self.run.last.items() if name.startswith(start)}


def run(
    task: Task,
    spec: Spec,
    progress: Progress,
    *,
    place: Place | None = None,
    resume: bool = False,
    report: Report | None = None,
    retrain: bool = False,
) -> Reached:
    """Train a graph of networks on a task.

    Nodes that are trained alone first are so in memory; `alone.settled` finds them in their places.

    Args:
        place: where checkpoints go, described already; None keeps none.
        resume: continue from a checkpoint.
        report: hears node 0's score after each epoch.
        retrain: validation rows join the training, and the last epoch is kept.

    Raises:
        UserError: names, options, weights or methods that do not fit.
    """
    plans = planned(spec, task.seed)
    frozen = {i: alone.network(plans.nodes[i], task, progress) for i in spec.alone()}
    with seeded(task):
        fit, course = _fit(plans, task, frozen, place, retrain=retrain)
        if resume and fit.file is not None and fit.file.exists():
            fit.restore()
        title = f"{len(spec.nodes)} networks, {plans.model(0)} first, seed {task.seed}"
        with progress.stage(title, fit.settings.epochs) as bar:
            reached = fit.run(bar if report is None else _Told(bar, report))
    for node, best in zip(course.nodes, course.bests, strict=True):
        node.model.load_state_dict(dict(best.weights))
    learnt = [node.model.eval() for node in course.nodes]
    predictors = tuple(predictor(plans, i, network, task) for i, network in enumerate(learnt))
    return Reached(plans, predictors, tuple(course.bests), reached, retrained(task) if retrain else task)


def check(task: Task, spec: Spec) -> None:
    """Refuse, before anything is trained or written, what would fail later: all is made, and shown some rows.

    Raises:
        UserError: as `run`.
    """
    plans = planned(spec, task.seed)
    with seeded(task):
        _fit(plans, task, {i: network(plans, i, task) for i in spec.alone()}, None, retrain=False)


def retrained(task: Task) -> Task:
    """The task whose validation rows train."""
    split = task.split
    return replace(task, split=Split(split.train | split.val, torch.zeros_like(split.val), split.test))


def network(plans: Plans, node: int, task: Task) -> nn.Module:
    """A fresh network for a node, on the task's device."""
    name, given = plans.model(node), plans.options(node)
    if isinstance(task, NodeTask):
        return models.built(name, given, task, f"node {node}")
    return networks.built(name, task.size, task.in_channels, task.n_classes, given).to(task.y.device)


def predictor(plans: Plans, node: int, learnt: nn.Module, task: Task) -> Predictor | ImagePredictor:
    """A node's network with what it needs to be used again."""
    name, given = plans.model(node), plans.options(node)
    if isinstance(task, ImageTask):
        return ImagePredictor(learnt, name, given, task.classes, task.mean, task.std, task.size, task.in_channels)  # type: ignore[arg-type]
    assert isinstance(plans.first, Config)
    undirected = plans.first.data.undirected
    return Predictor(learnt, name, given, task.classes, task.features, task.n_features, undirected, task.made)


def _fit(
    plans: Plans, task: Task, frozen: Mapping[int, nn.Module], place: Place | None, *, retrain: bool
) -> tuple[Fit, TogetherWhole | TogetherMinibatches]:
    nodes = [_node(plans, i, task, frozen.get(i)) for i in range(len(plans.nodes))]
    learnt = retrained(task) if retrain else task
    course: TogetherWhole | TogetherMinibatches
    if isinstance(learnt, NodeTask):
        course = TogetherWhole(nodes, learnt.batch(learnt.split.train), (learnt.y, learnt.split.val), seed=task.seed)
    else:
        course = TogetherMinibatches(nodes, learnt, seed=task.seed, views=learnt.augment.views)
    key = json.dumps(read_json(place.config), sort_keys=True) if place else ""
    return Fit(course, plans.settings(0), file=place.checkpoint if place else None, key=key), course


def _node(plans: Plans, i: int, task: Task, ready: nn.Module | None) -> Node:
    model = _model(plans, i, task) if ready is None else ready
    edges = tuple(
        Edge(None if j == i else j, plans.distiller(i, j), gate(name), plans.factor(i, j))
        for node, j, name in plans.spec.links()
        if node == i
    )
    return Node(plans.model(i), model, plans.settings(i), edges, frozen=plans.spec.frozen(i))


def _model(plans: Plans, i: int, task: Task) -> nn.Module:
    weights = plans.weights.get(i)
    if weights is None:
        return network(plans, i, task)
    weights.check_split(task)
    # A network that is read draws nothing: the others begin as they would beside it.
    with torch.random.fork_rng(devices=[task.y.device] if task.y.device.type == "cuda" else []):
        found = network(plans, i, task)
    weights.fill(found, task)
    return found


@final
class _Told:
    """A bar that says the score to someone else, too."""

    def __init__(self, bar: Bar, report: Report) -> None:
        self._bar, self._report = bar, report

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        self._bar.update(epoch, values)
        if "val_acc" in values:
            self._report(epoch, values["val_acc"])

    def within(self, epoch: int, share: float) -> None:
        self._bar.within(epoch, share)
