"""A set of images so small that a network learns it in a moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_task import ImageTask, task
from gnnkd.data.store import Pixels

N, C, SIDE = 150, 3, 8


@pytest.fixture
def toy() -> Callable[..., ImageTask]:
    """Makes the task of grey images, each class with its bright stripe: 30 test, 24 validate, 96 train."""
    noise = torch.randint(0, 120, (N, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for row in range(N):
        noise[row, :, 2 * (row % C) + 1] += 110

    def made(*, seed: int = 0, y: torch.Tensor | None = None, channels: int = 1) -> ImageTask:
        labels = torch.arange(N) % C
        store = Pixels(noise.expand(-1, channels, -1, -1).contiguous())
        found = task(
            ImageDataset("toy", store, labels, ("low", "middle", "high"), flips=False), seed=seed, val_fraction=0.2
        )
        if y is None:
            return found
        from dataclasses import replace

        return replace(found, y=y)

    return made
