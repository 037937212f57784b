"""A training without labels, from networks to what they have learnt; no files but checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from torch import nn

from gnnkd.data.image_task import ImageTask
from gnnkd.places import Place, read_json
from gnnkd.selfsup.config import Plan
from gnnkd.selfsup.encoder import Encoder
from gnnkd.selfsup.knn import Neighbours
from gnnkd.selfsup.nodes import features_of, lars, nodes
from gnnkd.selfsup.pairs import Pairs
from gnnkd.train.fit import Fit
from gnnkd.train.fit import Progress as Reached
from gnnkd.train.progress import Progress
from gnnkd.train.seeding import seeded
from gnnkd.train.together.bests import Best
from gnnkd.train.together.minibatches import TogetherMinibatches
from gnnkd.train.together.node import Node, checked

Scores = Mapping[str, float]
PARTS = ("val", "test")


@final
@dataclass(frozen=True)
class Learnt:
    """What a training came to.

    Args:
        encoders: one for each network of the plan, with its weights of the last epoch.
        bests: of each, in the same order.
        untrained: accuracies of the neighbours before the first step, of each, by part.
        reached: of the training.
        judge: who asked, in float32 whatever the precision of the training.
    """

    encoders: tuple[Encoder, ...]
    bests: tuple[Best, ...]
    untrained: tuple[Scores, ...]
    reached: Reached
    judge: Neighbours


def made(task: ImageTask, plan: Plan) -> tuple[Node, ...]:
    """The nodes of a plan with first weights by the task's seed, on its device.

    Raises:
        UserError: networks, gates or options that do not fit.
    """
    with seeded(task):
        backbones = {
            i: (name, backbone, features_of(backbone, task.in_channels, task.size))
            for i, (name, backbone) in enumerate(zip(plan.models, plan.backbones(task), strict=True))
        }
        found = nodes(backbones, plan.objective, plan.train, plan.gates, temperature=plan.temperature)
    for node in found:
        node.model.to(task.y.device)
    return checked(found)


def scores(judge: Neighbours, model: nn.Module, task: ImageTask) -> Scores:
    """Accuracy of the neighbours by part."""
    return {part: judge.accuracy(model, getattr(task.split, part)) for part in PARTS}


def learn(
    task: ImageTask, plan: Plan, progress: Progress, *, place: Place | None = None, resume: bool = False
) -> Learnt:
    """Train the networks of a plan on a task.

    Args:
        task: on the device that computes.
        place: where checkpoints go, its description written; None keeps none.
        resume: continue from a checkpoint that is there.
    """
    members = made(task, plan)
    judge = Neighbours(task, task.y, task.n_classes, replace(plan.train, precision="float32"))
    encoders = tuple(node.model for node in members if isinstance(node.model, Encoder))[: len(plan.models)]
    untrained = tuple(scores(judge, encoder, task) for encoder in encoders)
    with seeded(task):
        course = TogetherMinibatches(
            members,
            Pairs(task, plan.views_of(task)),
            seed=task.seed,
            make_optimizer=lars(plan.lars.trust, matrices=plan.lars.matrices),
            judge=lambda model: judge.accuracy(model, task.split.val),
            rows_each=2,
        )
        key = json.dumps(read_json(place.config), sort_keys=True) if place else ""
        fit = Fit(course, plan.train, file=place.checkpoint if place else None, key=key)
        if resume and fit.file is not None and fit.file.exists():
            fit.restore()
        with progress.stage(f"{', '.join(plan.models)} by {plan.method}, seed {task.seed}", plan.train.epochs) as bar:
            reached = fit.run(bar)
    course.model.load_state_dict(reached.last)
    return Learnt(encoders, tuple(course.bests[: len(encoders)]), untrained, reached, judge)
