"""A network asked about the rows that its method names: the same few in every step, as evaluation sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from gnnkd.data.augment import generator
from gnnkd.graph.sampling import Sampler
from gnnkd.graph.structure import CSR
from gnnkd.nn.around import ask
from gnnkd.train.probe import PIECE, joined
from gnnkd.train.shown import Shown, alone, of_rows, on, rows
from gnnkd.types import Batch, Operand, Output

Parts: TypeAlias = Iterable[tuple[Batch, Int[Tensor, " _"]]]
"""What a network is asked about, and the places in it of the rows that are meant."""


@final
class Probed:
    """Some rows of a course's data, found when a method first names them.

    They are kept as long as they are named: operands that are the features themselves are one object in all steps.

    Args:
        model: that is asked.
        find: the rows of these ids in the full data, [P]: their features [P, ...], and how to ask about them.
    """

    def __init__(
        self, model: nn.Module, find: Callable[[Int[Tensor, " P"]], tuple[Operand, Callable[[], Parts]]]
    ) -> None:
        self.model, self.find = model, find
        self._kept: tuple[Tensor, Operand, Callable[[], Parts]] | None = None

    def __call__(self, ids: Int[Tensor, " P"]) -> Output:
        """The network's output on the rows `ids`, in eval mode and without gradients; it stays in eval mode."""
        if self._kept is None or self._kept[0] is not ids:
            self._kept = ids, *self.find(ids)
        _, features, parts = self._kept
        self.model.eval()
        found, names, constant = [], [], set[str]()
        with torch.no_grad():
            for asked, places in parts():
                output = ask(self.model, asked.x, asked.graph, asked.index)
                names = list(output.hidden)
                constant = {name for name, h in output.hidden.items() if h is asked.x}
                others = {name: h for name, h in output.hidden.items() if name not in constant}
                found.append(of_rows(replace(output, hidden=others), places))
        one = joined(found)
        return replace(one, hidden={name: features if name in constant else one.hidden[name] for name in names})


def places_of(ids: Int[Tensor, " P"], index: Int[Tensor, " N"]) -> Int[Tensor, " P"]:
    """Where `ids` are in `index`, which ascends.

    Raises:
        ValueError: an id that is not there.
    """
    places = torch.searchsorted(index.contiguous(), ids.contiguous()).clamp(max=index.numel() - 1)
    if not torch.equal(index[places], ids):
        raise ValueError("a row of the teacher's probe is none of these rows; train the teacher again")
    return places


def among_all(model: nn.Module, whole: Batch) -> Probed:
    """Rows of a batch of all nodes, which is asked about as it is."""

    def find(ids: Tensor) -> tuple[Operand, Callable[[], Parts]]:
        places = places_of(ids, whole.index)
        return rows(whole.x, places), lambda: [(whole, places)]

    return Probed(model, find)


def sampled(
    model: nn.Module,
    whole: Batch,
    sampler: Sampler | None,
    matrices: Sequence[Callable[[CSR], CSR] | None],
    *,
    batch_size: int,
    seed: int,
) -> Probed:
    """Rows of a graph, with neighbours that are drawn once, by a generator named by the seed of the run.

    They are asked about in pieces, in the memory of a step.

    Args:
        sampler: draws the neighbours; None for none.
        matrices: what each layer of the network derives of the graph; where none does, no neighbours are drawn.
        batch_size: nodes of a step.
    """
    draws_none = sampler is None or all(matrix is None for matrix in matrices)

    def find(ids: Tensor) -> tuple[Operand, Callable[[], Parts]]:
        places = places_of(ids, whole.index)
        draws = on(ids.device, generator("probed", seed))
        pieces = torch.split(places, max(batch_size, PIECE))
        samples = [alone(piece) if sampler is None or draws_none else sampler.sample(piece, draws) for piece in pieces]

        def parts() -> Parts:
            for sample in samples:
                asked = Shown.of(whole, sample, matrices).asked
                yield asked, torch.arange(sample.seeds, device=ids.device)

        return rows(whole.x, places), parts

    return Probed(model, find)
