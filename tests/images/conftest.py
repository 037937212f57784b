"""A set of images so small that a network learns it in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_task import ImageTask, task
from gnnkd.data.store import Pixels

N, C, SIDE = 150, 3, 8


def pixels() -> torch.Tensor:
    """Grey images: each class has its bright stripe, and noise."""
    noise = torch.randint(0, 120, (N, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for row in range(N):
        noise[row, :, 2 * (row % C) + 1] += 110
    return noise


@pytest.fixture
def toy() -> Callable[..., ImageTask]:
    """Makes the task: 30 of its images test, 24 validate."""

    def made(*, seed: int = 0, val_fraction: float = 0.2) -> ImageTask:
        y = torch.arange(N) % C
        dataset = ImageDataset("toy", Pixels(pixels()), y, ("low", "middle", "high"), flips=False)
        return task(dataset, seed=seed, val_fraction=val_fraction)

    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same as files in class folders."""
    from PIL import Image

    for row, image in enumerate(pixels()):
        place = tmp_path / "toys" / ("low", "middle", "high")[row % C]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(place / f"{row}.png")
    return tmp_path / "toys"
