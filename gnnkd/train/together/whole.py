"""Networks of graphs and rows that teach each other: all nodes of the data in one batch, one step an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from gnnkd.distillers.base import Lesson
from gnnkd.errors import UserError
from gnnkd.metrics import accuracy
from gnnkd.train.course import Epoch
from gnnkd.train.settings import TrainSettings
from gnnkd.train.together.course import MakeOptimizer, Together
from gnnkd.train.together.meeting import introduce
from gnnkd.train.together.node import Node
from gnnkd.train.update import forward
from gnnkd.types import Batch, Output, Step


def adam(params: Mapping[str, Tensor], settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer of every network of graphs and rows here."""
    return torch.optim.Adam(params.values(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


@final
class TogetherWhole(Together[TrainSettings]):
    """Several networks trained on one batch, each by what it hears.

    A frozen node is asked once for the whole training.

    Args:
        nodes: any mix of networks of graphs and of rows; their settings are `TrainSettings`.
        batch: what all learn on; labels outside `labelled` are blank.
        validation: labels for selection, [N], and the mask of validation rows, which may be empty.
        seed: of the run, for what a method draws.
        make_optimizer: makes the optimizer of a node.

    Raises:
        UserError: a graph of networks that cannot train, see `node.checked`.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        batch: Batch,
        validation: tuple[Tensor, Bool[Tensor, " N"]],
        *,
        seed: int = 0,
        make_optimizer: MakeOptimizer[TrainSettings] = adam,
    ) -> None:
        super().__init__(nodes, TrainSettings, batch.y.device)
        _check([self.settings[i] for i in self.learners])
        self.batch, self.validation = batch, validation
        self.validates = bool(validation[1].any())
        self._said: dict[int, Output] = {}
        if any(self.shows):
            self._introduce(seed)
        self.optimize(make_optimizer)

    def _introduce(self, seed: int) -> None:
        shown = [self._asked(i) for i in range(len(self.nodes))]
        for i, settings in enumerate(self.settings):
            lesson = Lesson(
                student=shown[i],
                teacher=None,
                norms=(),
                y=self.batch.y,
                momentum=0,
                weight_decay=settings.weight_decay,
                seed=seed,
            )
            introduce(self.incoming[i], lesson, shown, [()] * len(shown))

    @torch.no_grad()
    def _asked(self, node: int) -> Output:
        """What a node says in eval mode; the random state stays."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            found: Output = self.nodes[node].model.eval()(self.batch.x, self.batch.graph)
        return found if self.shows[node] else Output(found.logits)

    def epoch(self, step: Step) -> Epoch:
        """One step of every node, then their validation accuracies."""
        outputs = {i: self._output(i, step) for i in range(len(self.nodes)) if self._runs(i)}
        taken = self.step(self.batch, outputs, step)
        score, others = self.judged(step)
        return Epoch(score, {**taken, **others})

    def _runs(self, node: int) -> bool:
        return not self.nodes[node].frozen or node in self.sources

    def _output(self, node: int, step: Step) -> Output:
        if self.nodes[node].frozen:
            if node not in self._said:
                self._said[node] = self._asked(node)
            return self._said[node]
        with torch.set_grad_enabled(self.nodes[node].trained):
            return forward(self.nodes[node].model, self.incoming[node], self.batch, step)

    @torch.no_grad()
    def score(self, node: int) -> float | None:
        """Accuracy on the validation rows."""
        if not self.validates:
            return None
        output: Output = self.nodes[node].model.eval()(self.batch.x, self.batch.graph)
        return accuracy(output.logits, *self.validation)


def _check(settings: Sequence[TrainSettings]) -> None:
    for one in settings:
        for name, plain in (("batch_size", None), ("validate_every", 1)):
            if getattr(one, name) != plain:
                raise UserError(
                    f"{name} is {getattr(one, name)}; a graph of networks learns on all nodes at once and validates "
                    f"after each epoch: set {name}={'null' if plain is None else plain}"
                )
