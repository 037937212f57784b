"""The two stages with their files: what a run leaves in its place, and what a student reads from its teacher's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd import batching, distillers, predictor, processes, scores
from gnnkd.curves import draw
from gnnkd.data.row_arrays import Array
from gnnkd.data.task import NodeTask
from gnnkd.distillers.dgd.bank import Bank
from gnnkd.distillers.losses import full_precision
from gnnkd.errors import UserError
from gnnkd.learning import Heard
from gnnkd.places import Place, read_json, read_result
from gnnkd.predictor import Predictor
from gnnkd.provenance import commit, versions
from gnnkd.run import Config
from gnnkd.scores import Scores
from gnnkd.stages import Learnt, Taught, train_student, train_teacher
from gnnkd.train import checkpoint, outputs
from gnnkd.train.fit import Progress as Reached
from gnnkd.train.progress import Progress


def run_teacher(task: NodeTask, config: Config, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
    """Train a teacher, write its files to `place` and return the content of `result.json`."""
    taught = train_teacher(task, config, progress, place=place, resume=resume)
    return _by_first(place, lambda: _of_teacher(task, config, place, taught))


def _by_first(place: Place, finish: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result, which the first of several processes finds and writes while the others wait for it."""
    result = finish() if processes.rank() == 0 else None
    processes.wait()
    return read_result(place.result) if result is None else result


def _of_teacher(task: NodeTask, config: Config, place: Place, taught: Taught) -> dict[str, Any]:
    if config.teacher_train.batch_size is None:  # else they have been written as they were computed
        rows = {"logits": taught.logits, "index": task.index}
        checkpoint.save(place.outputs, rows, {"fingerprint": task.fingerprint})
    if taught.bank is not None:
        checkpoint.save(place.generators, taught.bank.tensors(), taught.bank.meta())
    layerwise = batching.layerwise(config.teacher_train, place.folder)
    found = scores.of_logits(taught.predictor.network, task, taught.logits, layerwise=layerwise)
    names = {"student_model": None, "method": "teacher", "base": None}
    more = {**scores.of_teacher(found), "generator_seconds": round(taught.reached.watcher_seconds, 3)}
    return _finish(task, config, place, taught.predictor, taught.reached, found, names | more)


def run_student(task: NodeTask, config: Config, place: Place, *, resume: bool, progress: Progress) -> dict[str, Any]:
    """Train a student from the files of its teacher, write its own to `place` and return `result.json`'s content.

    With ready logits in the configuration there is no teacher in `place`.

    Raises:
        UserError: the teacher's outputs are of other rows, or files are damaged.
    """
    teacher, bank, asked = lesson(task, config, place.teacher)
    taught = _scores_of_teacher(task, config, place)
    learnt = train_student(task, config, teacher, bank, progress, asked=asked, place=place, resume=resume)
    return _by_first(place, lambda: _of_student(task, config, place, learnt, taught))


def _of_student(
    task: NodeTask, config: Config, place: Place, learnt: Learnt, taught: Mapping[str, Any]
) -> dict[str, Any]:
    layerwise = batching.layerwise(config.student_train, place.folder)
    found = scores.of_network(learnt.predictor.network, task, layerwise=layerwise)
    names = {"student_model": config.student_model, "method": config.method, "base": config.base}
    return _finish(task, config, place, learnt.predictor, learnt.reached, found, names | scores.of_teacher(taught))


def lesson(task: NodeTask, config: Config, teacher: Place | None) -> tuple[Heard, Bank | None, torch.nn.Module | None]:
    """What a student learns from: logits, generators, and the trained network if the method asks it for features.

    A student that learns on batches reads the logits from the teacher's file.

    Args:
        task: whose rows are taught.
        config: of the student; ready logits in it stand for a teacher.
        teacher: the place of a finished one; None where there are ready logits.

    Raises:
        UserError: its outputs are of other rows, or files are damaged.
    """
    if config.logits is not None:
        return config.logits.on(task), None, None
    assert teacher is not None
    bank, asked = None, None
    if distillers.graph_methods()[config.method].wraps and teacher.generators.exists():
        bank = stored_bank(teacher.generators)
    if config.reads_features:
        asked = predictor.load(teacher.model).network.to(task.y.device)
    mapped = config.student_train.batch_size is not None
    return mapped_outputs(teacher.outputs, task) if mapped else cached_outputs(teacher.outputs, task), bank, asked


def _scores_of_teacher(task: NodeTask, config: Config, place: Place) -> Mapping[str, Any]:
    if config.logits is not None:
        return config.logits.scores(task)
    assert place.teacher is not None
    return read_result(place.teacher.result)


def cached_outputs(file: Path, task: NodeTask) -> Float[Tensor, "N C"]:
    """A teacher's logits on the rows of `task`.

    Raises:
        UserError: they were computed on other rows, another graph or another split.
    """
    tensors, meta = checkpoint.load(file)
    if not {"logits", "index"} <= tensors.keys():
        raise UserError(f"{file} holds no teacher's outputs; train the teacher again with --mode tea --overwrite")
    _check_rows(file, tensors["index"], meta, task)
    return full_precision(tensors["logits"]).to(task.y.device)


def mapped_outputs(file: Path, task: NodeTask) -> Array:
    """As `cached_outputs`, but as they lie on the disk."""
    found = outputs.opened(file)
    _check_rows(file, found.index, found.meta, task)
    return found.logits


def _check_rows(file: Path, index: Int[Tensor, " _"], meta: Mapping[str, Any], task: NodeTask) -> None:
    if meta.get("fingerprint") != task.fingerprint or not torch.equal(index, task.index.cpu()):
        raise UserError(f"{file} holds outputs on other nodes, another graph or split; train the teacher again")


def stored_bank(file: Path) -> Bank:
    """The generators of a teacher.

    Raises:
        UserError: the file holds something else.
    """
    try:
        return Bank.restored(*checkpoint.load(file))
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{file} holds no generators; train the teacher again with --mode tea --overwrite") from None


def _finish(
    task: NodeTask,
    config: Config,
    place: Place,
    predictor: Predictor,
    reached: Reached,
    found: Scores,
    named: dict[str, Any],
) -> dict[str, Any]:
    """Write model, metrics, curves and, last, the result."""
    predictor.save(place.folder)
    checkpoint.write_lines(place.metrics, reached.history)
    who = named["method"] if named["student_model"] is None else f"{named['student_model']} by {named['method']}"
    title = f"{task.name} ({task.protocol}, {task.setting}), {config.teacher_model}: {who}, seed {task.seed}"
    draw(reached.history, place.curves, title=title, best_epoch=reached.best_epoch)
    result = {
        "dataset": task.name,
        "protocol": task.protocol,
        "setting": task.setting,
        "teacher_model": config.teacher_model,
        **named,
        "seed": task.seed,
        **found,
        "val_acc": reached.best_score if math.isfinite(reached.best_score) else None,
        "best_epoch": reached.best_epoch,
        "epochs": reached.epoch,
        "seconds": round(reached.seconds, 3),
        **processes.several(),
        "n_parameters": predictor.n_parameters,
        "n_stored": predictor.n_stored,
        "config": read_json(place.config),
        "versions": versions(),
        "commit": commit(),
    }
    checkpoint.write_json(place.result, result)
    place.checkpoint.unlink(missing_ok=True)
    return result
