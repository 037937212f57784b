"""A sample as two see it: the network, which is asked about all of its nodes, and the method, which compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from gnnkd.data.augment import generator
from gnnkd.distillers.losses import full_precision
from gnnkd.graph.layered import Layered
from gnnkd.graph.pattern import Pattern
from gnnkd.graph.rows import some_rows
from gnnkd.graph.sampling import Sample, Sampler
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import Batch, Operand, Output

_FEW = 64


@final
@dataclass(frozen=True, eq=False)
class Shown:
    """Some nodes of a graph.

    Of a network that passes messages the method sees the seeds alone, with the edges drawn among them: what the
    network says of the others is made of a part of their neighbours, and no basis to compare it by. Of a network of
    rows it sees all, so that it can compare seeds with their neighbours. Labels are those of seeds.

    A mean that the method takes is over what it sees. So of a network of rows with neighbours drawn for it a node
    counts as often as it is met, as a seed or as a neighbour: in an epoch about once and its degree's share of all
    drawn neighbours, hubs the most. What is logged of an epoch is the mean over batches, each weighted by its seeds.

    Args:
        asked: all nodes of the sample, as far as the network reads them.
        seen: those that the method sees.
        places: rows of the whole graph that those are.
    """

    asked: Batch
    seen: Batch
    places: Int[Tensor, " V"]

    @staticmethod
    def of(whole: Batch, sample: Sample, matrices: Sequence[Callable[[CSR], CSR] | None] = ()) -> Shown:
        """The nodes of a sample of `whole`.

        Args:
            matrices: what each layer of the network derives of the graph; where none does, the method sees all nodes.
        """
        n = sample.seeds
        every = all(matrix is None for matrix in matrices) or n == sample.ids.numel()
        graph = sample.weighed(matrices) if every else Layered.of(sample, matrices)
        ids = sample.ids[: graph.n_nodes]
        labelled = whole.labelled[ids]
        labelled[n:] = False
        x, y, index = rows(whole.x, ids), whole.y[ids], whole.index[ids]
        asked = Batch.of(x, y, graph, labelled, index)
        if every:
            return Shown(asked, asked, ids)
        first = torch.arange(n, device=ids.device)
        among = sample.graph.subgraph(first)
        return Shown(asked, Batch.of(rows(x, first), y[:n], among, labelled[:n], index[:n]), ids[:n])

    def cut(self, output: Output) -> Output:
        """The network's output on what is asked, on what is seen; operands of layers are those of its rows."""
        return output if self.seen is self.asked else of_rows(output, torch.arange(self.places.numel()))

    def taught(self, teacher: Output | None) -> Output | None:
        """A teacher's output on the whole graph, on what is seen, in float32 at least."""
        return None if teacher is None else of_rows(teacher, self.places)


def alone(ids: Int[Tensor, " B"]) -> Sample:
    """Nodes, distinct, without neighbours."""
    n = ids.numel()
    none = Pattern(ids.new_zeros(n + 1), ids.new_zeros(0), (n, n))
    return Sample(ids.long(), (n,), Graph(CSR.on(none)))


def few(whole: Batch, fanouts: Sequence[int | None], seed: int) -> Batch:
    """The first nodes with neighbours drawn for them, by a generator named by the seed: to see what a network shows."""
    ids = torch.arange(min(_FEW, whole.y.numel()), device=whole.y.device)
    assert isinstance(whole.graph, Graph)
    draws = on(ids.device, generator("few", seed))
    sample = Sampler(whole.graph, fanouts).sample(ids, draws) if fanouts else alone(ids)
    return Shown.of(whole, sample).asked


def on(device: torch.device, named: torch.Generator) -> torch.Generator:
    """A generator of the CPU, or one that begins where it does on another device."""
    return named if device.type == "cpu" else torch.Generator(device).manual_seed(named.initial_seed())


def rows(x: Operand, ids: Int[Tensor, " B"]) -> Tensor | CSR:
    """The rows `ids` of features, in that order, in float32 at least."""
    assert isinstance(x, (Tensor, CSR))
    return full_precision(x[ids]) if isinstance(x, Tensor) else some_rows(x, ids)


def of_rows(output: Output, ids: Int[Tensor, " B"]) -> Output:
    """An output on some of its rows, its logits in float32 at least."""
    ids = ids.to(output.logits.device)
    return replace(
        output,
        logits=full_precision(output.logits[ids]),
        hidden={name: rows(h, ids) for name, h in output.hidden.items()},
        raw={name: h[ids] for name, h in output.raw.items()},
        clean=None if output.clean is None else of_rows(output.clean, ids),
        members=tuple(of_rows(member, ids) for member in output.members),
    )
