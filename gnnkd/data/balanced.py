"""Which rows make up the balanced batches of an epoch: some rows of each of several classes, every row once."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def batches(
    y: Int[Tensor, " N"], per_class: int, classes: int, least: int, generator: torch.Generator
) -> list[Int[Tensor, " _"]]:
    """The rows 0 .. N - 1 in batches of `classes` classes with at most `per_class` rows of each, in a random order.

    Each class is shuffled and cut into as few pieces of at most `per_class` rows as there can be, whose sizes differ by
    one at most. A batch takes a piece of each of the classes that have most pieces left, so that as few pieces as can
    be find no other classes beside them. When fewer classes than `classes` have any left, those of each are spread
    evenly over the batches to come, which keep their size: with fewer classes at all, each has more rows in a batch.
    The rows of a piece lie together. A batch of fewer than `least` rows joins the next one, the last the one before.

    Args:
        y: class of each row, on the CPU; nothing else is known of a row.
        per_class: most rows of a piece K, at least 1.
        classes: pieces of a batch C, at least 1; the last that is dealt may have fewer.
        least: smallest size of a batch, 1 .. N.
        generator: of all that is drawn.
    """
    _, y, counts = torch.unique(y, return_inverse=True, return_counts=True)
    pieces = (counts + per_class - 1) // per_class
    shuffled = torch.randperm(y.numel(), generator=generator)
    by_class = shuffled[y[shuffled].argsort(stable=True)]
    dealt = _dealt(pieces, classes, generator)
    in_order = _sizes(counts, pieces)
    sizes, starts = in_order[dealt], (in_order.cumsum(0) - in_order)[dealt]
    piece, within = _listed(sizes)
    made = by_class[starts[piece] + within].split_with_sizes([int(part.sum()) for part in torch.split(sizes, classes)])
    # As they were dealt, batches of the large classes come first, and those that lack classes last.
    return _joined([made[k] for k in torch.randperm(len(made), generator=generator).tolist()], least)


def _dealt(pieces: Int[Tensor, " kinds"], classes: int, generator: torch.Generator) -> Int[Tensor, " pieces"]:
    """The pieces, numbered class by class, in the order in which batches take them, `classes` each."""
    left, taken = pieces.to(torch.float64), []
    while int((left >= 1).sum()) >= classes:
        chance = torch.rand(left.numel(), generator=generator, dtype=torch.float64)
        most = (left + chance).topk(classes).indices
        left[most] -= 1
        taken.append(most)
    rest = left.long()
    kinds, within = _listed(rest)
    when = (within + torch.rand(rest.numel(), generator=generator, dtype=torch.float64)[kinds]) / rest[kinds]
    return torch.cat([*taken, kinds[when.argsort()]]).argsort(stable=True).argsort()


def _listed(counts: Int[Tensor, " kinds"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """So many of each class: class by class, the class of each and its number there, from 0."""
    kinds = torch.arange(counts.numel()).repeat_interleave(counts)
    return kinds, torch.arange(kinds.numel()) - (counts.cumsum(0) - counts)[kinds]


def _sizes(counts: Int[Tensor, " kinds"], pieces: Int[Tensor, " kinds"]) -> Int[Tensor, " pieces"]:
    """Rows of each piece, class by class: each class in equal parts, the first ones larger by one where that fails."""
    kinds, within = _listed(pieces)
    return (counts // pieces)[kinds] + (within < (counts % pieces)[kinds])


def _joined(made: list[Int[Tensor, " _"]], least: int) -> list[Int[Tensor, " _"]]:
    found: list[Tensor] = []
    for batch in made:
        if found and found[-1].numel() < least:
            found[-1] = torch.cat([found[-1], batch])
        else:
            found.append(batch)
    if len(found) > 1 and found[-1].numel() < least:
        found[-2:] = [torch.cat(found[-2:])]
    return found
