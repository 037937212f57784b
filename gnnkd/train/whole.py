"""The course of graphs and rows: all nodes in one batch, one step an epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from gnnkd.distillers.base import Distiller, Watcher
from gnnkd.metrics import accuracy
from gnnkd.nn.around import ask
from gnnkd.train.course import Course, Epoch, adam, kept, resumed
from gnnkd.train.probed import among_all
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import looking, update
from gnnkd.types import Batch, Output, Step


@final
class WholeBatch(Course):
    """One model trained on one batch by one method.

    Args:
        model: what learns; `model(x, graph) -> Output`.
        batch: what it learns on; labels outside `labelled` are blank.
        distiller: the method, prepared.
        teacher: cached teacher output on the batch, or None.
        validation: labels for selection, [N], and the mask of validation rows.
        settings: learning rate and the like.
        watcher: learns beside the training without changing it.
        seed: names the noise of the watcher's looks.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        distiller: Distiller,
        teacher: Output | None,
        validation: tuple[Tensor, Bool[Tensor, " N"]],
        settings: TrainSettings,
        *,
        watcher: Watcher | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.batch, self.distiller, self.teacher = model, batch, distiller, teacher
        self.validation, self.watcher, self.seed, self.settings = validation, watcher, seed, settings
        self.device, self.show = batch.y.device, among_all(model, batch)
        self.validates = bool(validation[1].any())
        self.optimizer = adam(model, distiller, settings, self.device)

    def epoch(self, step: Step) -> Epoch:
        """The watcher's look, one step, the validation accuracy."""
        start = time.perf_counter()
        seen: dict[str, Tensor] = {}
        if self.watcher is not None:
            noise = (self.seed << 32) + (step.epoch << 8)
            look = looking(self.model, self.distiller, self.batch, step, noise)
            seen = dict(self.watcher.watch(self.batch, look, step))
        watched = time.perf_counter()
        taken = update(self.model, self.optimizer, self.distiller, self.batch, self.teacher, step, self.show)
        scored = self.settings.validates(step)
        score = self._score() if self.validates and scored else None
        done = time.perf_counter()
        if self.watcher is not None and score is not None:
            self.watcher.validated(score)
        aside = watched - start + time.perf_counter() - done
        return Epoch(score, taken | seen, aside=aside, scored=scored)

    @torch.no_grad()
    def _score(self) -> float:
        self.model.eval()
        return accuracy(ask(self.model, self.batch.x, self.batch.graph, self.batch.index).logits, *self.validation)

    def state(self) -> dict[str, Tensor]:
        """The method's and the watcher's."""
        return kept(self.distiller, self.watcher)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        resumed(self.distiller, self.watcher, tensors)
