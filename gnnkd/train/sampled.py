"""The course of large graphs: many steps an epoch, each on a few training nodes and what is drawn around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from gnnkd.data.augment import generator
from gnnkd.distillers.base import Distiller
from gnnkd.errors import UserError
from gnnkd.graph.rows import some_rows
from gnnkd.graph.sampling import Sampler, batches
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.layerwise import Layerwise, apart
from gnnkd.train import processes
from gnnkd.train.course import Course, Epoch
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import apply, forward
from gnnkd.types import Batch, Operand, Output, Step


@final
class Sampled(Course):
    """One network of layers trained by one method on the labelled nodes and neighbours drawn for them.

    Each epoch draws the order of the labelled nodes, the seeds, and their neighbours anew, by generators named by the
    seed and the epoch. The network is asked about all nodes of a sample; the method sees the seeds alone, with the
    edges drawn among them: what the network says of the others is made of a part of their neighbours, and no basis to
    compare it by. With all neighbours (`None`) the step is that of the whole graph (see `Sampler` about GCN).

    Of several processes each takes its share of the seeds of every batch, so that all of them together take one step.

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
            layer that looks at edges.
        batch_size: seeds a step, of all processes, >= 1 for each.
        seed: of the run.
        inference: how validation is done.

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
    ) -> None:
        if not isinstance(batch.graph, Graph):
            raise ValueError("neighbours are drawn from a Graph; the batch has none")
        if distiller.asks_student:
            raise ValueError(f"{type(distiller).__name__} asks the student about other features; train it on all nodes")
        self.model, self.batch, self.distiller, self.teacher = model, batch, distiller, teacher
        self.validation, self.seed, self.batch_size = validation, seed, batch_size
        self.device = batch.y.device
        self.inference = inference or Layerwise()
        self.graph, self.sampler = batch.graph, Sampler(batch.graph, fanouts)
        self.seeds = batch.labelled.nonzero().flatten()
        _check(model, batch, len(fanouts), batch_size, self.seeds.numel())
        part = distiller.part
        if part is not None:
            part.to(self.device).train()
        self.optimizer = torch.optim.Adam(
            [*model.parameters(), *(part.parameters() if part is not None else ())],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def epoch(self, step: Step) -> Epoch:
        """A step for each batch, then the validation accuracy; scalars are means over the seeds."""
        rank, world = processes.rank(), processes.world()
        draws = self._generator("neighbours", step.epoch, rank)
        sums: dict[str, Tensor] = {}
        rows = done = 0
        for seeds in self._order(step.epoch):
            mine = seeds[rank::world]
            for name, value in self._step(mine, draws, step).items():
                sums[name] = sums.get(name, 0.0) + mine.numel() * value
            rows, done = rows + mine.numel(), done + seeds.numel()
            if self.heard is not None:
                self.heard(step.epoch, done / self.seeds.numel())
        processes.same(self.model.buffers())
        sums = processes.total({**sums, "rows": torch.tensor(float(rows))})
        rows_of_all = sums.pop("rows")
        return Epoch(self._score(), {name: total / rows_of_all for name, total in sums.items()})

    def _generator(self, what: str, *parts: int) -> torch.Generator:
        named = generator("sampled", what, self.seed, *parts)
        if self.device.type == "cpu":
            return named
        return torch.Generator(self.device).manual_seed(named.initial_seed())

    def _order(self, epoch: int) -> list[Int[Tensor, " _"]]:
        """The seeds of each batch, the same in all processes, and one at least for each of them."""
        parts = list(batches(self.seeds, self.batch_size, self._generator("order", epoch)))
        if len(parts) > 1 and parts[-1].numel() < processes.world():
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def _step(self, seeds: Int[Tensor, " B"], draws: torch.Generator, step: Step) -> dict[str, Tensor]:
        whole, sample = self.batch, self.sampler.sample(seeds, draws)
        first = torch.arange(seeds.numel(), device=self.device)
        labelled = torch.zeros(sample.ids.numel(), dtype=torch.bool, device=self.device).index_fill(0, first, True)
        y, index = whole.y[sample.ids], whole.index[sample.ids]
        batch = Batch.of(_rows(whole.x, sample.ids), y, sample.graph, labelled, index)
        output = _of(forward(self.model, self.distiller, batch, step), first)
        taught = None if self.teacher is None else _of(self.teacher, seeds)
        among = sample.graph.subgraph(first)
        seen = Batch.of(_rows(batch.x, first), batch.y[first], among, labelled[first], index[first])
        return apply(self.model, self.optimizer, self.distiller, seen, output, taught, step)

    def _score(self) -> float | None:
        y, mask = self.validation
        ids = mask.nonzero().flatten()
        if ids.numel() == 0:
            return None
        mine = ids[processes.rank() :: processes.world()]
        logits = self.inference.logits(self.model, _dense_or_sparse(self.batch.x), self.graph, ids=mine)
        hits = processes.total({"hits": (logits.argmax(1) == y[mine]).sum()})["hits"]
        return float(hits) / ids.numel()

    def state(self) -> dict[str, Tensor]:
        """The method's."""
        return self.distiller.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        self.distiller.load_state(tensors)


def _check(model: nn.Module, batch: Batch, hops: int, batch_size: int, seeds: int) -> None:
    needed = sum(layer.matrix is not None for layer in apart(model, _dense_or_sparse(batch.x)))
    if hops < needed:
        raise UserError(f"{hops} fan-outs are given; this network needs one for each of {needed} layers")
    least = processes.world()
    for what, count in (("batch_size", batch_size), ("the number of labelled nodes", seeds)):
        if count < least:
            raise UserError(f"{what} is {count}; it must be at least 1 for each of {least} processes")


def _dense_or_sparse(x: Operand) -> Tensor | CSR:
    assert isinstance(x, (Tensor, CSR))
    return x


def _rows(x: Operand, ids: Int[Tensor, " B"]) -> Tensor | CSR:
    x = _dense_or_sparse(x)
    return x[ids] if isinstance(x, Tensor) else some_rows(x, ids)


def _of(output: Output, ids: Int[Tensor, " B"]) -> Output:
    """An output on some of its rows; images have no graph, so there are no maps to choose from."""
    return replace(
        output,
        logits=output.logits[ids],
        hidden={name: _rows(h, ids) for name, h in output.hidden.items()},
        raw={name: h[ids] for name, h in output.raw.items()},
        clean=None if output.clean is None else _of(output.clean, ids),
        members=tuple(_of(member, ids) for member in output.members),
    )
