"""Tiny ImageNet in its own layout: 64 x 64 images of the classes that `wnids.txt` lists.

    wnids.txt, words.txt                    ids of the classes; a name for each of many ids
    train/<id>/images/*.JPEG                training images
    val/val_annotations.txt, val/images/    file and class id of the images that test here, for `test/` has no labels

Grey images are brought to RGB, and a note says how many there were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from gnnkd.data import picture
from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_split import masks
from gnnkd.data.store import Pixels
from gnnkd.errors import UserError

FOLDER = "tiny-imagenet-200"
SIDE = 64


def load(name: str, root: Path) -> ImageDataset:
    """Read the set below `root`, all of it into memory.

    Raises:
        UserError: nothing is there, a list or an image is missing or damaged.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        raise UserError(
            f"dataset '{name}' is not in {folder}; unpack tiny-imagenet-200.zip there, or give the folder that has it "
            "with --data_root"
        )
    ids = _ids(folder / "wnids.txt")
    number = {wnid: c for c, wnid in enumerate(ids)}
    train = [(path, c) for wnid, c in number.items() for path in _train(folder, wnid)]
    test = _tested(folder, number)
    names, labels = zip(*train, *test, strict=True)
    pixels, notes = picture.load_all(folder, names, SIDE)
    return ImageDataset(
        name=name,
        store=Pixels(pixels),
        y=torch.tensor(labels),
        classes=_named(ids, folder / "words.txt"),
        protocol="public",
        test=masks(len(train), 0, len(test))[1],
        notes=notes,
    )


def _lines(file: Path) -> list[list[str]]:
    """The lines that hold something, cut at tabs."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error.__class__.__name__}); Tiny ImageNet needs it") from error
    return [line.split("\t") for line in text.splitlines() if line.strip()]


def _ids(file: Path) -> list[str]:
    ids = [line[0].strip() for line in _lines(file)]
    if len(ids) < 2 or len(set(ids)) < len(ids):
        raise UserError(
            f"{file} lists {len(ids)} classes, {len(set(ids))} different; it must list two or more, each once"
        )
    return ids


def _named(ids: Sequence[str], file: Path) -> tuple[str, ...]:
    """The words of each class, with its id where others have the same words; the id alone where there are none."""
    words = {line[0].strip(): line[1].strip() for line in _lines(file) if len(line) > 1} if file.is_file() else {}
    names = [words.get(wnid, wnid) for wnid in ids]
    often = Counter(names)
    return tuple(name if often[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, ids, strict=True))


def _train(folder: Path, wnid: str) -> list[str]:
    place = folder / "train" / wnid / "images"
    found = sorted(p.name for p in place.iterdir() if _is_image(p)) if place.is_dir() else []
    if not found:
        raise UserError(f"{place} has no images; wnids.txt lists the class {wnid}: complete the folder, or the list")
    return [f"train/{wnid}/images/{name}" for name in found]


def _tested(folder: Path, number: dict[str, int]) -> list[tuple[str, int]]:
    file = folder / "val" / "val_annotations.txt"
    found = []
    for at, line in enumerate(_lines(file), start=1):
        if len(line) < 2 or line[1] not in number:
            raise UserError(f"{file}: line {at} is {' '.join(line)!a:.60}; it must be a file and a class of wnids.txt")
        if Path(line[0]).name != line[0]:
            raise UserError(f"{file}: line {at} names {line[0]!a:.60}; it must be a file of val/images")
        found.append((f"val/images/{line[0]}", number[line[1]]))
    if not found:
        raise UserError(f"{file} lists no image; the images that it lists are the test set")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in picture.SUFFIXES and not path.name.startswith(".")
