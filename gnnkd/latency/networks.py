"""The two networks that are asked: those of a finished run, or fresh ones of the same sizes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gnnkd import distillers, models, predictor
from gnnkd.claims import HASHES
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.graph_config import Config
from gnnkd.places import Branch, Place, read_json
from gnnkd.predictor import Predictor
from gnnkd.train.seeding import seeded


@final
@dataclass(frozen=True)
class Pair:
    """A teacher and its student, and the folders that they come from, None of fresh ones."""

    teacher: Predictor
    student: Predictor
    folders: tuple[Path, Path] | None = None


def fresh(config: Config, task: NodeTask) -> Pair:
    """Networks of the configured sizes with the weights that training begins with.

    Raises:
        UserError: the method puts something around its student, which only a training makes.
    """
    kind = distillers.graph_methods()[config.base or config.method]
    if kind.learner is not distillers.Distiller.learner:
        raise UserError(
            f"{config.base or config.method} puts something around its student, which only a training makes; leave "
            "--untrained out, or name another --method, as glnn"
        )
    with seeded(task):
        return Pair(
            _untrained(config.teacher_model, config.teacher, config, task),
            _untrained(config.student_model, config.student, config, task),
        )


def _untrained(name: str, options: Mapping[str, Any], config: Config, task: NodeTask) -> Predictor:
    network = models.built(name, options, task, "network").eval()
    undirected = config.data.undirected
    return Predictor(network, name, options, task.classes, task.features, task.n_features, undirected, task.made)


def finished(config: Config, task: NodeTask, out: Path, tag: str | None, words: Sequence[str]) -> Pair:
    """The networks of a finished run.

    Args:
        config: names them.
        task: that they are asked about.
        out: the folder of all results.
        tag: of the student, and of its teacher if there is such a one.
        words: arguments of `gnnkd.main` that are about the same networks.

    Raises:
        UserError: some are missing, with the command that makes them, are damaged, or are of other data.
    """
    branch = Branch.of(out, task.name, task.protocol, task.setting, config.teacher_model)
    tagged = branch.teacher(task.seed, tag)
    teacher = tagged if tagged.finished else branch.teacher(task.seed)
    base = config.base if config.base_given else None
    student = branch.student(task.seed, config.student_model, config.method, teacher, base=base, tag=tag)
    missing = [place.folder for place in (teacher, student) if not place.finished]
    if missing:
        mode = "tea/stu" if len(missing) == 2 else "tea" if missing == [teacher.folder] else "stu"
        command = shlex.join(["python", "-m", "gnnkd.main", *words, f"--mode={mode}"])
        raise UserError(
            f"no finished run in {' and '.join(map(str, missing))}; make it with: {command} (or time untrained "
            "networks of these sizes with --untrained)"
        )
    return Pair(_loaded(teacher, task), _loaded(student, task), (teacher.folder, student.folder))


def _loaded(place: Place, task: NodeTask) -> Predictor:
    there = read_json(place.config)
    for key, what in zip(HASHES, Config.DIFFERING, strict=True):
        if there.get(key) != getattr(task, key):
            raise UserError(
                f"the network in {place.folder} was trained on {what} than it would be asked about; name another run "
                "with --tag, --split or --out, or train it again with --overwrite"
            )
    found = predictor.load(place.model)
    if not isinstance(found, Predictor):
        raise UserError(f"{place.folder} holds a network of images; latencies are of networks of graphs")
    return found
