"""How large the images of a dataset are, by its name or its first file: before anything is read."""

from __future__ import annotations

from pathlib import Path

from gnnkd.data import folder, picture
from gnnkd.errors import UserError
from gnnkd.images.presets import KINDS, SIZES


def of(dataset: str, said: int | None) -> int | None:
    """Height and width that a network will see, `said` of a folder if anything; None where no file tells.

    A folder's first image stands for all: small squares stay as they are, others come to the loader's size.
    """
    name = dataset.lower().replace("_", "-")
    if name in KINDS:
        return SIZES[KINDS[name]]
    first = None if said else _first(Path(dataset))
    if first is None:
        return said
    try:
        width, height = picture.dimensions(first)
    except UserError:  # said when all are read
        return None
    return width if width == height and folder.LEAST_SIZE <= width <= picture.SMALL else folder.SIZE


def _first(root: Path) -> Path | None:
    """The first image of the first class, in the order of `folder.load`."""
    try:
        root = root.expanduser()
        parts = (root / "train").is_dir() and any((root / name).is_dir() for name in ("val", "test"))
        classes = _seen(root / "train" if parts else root)
        label = next((place for place in classes if place.is_dir()), None)
        files = _seen(label) if label else []
        return next((file for file in files if file.suffix.lower() in picture.SUFFIXES and file.is_file()), None)
    except (OSError, RuntimeError):  # no folder, or nobody's home: said when it is read
        return None


def _seen(place: Path) -> list[Path]:
    return sorted((path for path in place.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
