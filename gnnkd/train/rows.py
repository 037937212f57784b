"""The course of rows: a student that looks at rows alone, taught on mini-batches from disk by cached teacher outputs.

Memory of one process, whatever the number of rows: `RowStore.memory(batch_size, world)`, 16 bytes a parameter (weight,
gradient, Adam's two), and the activations of a batch: about `12 B / world` bytes a unit of all layers together. For a
method that reads the student on P rows of its own (`Distiller.probe`) their features are kept, `4 P D`, and there are
their activations in a step.

Several processes take the step that one would take on the whole batch where a loss is a mean over all its rows, as
GLNN's is, or, of the task's term, over those with labels. Dropout is drawn anew by each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from gnnkd import processes
from gnnkd.data.augment import key
from gnnkd.data.row_arrays import Array
from gnnkd.data.row_store import LEAST, RowStore
from gnnkd.distillers.base import TASK, Distiller
from gnnkd.errors import UserError
from gnnkd.nn.around import ask
from gnnkd.train.course import Course, Epoch, adam, agree
from gnnkd.train.probed import Parts, Probed
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import update
from gnnkd.types import Operand, Step


@final
class Rows(Course):
    """One network of rows trained by one method with Adam.

    An epoch draws nothing from torch's random state: order and dropout are named by seed, epoch and rank. So a run
    continues bit for bit after any epoch.

    Args:
        model: what learns; `model(x, None) -> Output`.
        store: what it learns on.
        distiller: the method, prepared; one that reads the teacher's logits alone.
        validation: booleans [N], in memory or mapped: rows whose accuracy chooses the epoch. Where all are False, the
            last epoch is kept.
        settings: learning rate and the like.
        batch_size: rows of a step, of all processes together, >= 2 for each.

    Raises:
        UserError: a method that reads more than logits, a teacher that is missing, or a batch size below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        store: RowStore,
        distiller: Distiller,
        validation: Array,
        settings: TrainSettings,
        *,
        batch_size: int = 4096,
    ) -> None:
        _check(distiller, store)
        store.check_column("validation", validation)
        least = LEAST * processes.world()
        if batch_size < least:
            raise UserError(f"batch_size is {batch_size}; it must be at least {least}, {LEAST} for each process")
        self.model, self.store, self.distiller, self.validation = model, store, distiller, validation
        self.settings = settings
        self.batch_size, self.device, self.show = batch_size, store.device, Probed(model, self._find)
        self.validates = bool(validation.any())
        self.optimizer = adam(model, distiller, settings, self.device)

    def epoch(self, step: Step) -> Epoch:
        """A step for each batch, then the validation accuracy; scalars are means over the rows."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(key("dropout", self.store.seed, step.epoch, processes.rank()))
            scalars = self._learn(step)
        scored = self.settings.validates(step)
        return Epoch(self._score() if self.validates and scored else None, scalars, scored=scored)

    def _learn(self, step: Step) -> dict[str, Tensor]:
        agree(self.model, self.distiller)
        sums: dict[str, Tensor] = {}
        rank, world, rows = processes.rank(), processes.world(), 0
        blank = torch.zeros((), dtype=torch.int64, device=self.device)
        for batch, taught in self.store.epoch(step.epoch, self.batch_size, rank=rank, world=world):
            n = batch.y.numel()
            taken = update(self.model, self.optimizer, self.distiller, batch, taught, step, self.show)
            for name, value in taken.items():
                sums[name] = sums[name] + n * value if name in sums else n * value
            rows += n
            blank += ~batch.labelled.any()
            if self.heard is not None:
                self.heard(step.epoch, min(1.0, rows * world / self.store.count))
        agree(self.model, self.distiller)
        sums = processes.total({**sums, "rows": torch.tensor(rows, device=self.device), "blank": blank})
        rows_of_all, blanks = sums.pop("rows"), int(sums.pop("blank"))
        if blanks and TASK in sums:
            raise UserError(
                f"{blanks} batches of epoch {step.epoch} had no labelled row in a process, and the method reads "
                "labels; use larger batches, or learn on labelled rows alone"
            )
        return {name: total / rows_of_all for name, total in sums.items()}

    def _find(self, ids: Int[Tensor, " P"]) -> tuple[Operand, Callable[[], Parts]]:
        batch = self.store.some(ids)
        return batch.x, lambda: [(batch, torch.arange(ids.numel(), device=self.device))]

    @torch.no_grad()
    def _score(self) -> float:
        self.model.eval()
        hits, rows = torch.zeros((), dtype=torch.int64, device=self.device), 0
        share = {"rank": processes.rank(), "world": processes.world()}
        for batch, y in self.store.scan(self.validation, 4 * self.batch_size, **share):
            hits += (ask(self.model, batch.x, None, batch.index).logits.argmax(1) == y).sum()
            rows += y.numel()
        counts = processes.total({"hits": hits, "rows": torch.tensor(rows, device=self.device)})
        return float(counts["hits"].double() / counts["rows"])

    def state(self) -> dict[str, Tensor]:
        """The method's."""
        return self.distiller.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        self.distiller.load_state(tensors)


def _check(distiller: Distiller, store: RowStore) -> None:
    name = type(distiller).__name__
    wants = {
        "reads more of a teacher than its logits": distiller.reads_maps,
        "asks the teacher again": distiller.asks_teacher,
        "asks the student again": distiller.asks_student,
    }
    for what, so in wants.items():
        if so:
            raise UserError(f"{name} {what}; rows from disk come with logits alone: use a method such as glnn or kd")
    if distiller.needs_teacher and store.logits is None:
        raise UserError(f"{name} learns from a teacher, and there are no logits; give them, or use supervised")
