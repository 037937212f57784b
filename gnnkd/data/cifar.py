"""CIFAR-10 and CIFAR-100 in their Python version: pickled batches of any length.

A batch is a dictionary with, among others, `data` (uint8 [N, 3072]: the planes R, G, B of 32 x 32 pixels, row by row)
and a list of labels; its keys are text or bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from gnnkd.data import raw, safe_pickle
from gnnkd.data.archive import download
from gnnkd.data.image_dataset import ImageDataset
from gnnkd.data.image_split import masks
from gnnkd.data.store import Pixels
from gnnkd.errors import UserError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
Images = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]


@final
@dataclass(frozen=True)
class Cifar:
    """One of the two sets: where it is published, what its files and fields are called, its mean and deviation."""

    url: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the folder that are read."""
        return (*self.train, self.test, self.meta)


SETS: Mapping[str, Cifar] = MappingProxyType(
    {
        "cifar10": Cifar(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            folder="cifar-10-batches-py",
            train=tuple(f"data_batch_{i}" for i in range(1, 6)),
            test="test_batch",
            meta="batches.meta",
            labels="labels",
            names="label_names",
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
        "cifar100": Cifar(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            folder="cifar-100-python",
            train=("train",),
            test="test",
            meta="meta",
            labels="fine_labels",
            names="fine_label_names",
            mean=(0.5071, 0.4867, 0.4408),
            std=(0.2675, 0.2565, 0.2761),
        ),
    }
)


def load(name: str, cifar: Cifar, root: Path) -> ImageDataset:
    """Read the set below `root`; download it when nothing of it is there.

    Raises:
        UserError: some files are missing, damaged or not of this format, or nothing is there and cannot be had.
    """
    source = _source(cifar)
    raw.fetch(source, name, root)
    found = raw.read(source, name, root)
    n, tested = found["labels"].size, int(found["tested"])
    return ImageDataset(
        name=name,
        store=Pixels(torch.from_numpy(found["pixels"])),
        y=torch.from_numpy(found["labels"]),
        classes=tuple(found["classes"].tolist()),
        protocol="public",
        test=masks(n - tested, 0, tested)[1],
        mean=cifar.mean,
        std=cifar.std,
    )


def _source(cifar: Cifar) -> raw.Source:
    files = [f"{cifar.folder}/{file}" for file in cifar.files]
    fetch = functools.partial(download, cifar.url, cifar.md5, files)
    return raw.Source(Path(cifar.folder), cifar.files, functools.partial(_read, cifar), fetch, protocol="public")


def _read(cifar: Cifar, folder: Path) -> Mapping[str, npt.NDArray[Any]]:
    """The images of all batches, those that test at the end, their labels, how many test, and the classes' names."""
    classes = _class_names(folder / cifar.meta, cifar.names)
    batches = [_batch(folder / file, cifar.labels, len(classes)) for file in (*cifar.train, cifar.test)]
    pixels, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    tested = batches[-1][1].size
    return {"pixels": pixels, "labels": labels, "tested": np.array(tested), "classes": np.array(classes)}


def _fields(file: Path) -> dict[str, Any]:
    found = safe_pickle.read(file)
    if not isinstance(found, dict):
        raise UserError(f"{file} holds a {type(found).__name__}; it must be a dictionary of a CIFAR batch")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in found.items()}


def _field(fields: Mapping[str, Any], name: str, file: Path) -> Any:
    if name not in fields:
        held = ", ".join(f"{key!a}" for key in sorted(fields)[:8]) or "nothing"
        raise UserError(f"{file}: '{name}' is missing; it holds {held}")
    return fields[name]


def _class_names(file: Path, field: str) -> tuple[str, ...]:
    found = _field(_fields(file), field, file)
    if not isinstance(found, list | tuple) or len(found) < 2 or not all(isinstance(n, str | bytes) for n in found):
        raise UserError(f"{file}: '{field}' must be a list of at least two class names")
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in found)


def _batch(file: Path, field: str, n_classes: int) -> tuple[Images, Ids]:
    fields = _fields(file)
    data, said = _field(fields, "data", file), _field(fields, field, file)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        what = f"type {data.dtype}" if isinstance(data, np.ndarray) else type(data).__name__
        raise UserError(f"{file}: data is of {what}; it must be an array of uint8")
    if data.ndim != 2 or data.shape[1] != PIXELS or not len(data):
        raise UserError(f"{file}: data has shape {list(data.shape)}; it must be [N, {PIXELS}] with N at least 1")
    labels = _labels(said, field, file)
    if labels.size != len(data):
        raise UserError(f"{file}: data has {len(data)} images and '{field}' {labels.size} labels; they must be as many")
    outside = (labels < 0) | (labels >= n_classes)
    if outside.any():
        row = int(outside.argmax())
        raise UserError(f"{file}: {field}[{row}] is {labels[row]}; labels go from 0 to {n_classes - 1}")
    return np.asarray(data).reshape(-1, 3, SIDE, SIDE), labels


def _labels(said: Any, field: str, file: Path) -> Ids:
    if isinstance(said, list | tuple):
        whole = all(type(label) is int and abs(label) < 2**62 for label in said)
    else:
        whole = isinstance(said, np.ndarray) and said.ndim == 1 and said.dtype.kind in "iu"
    if not whole:
        raise UserError(f"{file}: '{field}' must be a list of whole numbers")
    return np.asarray(said, dtype=np.int64)
