"""A cell as a process does it: the data, the training unless it is done, and measures of what it has come to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from gnnkd import api, predictor
from gnnkd.claims import claim, differences
from gnnkd.compare import measures
from gnnkd.compare.cells import Cell
from gnnkd.data.dataset import NodeDataset
from gnnkd.data.task import NodeTask
from gnnkd.errors import UserError
from gnnkd.graph_config import Config, DataSettings
from gnnkd.held import held
from gnnkd.places import Place, read_json, read_result
from gnnkd.train.checkpoint import write_json
from gnnkd.train.progress import Silent

TASKS = 4
"""That a process keeps at most."""
WAY = "choose another --out"
"""Where a place is taken by another configuration."""


@final
@dataclass(frozen=True)
class Training:
    """One cell, as `pool.Work` is.

    Args:
        cell: that can be run.
        place: where it lies.
        data_root: of the raw data.
        device: cpu or cuda.
        train: False measures what is finished and trains nothing.
        overwrite: train again what is finished.
    """

    cell: Cell
    place: Place
    data_root: str | None = None
    device: str = "cpu"
    train: bool = True
    overwrite: bool = False

    @property
    def key(self) -> str:
        """The cell's."""
        return self.cell.key

    @property
    def title(self) -> str:
        """The cell's."""
        return self.cell.title

    @property
    def after(self) -> str | None:
        """The teacher, of a student."""
        return None if self.cell.entry is None or self.cell.ready else self.cell.teacher_key

    @property
    def group(self) -> tuple[Hashable, ...]:
        """Cells of one teacher."""
        return self.cell.dataset, self.cell.seed, self.cell.setting, self.cell.teacher_model

    def do(self, kept: dict[Any, Any]) -> dict[str, Any] | None:
        """The content of `result.json`; None where nothing was to be trained and nothing is there.

        Raises:
            UserError: data, options or places do not fit, or the loss diverges.
        """
        place = self.place
        if not self.train and not place.finished:
            return None
        if not self.train and measured(place).is_file():
            return read_result(place.result)  # nothing of the data is needed
        plan = self.cell.config()
        desk: Desk = kept.setdefault(Desk, Desk(self.data_root, self.device))
        task = desk.task(plan, self.cell.seed)
        done = place.finished and measured(place).is_file() and not self.overwrite
        with nullcontext() if done else held(place.folder, what="trains"):
            trained = self.train and self._train(plan, task, place)
            if trained or not measured(place).is_file():
                write_json(measured(place), self._measures(plan, task, place, desk))
        return read_result(place.result)

    def _train(self, plan: Config, task: NodeTask, place: Place) -> bool:
        """Train unless that is done; whether it was not."""
        plan.check_task(task, place.folder, student=self.cell.entry is not None)
        if self.cell.entry is None:
            description, run = plan.describe_teacher(task), api.run_teacher
            if not self.overwrite and serves(place, description):
                return False
        else:
            there = plan.describe_teacher(task) if place.teacher is None else read_json(place.teacher.config)
            description, run = plan.describe_student(task, there), api.run_student
        if not claim(place, description, plan.DIFFERING, resume=True, overwrite=self.overwrite, way=WAY):
            return False
        run(task, plan, place, resume=True, progress=Silent())
        return True

    def _measures(self, plan: Config, task: NodeTask, place: Place, desk: Desk) -> dict[str, float]:
        network = predictor.load(place.model).network.to(self.device)
        if self.cell.entry is None:
            return measures.of(network, task, None)
        if plan.logits is not None:
            rows = [plan.logits.values[part.index.cpu()][part.tested.cpu()] for part in measures.parts(task)]
            return measures.of(network, task, torch.cat(rows).to(self.device))
        assert place.teacher is not None
        return measures.of(network, task, desk.answers(place.teacher, task))


def measured(place: Place) -> Path:
    """Where the measures of a run lie."""
    return place.folder / "measures.json"


def serves(teacher: Place, wanted: Mapping[str, Any]) -> bool:
    """Whether a finished teacher that has generators may serve students that want none: all else is the same."""
    if wanted["generators"] is not None or not teacher.finished or not teacher.config.is_file():
        return False
    changed = differences(read_json(teacher.config), wanted)
    return bool(changed) and all(key.partition(".")[0] == "generators" for key, _, _ in changed)


def check_generators(cell: Cell, teacher: Place) -> None:
    """Refuse a finished teacher without generators where a student learns from them.

    Raises:
        UserError: it is one.
    """
    there = cell.generators and teacher.finished and teacher.config.is_file()
    if there and read_json(teacher.config).get("generators") is None:
        raise UserError(
            f"the teacher in {teacher.folder} has no generators, and dgd learns from them; leave dgd out, or train the "
            "teachers again, with generators, by python -m gnnkd.main --mode tea --overwrite: students of theirs that "
            "are finished stay"
        )


@final
@dataclass
class Desk:
    """What a process keeps between cells: the dataset, its last tasks, and what their last teacher says."""

    data_root: str | None
    device: str
    _dataset: tuple[tuple[str, DataSettings], NodeDataset] | None = None
    _tasks: dict[Any, NodeTask] = field(default_factory=dict)
    _answers: tuple[Path, Tensor] | None = None

    def task(self, config: Config, seed: int) -> NodeTask:
        """What is to be learnt with one seed, on the device.

        Raises:
            UserError: the dataset is not there, or does not have the split or the setting.
        """
        which = (config.dataset, config.data)
        if self._dataset is None or self._dataset[0] != which:
            self._dataset, self._tasks = None, {}  # one dataset at a time is in memory
            self._dataset = which, config.load(self.data_root).in_full()
        key = (config.split, config.setting, seed)
        if key not in self._tasks:
            while len(self._tasks) >= TASKS:
                del self._tasks[next(iter(self._tasks))]
            self._tasks[key] = config.task(self._dataset[1], seed).to(self.device)
        return self._tasks[key]

    def answers(self, teacher: Place, task: NodeTask) -> Tensor:
        """The logits [T, C] of a teacher on the tested rows."""
        if self._answers is None or self._answers[0] != teacher.folder:
            network = predictor.load(teacher.model).network.to(self.device)
            self._answers = teacher.folder, measures.answers(network, task)
        return self._answers[1]
