"""Laws of the task of images: who trains, what an epoch consists of, and what has no say in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_split import split
from gnnkd.data.image_task import IMAGENET, ImageTask, moments, protocols, task
from gnnkd.data.store import Pixels
from gnnkd.errors import UserError
from gnnkd.types import UNKNOWN, Batch

N, C, S = 230, 5, 8
TESTED = 60
"""The last rows test where a split is published."""


def dataset(published: bool = True, **changes) -> ImageDataset:
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (N, 3, S, S)).astype(np.uint8)
    made = ImageDataset(
        name="noise",
        store=Pixels(torch.from_numpy(pixels)),
        y=torch.from_numpy(rng.randint(0, C, N)),
        classes=tuple("abcde"),
        protocol="public" if published else "random",
        test=torch.arange(N) >= N - TESTED if published else None,
    )
    return replace(made, **changes)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("x", "y", "index", "labelled", "view"))


def epoch(t: ImageTask, number: int = 0, size: int = 32, **world) -> list[Batch]:
    return list(t.epoch(number, size, **world))


def test_an_epoch_has_every_training_image_once_with_its_label():
    t = task(dataset(), seed=0)
    batches = epoch(t)
    index = torch.cat([b.index for b in batches])
    assert sorted(index.tolist()) == t.split.train.nonzero().flatten().tolist()
    assert index.tolist() != sorted(index.tolist())
    assert torch.equal(torch.cat([b.y for b in batches]), t.y[index])
    assert all(bool(b.labelled.all()) and b.graph is None for b in batches)
    assert [b.y.numel() for b in batches] == [32, 32, 32, 32, 25]
    assert batches[0].x.shape == (32, 3, S, S)
    assert batches[0].x.dtype == torch.float32


@pytest.mark.parametrize(("size", "sizes"), [(4, [4, 5]), (8, [9]), (7, [7, 2]), (5, [5, 4]), (3, [3, 3, 3]), (9, [9])])
def test_the_last_batch_is_kept_and_one_image_joins_the_batch_before(size, sizes):
    t = task(dataset(), seed=0)
    nine = replace(t, split=replace(t.split, train=torch.arange(N) < 9))
    assert [b.y.numel() for b in epoch(nine, size=size)] == sizes


def test_order_and_views_depend_on_seed_and_epoch_only():
    t = task(dataset(), seed=3)
    once = epoch(t, 5)
    torch.rand(7)
    epoch(t, 4)
    assert all(same(a, b) for a, b in zip(once, epoch(t, 5), strict=True))
    state = torch.get_rng_state()
    epoch(t, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch(t, 6)[0].index, once[0].index)
    assert not torch.equal(epoch(replace(t, seed=4), 5)[0].index, once[0].index)


def test_an_image_has_the_same_view_whatever_the_size_of_a_batch():
    t = task(dataset(), seed=3)
    found = []
    for size in (7, 32):
        views = torch.full((N,), -1)
        for b in epoch(t, 5, size):
            views[b.index] = b.view
        found.append(views)
    assert torch.equal(*found)


@pytest.mark.parametrize("per_class", [4, 8])
def test_balanced_batches_are_of_so_many_classes_and_each_image_is_in_one(per_class):
    t = task(dataset(), seed=3)
    batches = epoch(t, 2, per_class=per_class)
    index = torch.cat([b.index for b in batches])
    assert sorted(index.tolist()) == t.split.train.nonzero().flatten().tolist()
    found = torch.stack([torch.bincount(b.y, minlength=C) for b in batches])
    assert torch.equal(found.sum(0), counts(t.y, t.split.train))
    classes = min(C, 32 // per_class)
    assert int(((found > 0).sum(1) < classes).sum()) <= 2
    assert all(b.y.numel() <= 32 and torch.equal(b.y, t.y[b.index]) for b in batches)
    again, other = epoch(t, 2, per_class=per_class), epoch(t, 3, per_class=per_class)
    assert all(same(a, b) for a, b in zip(batches, again, strict=True))
    assert not torch.equal(index, torch.cat([b.index for b in other]))
    views = {int(i): int(v) for b in epoch(t, 2) for i, v in zip(b.index, b.view, strict=True)}
    assert all(views[int(i)] == int(v) for b in batches for i, v in zip(b.index, b.view, strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_balanced_shares_are_balanced_too(world):
    t = task(dataset(), seed=0)
    ranks = [epoch(t, 1, 24, per_class=8, rank=r, world=world) for r in range(world)]
    for shares in zip(*ranks, strict=True):
        of_each = torch.stack([torch.bincount(b.y, minlength=C) for b in shares])
        # A class that is in the batch twice, in the end, is dealt twice.
        assert int((of_each.max(0).values - of_each.min(0).values).max()) <= 2


@pytest.mark.parametrize("per_class", [None, 8])
def test_a_class_of_one_image_and_one_class_only(per_class):
    t = task(dataset(), seed=0)
    rows = torch.arange(N)
    for y in (torch.zeros_like(t.y), torch.where(rows == int(t.split.train.nonzero()[0]), 1, 0)):
        batches = epoch(replace(t, y=y), per_class=per_class)
        assert sorted(torch.cat([b.index for b in batches]).tolist()) == t.split.train.nonzero().flatten().tolist()
        assert {b.y.numel() for b in batches[1:-1]} <= {24, 25, 26, 27, 28, 29, 30, 31, 32}


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize(("size", "per_class"), [(16, None), (33, None), (16, 4), (24, 24)])
def test_the_shares_of_all_ranks_are_the_batch_of_one(world, size, per_class):
    t = task(dataset(), seed=0)
    n = int(t.split.train.sum())
    whole = epoch(t, 1, size, per_class=per_class)
    ranks = [epoch(t, 1, size, per_class=per_class, rank=r, world=world) for r in range(world)]
    assert len({len(r) for r in ranks}) == 1
    for step, batches in enumerate(zip(*ranks, strict=True)):
        sizes = [b.y.numel() for b in batches]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 2
        shares = {int(i): x for b in batches for i, x in zip(b.index, b.x, strict=True)}
        last = step == len(ranks[0]) - 1
        one = whole[step:] if last else whole[step : step + 1]
        assert sorted(shares) == sorted(torch.cat([b.index for b in one]).tolist())
        assert all(torch.equal(shares[int(i)], x) for b in one for i, x in zip(b.index, b.x, strict=True))
    assert sum(b.y.numel() for r in ranks for b in r) == n


def test_batches_too_small_for_batch_norm_are_refused():
    t = task(dataset(), seed=0)
    with pytest.raises(UserError, match="batch_size is 1; it must be at least 2"):
        t.epoch(0, 1)
    with pytest.raises(UserError, match="batch_size is 6; it must be at least 8, 2 for each process"):
        t.epoch(0, 6, rank=1, world=4)
    few = replace(t, split=replace(t.split, train=torch.arange(N) < 3))
    with pytest.raises(UserError, match="noise has 3 training images; training needs at least 4"):
        few.epoch(0, 8, world=2)


def test_a_scan_is_in_order_not_varied_and_blank():
    data = dataset()
    t = task(data, seed=0)
    batches = list(t.scan(t.split.test, 25))
    assert [b.y.numel() for b in batches] == [25, 25, 10]
    index = torch.cat([b.index for b in batches])
    assert index.tolist() == list(range(N - TESTED, N))
    assert all((b.y == UNKNOWN).all() and not b.labelled.any() for b in batches)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (t.mean, t.std))
    expected = (data.store.data[index] / 255 - mean) / std
    torch.testing.assert_close(torch.cat([b.x for b in batches]), expected, atol=1e-5, rtol=1e-5)
    assert list(t.scan(torch.zeros(N, dtype=torch.bool), 25)) == []


def test_without_augmentation_an_image_is_itself():
    t = task(dataset(), seed=0, augment="none")
    scanned = torch.cat([b.x for b in t.scan(torch.ones(N, dtype=torch.bool), 64)])
    for b in epoch(t):
        assert torch.equal(b.x, scanned[b.index])
        assert b.view.tolist() == [0] * b.y.numel()
    assert t.augment.views == 1


def shuffled(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    found = y.clone()
    rows = mask.nonzero().flatten()
    found[rows] = y[rows].roll(1)
    assert not torch.equal(found, y)
    return found


@pytest.mark.parametrize("per_class", [None, 8])
def test_labels_of_the_test_set_have_no_say(per_class):
    data = dataset()
    t = task(data, seed=0)
    other = task(replace(data, y=shuffled(data.y, data.test)), seed=0)
    assert t.fingerprint == other.fingerprint
    assert t.content != other.content
    assert (t.mean, t.std) == (other.mean, other.std)
    both = [epoch(one, 2, per_class=per_class) for one in (t, other)]
    assert all(same(a, b) for a, b in zip(*both, strict=True))


@pytest.mark.parametrize("per_class", [None, 8])
def test_labels_of_validation_have_no_say_in_training(per_class):
    t = task(dataset(), seed=0)
    other = replace(t, y=shuffled(t.y, t.split.val))
    both = [epoch(one, 2, per_class=per_class) for one in (t, other)]
    assert all(same(a, b) for a, b in zip(*both, strict=True))


def test_labels_of_training_order_balanced_batches_and_no_others():
    t = task(dataset(), seed=0)
    other = replace(t, y=shuffled(t.y, t.split.train))
    for per_class in (None, 8):
        orders = [torch.cat([b.index for b in epoch(one, 2, per_class=per_class)]) for one in (t, other)]
        assert torch.equal(*orders) == (per_class is None)


def test_pixels_outside_training_have_no_say_in_training():
    data = dataset()
    t = task(data, seed=0)
    pixels = torch.where(t.split.train.view(-1, 1, 1, 1), data.store.data, 255 - data.store.data)
    other = task(replace(data, store=Pixels(pixels)), seed=0)
    assert (t.mean, t.std) == (other.mean, other.std)
    assert all(same(a, b) for a, b in zip(epoch(t, 2), epoch(other, 2), strict=True))


def test_mean_and_deviation_are_those_of_the_training_pixels_or_published():
    t = task(dataset(), seed=0)
    pixels = t.store.data[t.split.train].double() / 255
    torch.testing.assert_close(torch.tensor(t.mean, dtype=torch.float64), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(t.std, dtype=torch.float64), pixels.std((0, 2, 3), correction=0))
    assert task(dataset(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)), seed=0).mean == (0.1, 0.2, 0.3)
    black = Pixels(torch.zeros(4, 1, S, S, dtype=torch.uint8))
    assert moments(black, torch.ones(4, dtype=torch.bool)) == ((0.0,), (1.0,))
    assert len(IMAGENET[0]) == 3


def counts(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.bincount(y[mask], minlength=C)


@pytest.mark.parametrize("fraction", [0, 0.05, 0.1, 0.33, 0.5])
def test_validation_has_the_shares_of_the_training_images(fraction):
    t = task(dataset(), seed=1, val_fraction=fraction)
    learnt = ~dataset().test
    assert t.split.sizes[1] == round(fraction * int(learnt.sum()) + 1e-9)
    expected = fraction * counts(t.y, learnt)
    assert float((counts(t.y, t.split.val) - expected).abs().max()) < 1
    assert torch.equal(t.split.train | t.split.val, learnt)
    assert not bool((t.split.train & t.split.val).any())


def test_a_stratified_fifth_tests_where_nothing_is_published():
    data = dataset(published=False)
    assert protocols(data) == ["random"]
    t, other = (task(data, seed=seed) for seed in (0, 1))
    assert t.protocol == "random"
    assert t.split.sizes[2] == round(N / 5)
    assert float((counts(t.y, t.split.test) - counts(t.y, torch.ones(N, dtype=torch.bool)) / 5).abs().max()) < 1
    assert not torch.equal(t.split.test, other.split.test)
    assert t.fingerprint != other.fingerprint
    assert t.content != other.content, "mean and deviation are of other rows"
    assert torch.equal(task(data, seed=0, val_fraction=0.5).split.test, t.split.test)


def test_the_draw_is_that_of_numpy():
    """The published recipe, by hand: one permutation for each class, ascending, test first."""
    y = torch.tensor([0, 1] * 10)
    draw = np.random.RandomState(9)
    tested = [draw.permutation(np.arange(c, 20, 2))[:2] for c in (0, 1)]
    rest = np.setdiff1d(np.arange(20), np.concatenate(tested))
    validated = [draw.permutation(rest[rest % 2 == c])[:2] for c in (0, 1)]
    found = split(y, 9, val_fraction=0.25)
    assert found.test.nonzero().flatten().tolist() == sorted(np.concatenate(tested))
    assert found.val.nonzero().flatten().tolist() == sorted(np.concatenate(validated))


def test_a_class_keeps_an_image_to_train():
    y = torch.tensor([0] * 50 + [1, 1, 2])
    for seed in range(5):
        found = split(y, seed, val_fraction=0.5)
        assert set(y[found.train].tolist()) == {0, 1, 2}


def test_a_given_validation_set_is_taken_as_it_is():
    val = torch.arange(N) < 20
    data = dataset(val=val, protocol="given")
    t = task(data, seed=0, val_fraction=0)
    assert torch.equal(t.split.val, val)
    assert t.split.sizes == (N - TESTED - 20, 20, TESTED)
    assert protocols(data) == ["given", "random"]
    assert not torch.equal(task(data, seed=0, protocol="random").split.val, val)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"val_fraction": 0.6}, "val_fraction is 0.6; it must be from 0 to 0.5"),
        ({"val_fraction": -0.1}, "val_fraction is -0.1"),
        ({"val_fraction": float("nan")}, "val_fraction is nan"),
        (
            {"val_fraction": 0.001},
            "no image to validate; val_fraction is 0.001 of 170 images: raise it, or set it to 0",
        ),
        ({"seed": -1}, "seed is -1"),
        ({"protocol": "cpf"}, "unknown split of images 'cpf'"),
        ({"protocol": "given"}, "'noise' has no split 'given'; it has public, random"),
        ({"augment": "rotate"}, "unknown augmentation 'rotate'"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(UserError, match=said) as error:
        task(dataset(), **{"seed": 0} | options)
    assert "\n" not in str(error.value)


def test_fingerprint_is_of_rows_and_masks_and_content_of_the_rest():
    data = dataset()
    t = task(data, seed=0)
    assert task(data, seed=1).fingerprint != t.fingerprint
    assert task(data, seed=0, val_fraction=0.2).fingerprint != t.fingerprint
    assert task(data, seed=0, protocol="random").fingerprint != t.fingerprint
    pixels = data.store.data.clone()
    pixels[-1, 0, 0, 0] ^= 1
    changed = task(replace(data, store=Pixels(pixels)), seed=0)
    assert changed.fingerprint == t.fingerprint
    assert changed.content != t.content
    assert task(replace(data, classes=tuple("abcdf")), seed=0).content != t.content
    assert task(dataset(), seed=0).content == t.content


def test_the_same_task_elsewhere():
    """On the device `meta` nothing has a value, so this says where everything went."""
    t = task(dataset(), seed=0)
    there = t.to("cpu")
    assert all(same(a, b) for a, b in zip(epoch(t), epoch(there), strict=True))
    away = t.to("meta")
    assert {away.y.device.type, away.store.data.device.type, away.split.train.device.type} == {"meta"}


def test_sizes_and_names():
    t = task(dataset(), seed=0)
    assert (t.n_images, t.n_classes, t.size, t.in_channels, t.setting) == (N, C, S, 3, "tran")
