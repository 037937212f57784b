"""A task's training images as pairs of views, without their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnnkd.data.augment import Augment, generator
from gnnkd.data.image_task import ImageTask
from gnnkd.graph.split import Split
from gnnkd.selfsup.views import DRAWS, Views, seen
from gnnkd.types import UNKNOWN, Batch


@final
class Pairs:
    """Batches of 2 N rows: first views of N images, then second views of the same; `index` says whose they are.

    What an image's views are depends on seed, epoch and row only: not on the device, on the number of processes or on
    what ran before. No label can be read: all of them are `UNKNOWN`.

    Args:
        task: the images; its own augmentation is left out.
        views: what happens to an image.
    """

    def __init__(self, task: ImageTask, views: Views) -> None:
        self.task, self.views = task, views
        n, k = task.n_images, task.in_channels
        self._bare = replace(task, mean=(0.0,) * k, std=(1.0,) * k, augment=Augment("none"))
        device = task.y.device
        self._mean = torch.tensor(task.mean, device=device).view(-1, 1, 1)
        self._std = torch.tensor(task.std, device=device).view(-1, 1, 1)
        self._blank = torch.full((n,), UNKNOWN, device=device)

    @property
    def y(self) -> Int[Tensor, " N"]:
        """Nothing: `UNKNOWN` for each row."""
        return self._blank

    @property
    def split(self) -> Split:
        """Which rows train, validate and test."""
        return self.task.split

    def epoch(
        self, epoch: int, batch_size: int, *, per_class: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """The training images once each, shuffled, in two views each.

        Args:
            epoch: from 0.
            batch_size: images of a step, of all processes together; a batch has two rows for each.
            per_class: None; classes are not known here.
            rank: 0 .. world - 1.
            world: number of processes.
        """
        assert per_class is None, "pairs of views know no classes"
        draws = torch.rand(self.task.n_images, 2 * DRAWS, generator=generator("views", self.task.seed, epoch))
        draws = draws.to(self._blank.device)
        for batch in self._bare.epoch(epoch, batch_size, rank=rank, world=world):
            assert isinstance(batch.x, Tensor)
            yield self._pair(batch.x, batch.index, draws.index_select(0, batch.index))

    def _pair(self, x: Float[Tensor, "N K H W"], index: Int[Tensor, " N"], draws: Float[Tensor, "N draws"]) -> Batch:
        both = seen(torch.cat([x, x]), torch.cat(draws.chunk(2, dim=1)), self.views)
        rows = torch.cat([index, index])
        nothing = torch.zeros_like(rows, dtype=torch.bool)
        return Batch.of((both - self._mean) / self._std, self._blank[rows], None, nothing, rows)

    def scan(self, mask: Bool[Tensor, " N"], batch_size: int) -> Iterator[Batch]:
        """The masked images in order, as they are."""
        return self.task.scan(mask, batch_size)
