"""Nodes that are trained alone before the others: the stage `tea` of their networks, in its place or in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from gnnkd import processes, stages
from gnnkd.claims import claim, differences, undisturbed
from gnnkd.data.image_task import ImageTask
from gnnkd.data.task import NodeTask
from gnnkd.images import stages as image_stages
from gnnkd.images.config import ImageConfig
from gnnkd.ktg.plans import Plan, Plans
from gnnkd.ktg.spec import Spec
from gnnkd.places import Branch, Place, read_json, summarise
from gnnkd.train.progress import Progress

GENERATORS = "generators"
"""What a teacher of graphs may learn beside its training, without influence on it."""


def described(plan: Plan, task: NodeTask | ImageTask) -> dict[str, Any]:
    """All that determines the network."""
    return _plain(_described(plan, task))


def _described(plan: Plan, task: Any) -> dict[str, Any]:
    return plan.describe_teacher(task)


def _plain(description: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in description.items() if name != GENERATORS}


def network(plan: Plan, task: NodeTask | ImageTask, progress: Progress) -> nn.Module:
    """Train one without files."""
    if isinstance(plan, ImageConfig):
        assert isinstance(task, ImageTask)
        return image_stages.train_teacher(task, plan, progress).predictor.network
    assert isinstance(task, NodeTask)
    return stages.train_teacher(task, replace(plan, generators=None), progress).predictor.network


def settled(
    plans: Plans,
    task: NodeTask | ImageTask,
    root: Path,
    progress: Progress,
    *,
    tag: str | None = None,
    apart: bool = False,
    resume: bool = False,
) -> Spec:
    """Train the nodes that are trained alone, or find them; the graph with their files as weights.

    In its place each is what the stage `tea` leaves there, on graphs with generators beside it, so that a command that
    learns from a teacher finds one.

    Args:
        root: `OUT/D/<protocol>-<setting>`; a network's place is `<model>/teacher/seed<k>` in it.
        tag: where the plain place is taken by another configuration, that is the place's.
        apart: the place is the tagged one, whatever the plain one holds.
        resume: continue an interrupted training.

    Raises:
        UserError: the place is taken by another configuration, or by an unfinished training (without `resume`).
    """
    nodes = list(plans.spec.nodes)
    for i in plans.spec.alone():
        branch = Branch(root / plans.model(i))
        place = branch.teacher(task.seed, tag) if apart else _place(plans.nodes[i], task, branch, tag)
        _train(plans.nodes[i], task, place, progress, resume=resume)
        nodes[i] = replace(nodes[i], weights=str(place.model))
    return replace(plans.spec, nodes=tuple(nodes))


def _place(plan: Plan, task: NodeTask | ImageTask, branch: Branch, tag: str | None) -> Place:
    untagged = branch.teacher(task.seed)
    if tag is None or not untagged.config.exists() or _is_there(untagged, described(plan, task)):
        return untagged
    # One that was interrupted there continues there, generators and all.
    begun = not differences(read_json(untagged.config), _described(plan, task))
    return untagged if begun else branch.teacher(task.seed, tag)


def _is_there(place: Place, wanted: Mapping[str, Any]) -> bool:
    return place.finished and place.config.exists() and not differences(_plain(read_json(place.config)), wanted)


def _train(plan: Plan, task: NodeTask | ImageTask, place: Place, progress: Progress, *, resume: bool) -> None:
    """As the stage `tea` of a command; of several processes the first one claims and writes."""
    first = processes.rank() == 0
    there = first and _is_there(place, described(plan, task))
    wanted = _described(plan, task)
    with undisturbed(place):
        if processes.any_of(first and not there and claim(place, wanted, plan.DIFFERING, resume=resume)):
            _run(plan, task, place, progress, resume=resume)
            if first:
                summarise(place)
    processes.any_of(False)  # nobody reads before all is written


def _run(plan: Plan, task: Any, place: Place, progress: Progress, *, resume: bool) -> None:
    plan.run_teacher(task, place, resume=resume, progress=progress)
