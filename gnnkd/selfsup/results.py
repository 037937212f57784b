"""What a training without labels leaves in its place."""

from __future__ import annotations

from typing import Any

import torch

from gnnkd import processes
from gnnkd.curves import draw
from gnnkd.data.image_task import ImageTask
from gnnkd.images.predictor import ImagePredictor
from gnnkd.places import Place, read_json
from gnnkd.provenance import commit, versions
from gnnkd.selfsup.config import Plan
from gnnkd.selfsup.encoder import Encoder
from gnnkd.selfsup.knn import K, Neighbours, features
from gnnkd.selfsup.nodes import read_by_means
from gnnkd.selfsup.stage import Learnt, learn, scores
from gnnkd.train import checkpoint
from gnnkd.train.images import image_accuracy
from gnnkd.train.progress import Progress

ALONE = "selfsup"
"""What stands where other results have a teacher."""


def run(task: ImageTask, plan: Plan, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
    """Train the networks of a plan, write their files to `place`; the content of `result.json`."""
    learnt = learn(task, plan, progress, place=place, resume=resume)
    first = processes.rank() == 0
    found = [_network(i, task, plan, learnt, place if first else None) for i in range(len(plan.models))]
    reached, counts = learnt.reached, found[0]
    result = {
        "dataset": task.name,
        "protocol": task.protocol,
        "setting": task.setting,
        "teacher_model": ALONE,
        "student_model": "+".join(plan.models),
        "method": plan.method,
        "base": None,
        "seed": task.seed,
        "neighbours": K,
        **counts,
        "nodes": found,
        "epochs": reached.epoch,
        "seconds": round(reached.seconds, 3),
        "images_per_second": round(int(task.split.train.sum()) * reached.epoch / reached.seconds, 1),
        "processes": processes.world(),
        "config": read_json(place.config),
        "versions": versions(),
        "commit": commit(),
    }
    if not first:
        return result
    checkpoint.write_lines(place.metrics, reached.history)
    title = f"{task.name} ({task.protocol}): {result['student_model']} by {plan.method}, seed {task.seed}"
    bare = [{name.replace("/", " "): value for name, value in row.items()} for row in reached.history]
    draw(bare, place.curves, title=title, best_epoch=counts["best_epoch"])
    checkpoint.write_json(place.result, result)
    place.checkpoint.unlink(missing_ok=True)
    return result


def _network(i: int, task: ImageTask, plan: Plan, learnt: Learnt, place: Place | None) -> dict[str, Any]:
    """Accuracies of one network, after the last epoch and at its best one; its backbone's files, if there is a place.

    `test_acc` and `val_acc` are of the neighbours, at the epoch that validates best.
    """
    encoder, best = learnt.encoders[i], learnt.bests[i]
    last = scores(learnt.judge, encoder, task)
    ended = best.epoch == learnt.reached.epoch - 1
    if place and not ended and i == 0:
        _saved(encoder, i, task, plan, learnt.judge).save(place.folder, place.last.name)
    encoder.load_state_dict(dict(best.weights))
    kept = last if ended else scores(learnt.judge, encoder, task)
    predictor = _saved(encoder, i, task, plan, learnt.judge)
    by_means = image_accuracy(predictor.network, task, task.split.test, learnt.judge.settings)
    if place:
        predictor.save(place.folder, place.model.name if i == 0 else f"node{i}.safetensors")
    before = learnt.untrained[i]
    return {
        "model": plan.models[i],
        "test_acc": kept["test"],
        "test_acc_last": last["test"],
        "test_acc_untrained": before["test"],
        "test_acc_means": by_means,
        "val_acc": kept["val"],
        "val_acc_last": last["val"],
        "val_acc_untrained": before["val"],
        "best_epoch": best.epoch,
        "n_parameters": predictor.n_parameters,
    }


def _saved(encoder: Encoder, i: int, task: ImageTask, plan: Plan, judge: Neighbours) -> ImagePredictor:
    """The backbone, its classifier saying which class's mean feature is nearest."""
    backbone, train = encoder.backbone.eval(), task.split.train
    with torch.no_grad():
        read_by_means(backbone, features(backbone, task, train, judge.settings), task.y[train], task.n_classes)
    options = dict(plan.networks[i])
    return ImagePredictor(
        backbone, plan.models[i], options, task.classes, task.mean, task.std, task.size, task.in_channels
    )
