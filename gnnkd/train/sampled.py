"""The course of large graphs: many steps an epoch, each on a few nodes and what is drawn around them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from gnnkd import processes
from gnnkd.data.augment import generator, key
from gnnkd.data.row_store import LEAST
from gnnkd.distillers.base import TASK, Distiller, Watcher
from gnnkd.errors import UserError
from gnnkd.graph.sampling import Sampler, batches
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.layerwise import Layerwise
from gnnkd.nn.taken_apart import apart
from gnnkd.train.course import Course, Epoch, adam, agree, kept, resumed
from gnnkd.train.probe import Probe
from gnnkd.train.probed import sampled
from gnnkd.train.settings import TrainSettings
from gnnkd.train.shown import Shown, alone, on
from gnnkd.train.update import apply, forward
from gnnkd.types import Batch, Operand, Output, Step


@final
class Sampled(Course):
    """One network of layers trained by one method on some nodes at a time and neighbours drawn for them.

    Each epoch draws the order of the nodes that are learnt on, the seeds, and their neighbours anew, by generators
    named by the seed and the epoch. Seeds are all nodes where there is a teacher to learn from, else the labelled ones.
    What the method sees of a sample says `Shown`. With all neighbours (`None`) the step is that of the whole graph (see
    `Sampler` about GCN).

    Of several processes each takes its share of the seeds of every batch, so that all of them together take one step.
    Each draws neighbours and dropout of its own, and the watcher of each looks at the same probe.

    Validation asks the layers one after another, about all neighbours, as far as the validation nodes need them: a
    sample with all neighbours would grow to most of a graph anyway, once for each batch, and has no bound on memory.

    Args:
        model: what learns; a network of layers that can be taken apart (see `Layerwise`).
        batch: all nodes, the training labels readable; features may be over a mapped file.
        distiller: the method, prepared; it may not ask the student about other features.
        teacher: cached teacher output on the batch, or None.
        validation: labels for selection, [N], and the mask of validation rows.
        settings: learning rate and the like.
        fanouts: most neighbours of a node for each hop from the seeds on, >= 1, or None for all; at least one for each
            layer that looks at edges. None of them: seeds without neighbours, for a network of rows.
        batch_size: seeds a step, of all processes, >= 1 for each.
        seed: of the run.
        inference: how validation is done.
        watcher: learns beside the training without changing it, at a `Probe` before the first step of each epoch.

    Raises:
        UserError: a network that cannot be taken apart, too few fan-outs, or too few seeds for the processes.
        ValueError: a fan-out out of range, no graph, or a method that asks the student.
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
        fanouts: Sequence[int | None],
        batch_size: int = 1024,
        seed: int = 0,
        inference: Layerwise | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        if not isinstance(batch.graph, Graph):
            raise ValueError("neighbours are drawn from a Graph; the batch has none")
        if distiller.asks_student:
            raise ValueError(f"{type(distiller).__name__} asks the student about other features; train it on all nodes")
        self.model, self.batch, self.distiller, self.teacher = model, batch, distiller, teacher
        self.validation, self.seed, self.batch_size, self.settings = validation, seed, batch_size, settings
        self.device, self.watcher = batch.y.device, watcher
        self.inference = inference or Layerwise()
        self.graph, self.sampler = batch.graph, Sampler(batch.graph, fanouts) if fanouts else None
        learnt = torch.ones_like(batch.labelled) if distiller.needs_teacher else batch.labelled
        self.seeds = learnt.nonzero().flatten()
        self.matrices = tuple(layer.matrix for layer in apart(model, _dense_or_sparse(batch.x)))
        _check(hops(self.matrices), len(fanouts), batch_size, self.seeds.numel())
        self.show = sampled(model, batch, self.sampler, self.matrices, batch_size=batch_size, seed=seed)
        self.probe = None
        if watcher is not None:
            self.probe = Probe(batch, self.sampler, self.matrices, batch_size=batch_size, seed=seed)
        self.optimizer = adam(model, distiller, settings, self.device)

    def epoch(self, step: Step) -> Epoch:
        """The watcher's look, a step for each batch, the validation accuracy; scalars are means over the seeds."""
        start = time.perf_counter()
        agree(self.model, self.distiller)
        seen = self._watch(step)
        watched = time.perf_counter()
        with self._noise(step.epoch):
            taken = self._learn(step)
        scored = self.settings.validates(step)
        score = self._score() if scored else None
        done = time.perf_counter()
        if self.watcher is not None and score is not None:
            self.watcher.validated(score)
        aside = watched - start + time.perf_counter() - done
        return Epoch(score, taken | seen, aside=aside, scored=scored)

    def _watch(self, step: Step) -> dict[str, Tensor]:
        if self.watcher is None or self.probe is None:
            return {}
        look = self.probe.look(self.model, self.distiller, step, (self.seed << 32) + (step.epoch << 8))
        return dict(self.watcher.watch(self.probe.batch, look, step))

    def _learn(self, step: Step) -> dict[str, Tensor]:
        rank, world = processes.rank(), processes.world()
        draws = self._generator("neighbours", step.epoch, rank)
        sums: dict[str, Tensor] = {}
        rows = done = 0
        blank = torch.zeros((), dtype=torch.int64, device=self.device)
        for number, seeds in enumerate(self._order(step.epoch)):
            mine = seeds[rank::world]
            labelled, taken = self._step(mine, draws, replace(step, batch=number))
            for name, value in taken.items():
                sums[name] = sums.get(name, 0.0) + mine.numel() * value
            rows, done, blank = rows + mine.numel(), done + seeds.numel(), blank + ~labelled
            if self.heard is not None:
                self.heard(step.epoch, done / self.seeds.numel())
        agree(self.model, self.distiller)
        sums = processes.total({**sums, "rows": torch.tensor(float(rows)), "blank": blank})
        rows_of_all, blanks = sums.pop("rows"), int(sums.pop("blank"))
        if blanks and TASK in sums:
            raise UserError(
                f"{blanks} batches of epoch {step.epoch} had no labelled node in a process, and the method reads "
                "labels; give a larger batch_size"
            )
        return {name: total / rows_of_all for name, total in sums.items()}

    @contextmanager
    def _noise(self, epoch: int) -> Iterator[None]:
        """Dropout for a block: the first process has the random state of the run, each other one of its own."""
        rank = processes.rank()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [], enabled=rank > 0):
            if rank > 0:
                torch.manual_seed(key("dropout", self.seed, epoch, rank))
            yield

    def _generator(self, what: str, *parts: int) -> torch.Generator:
        return on(self.device, generator("sampled", what, self.seed, *parts))

    def _order(self, epoch: int) -> list[Int[Tensor, " _"]]:
        """The seeds of each batch, the same in all processes; the last batch is not too small for a batch norm."""
        parts = list(batches(self.seeds, self.batch_size, self._generator("order", epoch)))
        if len(parts) > 1 and parts[-1].numel() < min(self.batch_size, LEAST * processes.world()):
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def _step(
        self, seeds: Int[Tensor, " B"], draws: torch.Generator, step: Step
    ) -> tuple[Bool[Tensor, ""], dict[str, Tensor]]:
        """Learn on some seeds; whether a label among them could be read, and what the step says."""
        sample = alone(seeds) if self.sampler is None else self.sampler.sample(seeds, draws)
        shown = Shown.of(self.batch, sample, self.matrices)
        output = shown.cut(forward(self.model, self.distiller, shown.asked, step, self.show))
        taught = shown.taught(self.teacher)
        taken = apply(self.model, self.optimizer, self.distiller, shown.seen, output, taught, step)
        return shown.seen.labelled.any(), taken

    def _score(self) -> float | None:
        y, mask = self.validation
        ids = mask.nonzero().flatten()
        if ids.numel() == 0:
            return None
        hits, x = torch.zeros((), dtype=torch.int64, device=self.device), _dense_or_sparse(self.batch.x)
        for part, logits in self.inference.parts(self.model, x, self.graph, ids=ids, together=True):
            hits += (logits.argmax(1) == y[part]).sum()
        return float(hits) / ids.numel()

    def state(self) -> dict[str, Tensor]:
        """The method's and the watcher's."""
        return kept(self.distiller, self.watcher)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        resumed(self.distiller, self.watcher, tensors)


def hops(matrices: Sequence[object]) -> int:
    """How many layers of a network look at edges, by what each derives of the graph."""
    return sum(matrix is not None for matrix in matrices)


def _check(needed: int, given: int, batch_size: int, seeds: int) -> None:
    if given < needed:
        raise UserError(f"{given} fan-outs are given; this network needs one for each of {needed} layers")
    least = processes.world()
    for what, count in (("batch_size", batch_size), ("the number of nodes to learn on", seeds)):
        if count < least:
            raise UserError(f"{what} is {count}; it must be at least 1 for each of {least} processes")


def _dense_or_sparse(x: Operand) -> Tensor | CSR:
    assert isinstance(x, (Tensor, CSR))
    return x
