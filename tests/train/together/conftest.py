"""A graph and a set of images so small that several networks learn them in a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gnnkd.data.dataset import from_arrays
from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_task import ImageTask
from gnnkd.data.image_task import task as image_task
from gnnkd.data.store import Pixels
from gnnkd.data.task import NodeTask, task

N, C, SIDE = 90, 3, 8


def _arrays() -> dict[str, Any]:
    """A planted partition with words that lean to a class."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % C
    a, b = rng.integers(0, N, (2, 8 * N))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    words = rng.random((N, 48)) < np.where(np.arange(48) % C == y[:, None], 0.25, 0.05)
    masks = {f"{part}_mask": np.arange(N) // 30 == i for i, part in enumerate(("train", "val", "test"))}
    return {"edge_index": np.stack([a, b])[:, near], "x": words.astype(np.float32), "y": y, **masks}


@pytest.fixture
def nodes() -> NodeTask:
    """Ninety nodes of three classes, thirty of which train, thirty validate."""
    return task(from_arrays(_arrays()), seed=0)


@pytest.fixture
def images() -> Callable[..., ImageTask]:
    """Makes the task: grey images, each class with its bright stripe; 18 test, 14 validate."""

    def made(val_fraction: float = 0.2) -> ImageTask:
        g = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 120, (N, 1, SIDE, SIDE), generator=g, dtype=torch.uint8)
        for row in range(N):
            pixels[row, :, 2 * (row % C) + 1] += 60
        dataset = ImageDataset("toy", Pixels(pixels), torch.arange(N) % C, ("low", "middle", "high"), flips=False)
        return image_task(dataset, seed=0, val_fraction=val_fraction)

    return made
