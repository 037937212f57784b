"""Pairs of views: each image twice, without a label, the same whatever shares the work."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from gnnkd.data.image_task import ImageTask
from gnnkd.selfsup.pairs import Pairs
from gnnkd.selfsup.views import Views
from gnnkd.types import UNKNOWN

Toy = Callable[..., ImageTask]


def test_each_training_image_comes_once_an_epoch_in_two_views(toy: Toy) -> None:
    task = toy()
    seen = []
    for batch in Pairs(task, Views()).epoch(0, 32):
        first, second = batch.index.chunk(2)
        assert torch.equal(first, second)
        a, b = batch.x.chunk(2)
        assert (a - b).abs().amax((1, 2, 3)).min() > 0
        seen.append(first)
    assert torch.equal(torch.cat(seen).sort().values, task.split.train.nonzero()[:, 0])


def test_no_label_can_be_read(toy: Toy) -> None:
    pairs = Pairs(toy(), Views())
    assert (pairs.y == UNKNOWN).all()
    for batch in pairs.epoch(3, 40):
        assert (batch.y == UNKNOWN).all()
        assert not batch.labelled.any()


def test_processes_share_the_views_that_one_would_have(toy: Toy) -> None:
    pairs = Pairs(toy(), Views())
    whole = {int(i): x for b in pairs.epoch(1, 32) for i, x in zip(b.index.chunk(2)[0], b.x.chunk(2)[1], strict=True)}
    shares = [b for rank in range(2) for b in pairs.epoch(1, 32, rank=rank, world=2)]
    found = {int(i): x for b in shares for i, x in zip(b.index.chunk(2)[0], b.x.chunk(2)[1], strict=True)}
    assert whole.keys() == found.keys()
    assert all(torch.equal(whole[i], found[i]) for i in whole)


def test_epochs_and_seeds_have_views_of_their_own(toy: Toy) -> None:
    def of(seed: int, epoch: int) -> torch.Tensor:
        (batch,) = (
            Pairs(toy(seed=0), Views()).epoch(epoch, 96) if seed == 0 else Pairs(toy(seed=1), Views()).epoch(0, 96)
        )
        return batch.x[batch.index.chunk(2)[0].argsort()]

    every = [of(0, 0), of(0, 1), of(1, 0)]
    assert torch.equal(of(0, 0), every[0])
    assert not any(torch.equal(a, b) for a, b in pairwise(every))


def test_images_that_do_not_change_are_those_of_the_task(toy: Toy) -> None:
    task = toy(channels=3)
    still = Views(least_area=1.0, ratio=1.0, flip=False, jitter=0.0, grey=0.0)
    plain = next(task.scan(torch.ones_like(task.split.train), 150))
    for batch in Pairs(task, still).epoch(0, 50):
        torch.testing.assert_close(batch.x, plain.x[batch.index], rtol=1e-5, atol=1e-5)


def test_the_global_random_state_has_no_say_and_stays(toy: Toy) -> None:
    torch.manual_seed(1)
    one = next(Pairs(toy(), Views()).epoch(0, 96)).x
    before = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(next(Pairs(toy(), Views()).epoch(0, 96)).x, one)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)
