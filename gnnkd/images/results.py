"""The two stages on images with their files: what a run leaves in its place, and whom a student learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gnnkd import processes
from gnnkd.curves import draw
from gnnkd.data.image_task import ImageTask
from gnnkd.images import predictor as saved
from gnnkd.images.config import ImageConfig
from gnnkd.images.stages import Trained, train_student, train_teacher
from gnnkd.places import BEST_ON_TEST, Place, read_json, read_result
from gnnkd.provenance import commit, versions
from gnnkd.train import checkpoint
from gnnkd.train.fit import Progress as Reached
from gnnkd.train.images import image_accuracy
from gnnkd.train.progress import Progress
from gnnkd.train.settings import ImageTrainSettings

Scores = dict[str, Any]


def run_teacher(
    task: ImageTask, config: ImageConfig, place: Place, *, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Train a teacher, or read its published weights; write its files to `place`; the content of `result.json`."""
    taught = train_teacher(task, config, progress, place=place, resume=resume)
    found = _scores(task, place, taught, config.teacher_train)
    named = {"student_model": None, "method": "teacher", "base": None}
    return _finish(task, config, place, taught, found, named | _of_teacher(found))


def run_student(
    task: ImageTask, config: ImageConfig, place: Place, *, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Train a student beside the teacher of its place, write its files to `place`; the content of `result.json`.

    Raises:
        UserError: the teacher's files are damaged.
    """
    assert place.teacher is not None
    result = read_result(place.teacher.result)
    teacher = saved.load(place.teacher.model).network
    learnt = train_student(task, config, teacher, progress, place=place, resume=resume)
    found = _scores(task, place, learnt, config.student_train)
    named = {"student_model": config.student_model, "method": config.method, "base": config.base}
    return _finish(task, config, place, learnt, found, named | _of_teacher(result))


def _of_teacher(result: Mapping[str, Any]) -> Scores:
    names = ("test_acc", "test_acc_last")
    return {f"teacher_{name}": result[name] for name in names if name in result}


def _scores(task: ImageTask, place: Place, trained: Trained, settings: ImageTrainSettings) -> Scores:
    """Accuracies by forward passes; the network's last weights are written beside the best where they differ.

    `test_acc` is of the epoch that validates best. Where nothing validates it is of the last one, and `val_acc` null.
    All are asked in float32, as a saved network is, whatever the precision of the training and of its metrics.
    """
    settings = replace(settings, precision="float32")
    network, reached = trained.predictor.network, trained.reached
    best = image_accuracy(network, task, task.split.test, settings)
    val = image_accuracy(network, task, task.split.val, settings) if bool(task.split.val.any()) else None
    if reached is None:
        return {"test_acc": best, "val_acc": val}
    last = best
    if reached.best_epoch != reached.epoch - 1:
        network.load_state_dict(reached.last)
        last = image_accuracy(network, task, task.split.test, settings)
        if processes.rank() == 0:
            trained.predictor.save(place.folder, place.last.name)
        network.load_state_dict(reached.best)
    found: Scores = {"test_acc": best, "test_acc_last": last, "val_acc": val}
    tracked = [row["test_acc"] for row in reached.history if "test_acc" in row]
    # A training that was continued may have begun without.
    return found | ({BEST_ON_TEST: max(tracked)} if len(tracked) == len(reached.history) else {})


def _speed(task: ImageTask, reached: Reached) -> dict[str, Any]:
    images = int(task.split.train.sum()) * reached.epoch
    return {
        "best_epoch": reached.best_epoch,
        "epochs": reached.epoch,
        "seconds": round(reached.seconds, 3),
        "images_per_second": round(images / reached.seconds, 1),
    }


def _finish(
    task: ImageTask, config: ImageConfig, place: Place, trained: Trained, found: Scores, named: dict[str, Any]
) -> dict[str, Any]:
    """Write model, metrics, curves and, last, the result; of several processes the first one writes."""
    reached = trained.reached
    untrained = {"best_epoch": None, "epochs": 0, "seconds": 0.0, "images_per_second": None}
    result = {
        "dataset": task.name,
        "protocol": task.protocol,
        "setting": task.setting,
        "teacher_model": config.teacher_model,
        **named,
        "seed": task.seed,
        **found,
        **(untrained if reached is None else _speed(task, reached)),
        "processes": processes.world(),
        "n_parameters": trained.predictor.n_parameters,
        "config": read_json(place.config),
        "versions": versions(),
        "commit": commit(),
    }
    if processes.rank() != 0:
        return result
    trained.predictor.save(place.folder)
    if trained.part is not None:
        checkpoint.save(place.method, trained.part, {"method": config.method, "base": config.base})
    if reached is not None:
        checkpoint.write_lines(place.metrics, reached.history)
        who = named["method"] if named["student_model"] is None else f"{named['student_model']} by {named['method']}"
        title = f"{task.name} ({task.protocol}), {config.teacher_model}: {who}, seed {task.seed}"
        draw(reached.history, place.curves, title=title, best_epoch=reached.best_epoch)
    checkpoint.write_json(place.result, result)
    place.checkpoint.unlink(missing_ok=True)
    return result
