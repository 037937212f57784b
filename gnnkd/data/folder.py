"""A folder of class folders, as ImageNet has them.

    <class>/*.jpg ...                       a split is drawn
    train/<class>/*.jpg, val/<class>/...    val (or test) tests; with val and test, val validates and test tests

Images are the files of a class folder whose name ends like an image's; those in deeper folders are not looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import final

import torch

from gnnkd.data import picture
from gnnkd.data.files import Files
from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_split import masks
from gnnkd.data.store import Pixels, Store
from gnnkd.errors import UserError

SIZE = 224
"""Pixels a side of the input, when nobody says."""
LEAST_SIZE = 8


@final
@dataclass(frozen=True)
class _Part:
    """Images below one folder: relative name and class, and how many files there are no images by their names."""

    images: list[tuple[str, str]]
    others: int

    @property
    def classes(self) -> list[str]:
        """Names of the classes, sorted."""
        return sorted({label for _, label in self.images})


def load(root: Path, *, size: int | None = None, workers: int | None = None) -> ImageDataset:
    """Find the images of a folder. They stay files, unless all have one square size up to `picture.SMALL`.

    Args:
        size: of the network's input, 224 by default; of small images their own.
        workers: processes that read images; by default one a core, up to `files.MOST_WORKERS`; 0: none.

    Raises:
        UserError: an option out of range, fewer than two classes, a class folder without images, a class that is only
            in val or test, an image of a small set that cannot be read.
    """
    if size is not None and size < LEAST_SIZE:
        raise UserError(f"size is {size}; it must be at least {LEAST_SIZE} pixels")
    if workers is not None and workers < 0:
        raise UserError(f"workers is {workers}; it must be 0 or more")
    if not root.is_dir():
        raise UserError(f"{root} is no folder; give a folder of class folders with images")
    parts = _parts(root)
    classes = parts[0].classes
    if len(classes) < 2:
        raise UserError(
            f"{root} has one class, '{classes[0]}'; a classification needs at least two class folders, in it or in its "
            "folders train and val"
        )
    number = {label: c for c, label in enumerate(classes)}
    images = [image for part in parts for image in part.images]
    counts = [len(part.images) for part in parts]
    store, notes = _store(root, images, size, workers)
    val, test = masks(counts[0], sum(counts[1:-1]), counts[-1]) if len(parts) > 1 else (None, None)
    return ImageDataset(
        name=root.resolve().name,
        store=store,
        y=torch.tensor([number[label] for _, label in images]),
        classes=tuple(classes),
        protocol="given" if len(parts) > 1 else "random",
        test=test,
        val=val if len(parts) > 2 else None,
        notes=(*notes, *_left_out(parts), *_absent(parts)),
    )


def _parts(root: Path) -> list[_Part]:
    """The parts in the order train, val, test, of which one may be missing; or the whole folder as one."""
    there = [name for name in ("val", "test") if (root / name).is_dir()]
    if not there or not (root / "train").is_dir():
        return [_part(root, "")]
    parts = [_part(root, f"{name}/") for name in ("train", *there)]
    known = set(parts[0].classes)
    for name, part in zip(there, parts[1:], strict=True):
        for label in part.classes:
            if label not in known:
                raise UserError(f"{root / name / label} is of a class that {root / 'train'} does not have; remove it")
    return parts


def _part(root: Path, prefix: str) -> _Part:
    place = root / prefix
    folders = sorted(p.name for p in _entries(place) if p.is_dir())
    if not folders:
        raise UserError(f"{place} has no folders; it must have one for each class, with the images of the class in it")
    images: list[tuple[str, str]] = []
    others = 0
    for label in folders:
        files = list(_entries(place / label))
        names = sorted(p.name for p in files if Path(p.name).suffix.lower() in picture.SUFFIXES and p.is_file())
        if not names:
            deeper = sum(p.is_dir() for p in files)
            hint = f" ({deeper} folders are in it; images must lie in the class folder itself)" if deeper else ""
            raise UserError(f"the class folder {place / label} has no images{hint}; fill it or remove it")
        images += [(f"{prefix}{label}/{name}", label) for name in names]
        others += len(files) - len(names)
    return _Part(images, others)


def _entries(place: Path) -> Iterable[os.DirEntry[str]]:
    with os.scandir(place) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _store(
    root: Path, images: Sequence[tuple[str, str]], size: int | None, workers: int | None
) -> tuple[Store, tuple[str, ...]]:
    names = [name for name, _ in images]
    side = _common_side(root, images)
    if side is not None and size in (None, side):
        pixels, notes = picture.load_all(root, names, side)
        return Pixels(pixels), (f"all images have {side} x {side} pixels and are kept in memory", *notes)
    return Files.of(root, names, SIZE if size is None else size, workers), ()


def _common_side(root: Path, images: Sequence[tuple[str, str]]) -> int | None:
    """The side of all images when they are squares of one size from `LEAST_SIZE` to `picture.SMALL`.

    One of each class comes first: in a folder of photographs the answer is there at once.
    """
    first = {label: name for name, label in reversed(images)}
    side: int | None = None
    for name in chain(first.values(), (name for name, _ in images)):
        width, height = picture.dimensions(root / name)
        if width != height or not LEAST_SIZE <= width <= picture.SMALL or side not in (None, width):
            return None
        side = width
    return side


def _left_out(parts: Sequence[_Part]) -> list[str]:
    others = sum(part.others for part in parts)
    return [f"{others} entries of class folders are not images by their names and were left out"] if others else []


def _absent(parts: Sequence[_Part]) -> list[str]:
    missing = len(parts[0].classes) - len(parts[-1].classes)
    return [f"{missing} of {len(parts[0].classes)} classes have no test image"] if missing and len(parts) > 1 else []
