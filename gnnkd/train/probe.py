"""What a watcher looks at while a teacher trains on samples: the same few nodes and neighbours in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from gnnkd.data.augment import generator
from gnnkd.distillers.base import Distiller, Gradients, Look
from gnnkd.graph.pattern import Pattern
from gnnkd.graph.sampling import Sampler
from gnnkd.graph.structure import CSR
from gnnkd.train.shown import Shown, alone, on
from gnnkd.train.update import looking
from gnnkd.types import Batch, Operand, Output, Step

NODES = 4096
"""Most labelled nodes of a probe."""
PIECE = 512
"""Fewest of them that are asked about at a time, where there are so many."""
_LOOKS = 16
"""More looks with dropout at a piece than a watcher takes in an epoch."""


@final
class Probe:
    """At most `NODES` labelled nodes and neighbours of them, drawn once, by a generator named by the seed of the run.

    They are asked about in pieces, in the memory of a step; a loss that is a mean over nodes has the gradient of all.

    Args:
        whole: all nodes, the training labels readable.
        sampler: draws the neighbours; None for none.
        matrices: what each layer of the network derives of the graph.
        batch_size: nodes of a step.
        seed: of the run.
    """

    def __init__(
        self,
        whole: Batch,
        sampler: Sampler | None,
        matrices: Sequence[Callable[[CSR], CSR] | None],
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        draws = on(whole.y.device, generator("probe", seed))
        labelled = whole.labelled.nonzero().flatten()
        seeds = some(labelled, draws, NODES)
        self.whole, self.matrices = whole, matrices
        parts = torch.split(seeds, max(batch_size, PIECE))
        self.samples = [alone(part) if sampler is None else sampler.sample(part, draws) for part in parts]

    @cached_property
    def batch(self) -> Batch:
        """The labelled nodes, without edges."""
        ids = torch.cat([sample.ids[: sample.seeds] for sample in self.samples])
        return Shown.of(self.whole, alone(ids)).seen

    def look(self, model: nn.Module, distiller: Distiller, step: Step, noise: int) -> Look:
        """A `Look` at all of them; `noise` as `looking` has it, which takes `noise` to `noise + 16` of each piece."""
        counts = [sample.seeds for sample in self.samples]

        def look(dropout: bool) -> tuple[Output, Gradients]:
            nonlocal noise
            outputs: list[Output] = []
            sums: dict[str, Tensor] = {}
            for i, sample in enumerate(self.samples):
                shown = Shown.of(self.whole, sample, self.matrices)
                named = noise + _LOOKS * i
                found, gradients = looking(model, distiller, shown, step, named)(dropout)
                outputs.append(found)
                for name, g in gradients.items():
                    part = g * (counts[i] / sum(counts))
                    sums[name] = sums[name] + part if name in sums else part
            noise += dropout
            return joined(outputs), sums

        return look


def some(ids: Int[Tensor, " _"], draws: torch.Generator, most: int = NODES) -> Int[Tensor, " P"]:
    """At most `most` of `ids`, ascending; `draws` is on the same device."""
    order = torch.randperm(ids.numel(), generator=draws, device=ids.device)
    return ids[order[:most]].sort().values


def joined(outputs: Sequence[Output]) -> Output:
    """Outputs on disjoint nodes as one."""
    if len(outputs) == 1:
        return outputs[0]
    first = outputs[0]
    return Output(
        torch.cat([one.logits for one in outputs]),
        {name: _stacked([one.hidden[name] for one in outputs]) for name in first.hidden},
        {name: torch.cat([one.raw[name] for one in outputs]) for name in first.raw},
        first.averaged,
    )


def _stacked(parts: Sequence[Operand]) -> Tensor | CSR:
    dense = [part for part in parts if isinstance(part, Tensor)]
    if dense:
        return torch.cat(dense)
    sparse = [part for part in parts if isinstance(part, CSR)]
    counts = torch.cat([part.rowptr.diff() for part in sparse])
    rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    pattern = Pattern(rowptr, torch.cat([part.col for part in sparse]), (counts.numel(), sparse[0].shape[1]))
    return CSR.on(pattern, torch.cat([part.values() for part in sparse]))
