"""A name, or the path to a folder, becomes a labelled set of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from gnnkd.data import cifar, folder, graphs, tiny_imagenet
from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_task import ImageTask, protocols, task
from gnnkd.data.location import data_root
from gnnkd.data.store import Pixels
from gnnkd.errors import UserError, unknown

__all__ = ["NAMES", "ImageDataset", "ImageTask", "is_images", "load", "names", "protocols", "task"]

NAMES = ("cifar10", "cifar100", "digits-images", "tiny-imagenet")
"""The sets known by name. `digits` means these images, too, for those who have said that they want images."""

_BRIGHTEST, _STEP = 16, 15
"""Of a digit's pixel, and what brings it to 0 .. 240."""


def digits(name: str) -> ImageDataset:
    """scikit-learn's 1797 handwritten digits, 8 x 8 grey pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = (found.images.clip(0, _BRIGHTEST) * _STEP).astype(np.uint8)
    return ImageDataset(
        name=name,
        store=Pixels(torch.from_numpy(pixels)[:, None]),
        y=torch.from_numpy(found.target.astype(np.int64)),
        classes=tuple(range(10)),
        flips=False,
    )


_READERS: Mapping[str, Callable[[str, Path], ImageDataset]] = MappingProxyType(
    {
        **{name: lambda name, root: cifar.load(name, cifar.SETS[name], root) for name in cifar.SETS},
        "digits": lambda name, _: digits(name),
        "digits-images": lambda name, _: digits(name),
        "tiny-imagenet": tiny_imagenet.load,
    }
)


def names() -> list[str]:
    """The sets known by name."""
    return sorted(NAMES)


def is_images(name: str | os.PathLike[str]) -> bool:
    """Whether a name or path is of images by itself: a known set, or a folder that is there.

    A graph's name is none, even where a folder is called so.
    """
    word = os.fspath(name)
    key = _key(word)
    return key in NAMES or (key not in graphs.names() and os.path.isdir(word))  # noqa: PTH112, a name too long is none


def load(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    size: int | None = None,
    workers: int | None = None,
) -> ImageDataset:
    """Load a set of images by name, or a folder of class folders by path.

    Args:
        name: upper or lower case, dashes or underscores; or a path (see `gnnkd.data.folder` for the layout).
        root: of the raw data; by default `$GNNKD_DATA`, else a folder in the user's cache. CIFAR is downloaded when
            nothing of it is there.
        size: of the network's input in pixels, for folders; 224 by default, or the images' own if all are small.
        workers: processes that read images, for folders.

    Raises:
        UserError: an unknown name, data that is not there or damaged, an option that does not apply.
    """
    word = os.fspath(name)
    key = _key(word)
    if key in _READERS:
        for option, value in (("size", size), ("workers", workers)):
            if value is not None:
                raise UserError(f"{option} is {value}, but '{key}' has small images, kept in memory; leave it out")
        return _READERS[key](key, data_root(root))
    if os.sep in word or os.path.isdir(word):  # noqa: PTH112, a name too long is no folder
        return folder.load(Path(word).expanduser(), size=size, workers=workers)
    raise UserError(f"{unknown('set of images', key, NAMES)}; or give the path to a folder of class folders")


def _key(word: str) -> str:
    return word.lower().replace("_", "-")
