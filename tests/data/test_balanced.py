"""Laws of balanced batches: every row once, so many classes in a batch, pieces as large as they can be."""

from __future__ import annotations

import time
from math import ceil

import pytest
import torch

from gnnkd.data.balanced import batches


def made(y: torch.Tensor, per_class: int, classes: int, *, least: int = 1, seed: int = 0) -> list[torch.Tensor]:
    return batches(y, per_class, classes, least, torch.Generator().manual_seed(seed))


def counts(y: torch.Tensor, found: list[torch.Tensor]) -> torch.Tensor:
    """Rows of each class in each batch [batches, classes]."""
    return torch.stack([torch.bincount(y[rows], minlength=int(y.max()) + 1) for rows in found])


def labels(*of_each: int) -> torch.Tensor:
    """So many rows of each class, in a fixed disorder."""
    y = torch.arange(len(of_each)).repeat_interleave(torch.tensor(of_each))
    return y[torch.randperm(y.numel(), generator=torch.Generator().manual_seed(7))]


UNEVEN = {
    "equal": labels(*[40] * 12),
    "uneven": labels(100, 3, 17, 55, 1, 8, 9, 64, 30, 2),
    "two": labels(50, 20),
    "one": labels(37),
    "single": labels(1, 1, 1, 1, 1),
    "gaps": labels(0, 20, 0, 0, 31, 5, 0),
    "huge": labels(400, 5, 5, 5, 5),
}


@pytest.mark.parametrize("y", UNEVEN.values(), ids=UNEVEN)
@pytest.mark.parametrize(("per_class", "classes"), [(8, 4), (1, 3), (4, 1), (1, 1), (100, 2), (3, 20)])
def test_each_row_is_in_one_batch(y: torch.Tensor, per_class: int, classes: int) -> None:
    found = made(y, per_class, classes)
    assert torch.cat(found).sort().values.tolist() == list(range(y.numel()))
    assert all(rows.numel() <= per_class * classes for rows in found)


@pytest.mark.parametrize("y", UNEVEN.values(), ids=UNEVEN)
@pytest.mark.parametrize(("per_class", "classes"), [(8, 4), (5, 3), (2, 2)])
def test_a_class_comes_in_as_few_pieces_as_can_be_nearly_equal_ones(
    y: torch.Tensor, per_class: int, classes: int
) -> None:
    pieces: dict[int, list[int]] = {}
    for rows in made(y, per_class, classes):
        kinds, sizes = torch.unique_consecutive(y[rows], return_counts=True)
        for kind, size in zip(kinds.tolist(), sizes.tolist(), strict=True):
            pieces.setdefault(kind, []).append(size)
    for kind, n in enumerate(torch.bincount(y).tolist()):
        sizes = pieces.get(kind, [])
        smallest = n // max(1, ceil(n / per_class))
        # Two pieces may lie side by side in a batch where there are few classes; they are seen as one here.
        assert len(sizes) <= ceil(n / per_class)
        assert all(size >= smallest for size in sizes)
        if len(sizes) == ceil(n / per_class) and sizes:
            assert max(sizes) <= per_class
            assert max(sizes) - min(sizes) <= 1


def test_a_batch_has_so_many_classes_and_so_many_rows_of_each() -> None:
    y = labels(*[40] * 12)
    of_each = counts(y, made(y, 8, 4))
    assert of_each.shape == (15, 12)
    assert set(of_each.flatten().tolist()) == {0, 8}
    assert (of_each > 0).sum(1).tolist() == [4] * 15
    assert len({tuple(row) for row in (of_each > 0).tolist()}) > 10, "not the same classes together each time"


def test_as_few_batches_as_can_be_lack_classes() -> None:
    """A batch that has one class twice is of the end, when fewer classes than it takes have any pieces left."""
    y = labels(100, 3, 17, 55, 1, 8, 9, 64, 30, 2)
    lacking = (counts(y, made(y, 8, 4)) > 0).sum(1) < 4
    assert int(lacking.sum()) <= 3, "13, 7, 8 and 4 pieces of large classes share their batches with the eight others"
    y = labels(*[63] * 100)
    assert int(((counts(y, made(y, 8, 8)) > 0).sum(1) < 8).sum()) <= 1


def test_the_largest_class_waits_for_no_one() -> None:
    """One class of ten pieces and many of one: it is in every batch, or a batch would lack classes in the end."""
    y = labels(80, *[8] * 30)
    of_each = counts(y, made(y, 8, 4))
    assert of_each[:, 0].tolist() == [8] * 10
    assert ((of_each > 0).sum(1) == 4).all()


def test_fewer_classes_than_a_batch_takes_share_it_evenly() -> None:
    y = labels(160, 80)
    of_each = counts(y, made(y, 8, 6))
    assert of_each.sum(1).tolist() == [48] * 5
    assert (of_each >= 8).all()
    assert int((of_each[:, 0] - 32).abs().max()) <= 8
    alone = made(labels(37), 4, 3)
    assert len(alone) == 4, "ten pieces of 4 or 3, three a batch"


def test_too_small_batches_join_others() -> None:
    for seed in range(20):
        for y in (labels(*[1] * 9), labels(8, 1), labels(9, 9, 2)):
            found = made(y, 1, 1, least=3, seed=seed)
            assert [rows.numel() for rows in found] == [3] * (y.numel() // 3 - 1) + [3 + y.numel() % 3]
            assert torch.cat(found).unique().numel() == y.numel()
    assert len(made(labels(1, 1), 8, 8, least=2)) == 1


def test_what_is_drawn_depends_on_the_generator_alone() -> None:
    y = UNEVEN["uneven"]
    state = torch.get_rng_state()
    first, again, other = made(y, 8, 4), made(y, 8, 4), made(y, 8, 4, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.cat(first).tolist() != torch.cat(other).tolist()
    renamed = made(3 * y + 5, 8, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, renamed, strict=True)), "names of classes have no say"


def test_the_rows_of_a_piece_change_from_epoch_to_epoch() -> None:
    """Two rows of a class of twenty pieces meet about once in twenty epochs, not always."""
    y = labels(160, 160, 160)
    one, two = (y == 0).nonzero().flatten()[:2].tolist()
    met = sum(any({one, two} <= set(rows.tolist()) for rows in made(y, 8, 2, seed=seed)) for seed in range(60))
    assert met < 15


def test_a_million_rows_take_seconds() -> None:
    y = torch.arange(1_200_000) % 1000
    start = time.process_time()
    found = made(y, 8, 32)
    assert time.process_time() - start < 20
    assert len(found) == 150 * 1000 // 32 + 1
