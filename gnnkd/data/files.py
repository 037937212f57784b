"""Large images stay files, which worker processes read while the network is at work."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gnnkd.data import picture
from gnnkd.data.augment import Augment, key
from gnnkd.data.store import Loaded, Store
from gnnkd.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

MOST_WORKERS = 8
"""As many worker processes at most when nobody says how many; fewer where there are fewer cores."""


@final
@dataclass(frozen=True, eq=False)
class Files(Store):
    """Image files below `root`, read with Pillow as they are asked for.

    `names` are relative paths, encoded, in one block of memory: a list of a million strings would be copied into every
    worker bit by bit. With no `workers`, reading is done between the steps. How many there are changes no pixel.
    """

    root: Path
    names: npt.NDArray[Any]
    side: int
    workers: int
    device: str = "cpu"

    @staticmethod
    def of(root: Path, names: Sequence[str], size: int, workers: int | None) -> Files:
        """A store of the named files; by default with a worker for each core, up to `MOST_WORKERS`."""
        count = min(MOST_WORKERS, os.cpu_count() or 1) if workers is None else workers
        return Files(root, np.array([os.fsencode(name) for name in names]), size, count)

    @property
    def size(self) -> int:
        """Pixels a side of what comes out."""
        return self.side

    @property
    def in_channels(self) -> int:
        """RGB."""
        return 3

    @property
    def large(self) -> bool:
        """True: images of any size are cut and resized."""
        return True

    def __len__(self) -> int:
        """Number of images N."""
        return int(self.names.size)

    def path(self, row: int) -> Path:
        """Where the image of a row is."""
        return self.root / os.fsdecode(bytes(self.names[row]))

    def to(self, device: torch.device | str) -> Files:
        """The same files, with batches on `device`."""
        return replace(self, device=str(device))

    def digest(self) -> str:
        """SHA-256 of size asked for, names and lengths of the files; to read them all would take too long."""
        digest = hashlib.sha256(f"{self.side}|{len(self)}".encode())
        for row in range(len(self)):
            digest.update(bytes(self.names[row]) + f"|{self.path(row).stat().st_size}|".encode())
        return digest.hexdigest()

    def plain(self, batches: Sequence[Int[Tensor, " _"]]) -> Iterator[Loaded]:
        """The centre of each image; see `picture.centred`.

        Raises:
            UserError: a file that cannot be read.
        """
        for index, pixels in self._read(batches, Augment("none"), 0, 0):
            yield Loaded(index, pixels, None)

    def augmented(
        self, batches: Sequence[Int[Tensor, " _"]], augment: Augment, seed: int, epoch: int
    ) -> Iterator[Loaded]:
        """A crop of random area of each image, mirrored or not; its centre if `augment` is of the kind `none`.

        Raises:
            UserError: a file that cannot be read.
            ValueError: a shift, which is of images in memory.
        """
        if augment.kind == "shift":
            raise ValueError("images in files have crops of random area, not shifts")
        for index, pixels in self._read(batches, augment, seed, epoch):
            yield Loaded(index, pixels, torch.zeros_like(index) if augment.views == 1 else None)

    def _read(
        self, batches: Sequence[Int[Tensor, " _"]], augment: Augment, seed: int, epoch: int
    ) -> Iterator[tuple[Int[Tensor, " _"], UInt8[Tensor, "_ 3 S S"]]]:
        on_gpu = torch.device(self.device).type == "cuda"
        with _quiet():
            loader = DataLoader(
                _Reader(self, augment, seed, epoch),
                batch_sampler=[batch.tolist() for batch in batches],
                num_workers=self.workers,
                collate_fn=_stacked,
                worker_init_fn=_deaf,
                pin_memory=on_gpu,
                generator=torch.Generator(),  # else each pass takes a number from the one that networks draw from
            )
            found = iter(loader)
        for batch in batches:
            pixels = _next(found)
            if isinstance(pixels, str):
                raise UserError(pixels)
            yield batch.to(self.device), pixels.to(self.device, non_blocking=on_gpu)


@final
class _Reader(Dataset[UInt8[Tensor, "3 S S"] | str]):
    """Row by row, the pixels, or what is wrong with the file: an error would cross to us with a worker's traceback."""

    def __init__(self, files: Files, augment: Augment, seed: int, epoch: int) -> None:
        self.files, self.augment, self.about = files, augment, (seed, epoch)

    def __getitem__(self, row: int) -> UInt8[Tensor, "3 S S"] | str:
        try:
            image, _ = picture.rgb(self.files.path(row))
        except UserError as error:
            return str(error)
        return picture.to_tensor(self._cut(image, row))

    def _cut(self, image: Image.Image, row: int) -> Image.Image:
        if self.augment.kind == "none":
            return picture.centred(image, self.files.side)
        draw = random.Random(key("crop", *self.about, row))
        cut = picture.resized_crop(image, self.files.side, draw)
        return picture.mirrored(cut) if self.augment.flip and draw.random() < 0.5 else cut


def _stacked(items: list[UInt8[Tensor, "3 S S"] | str]) -> UInt8[Tensor, "_ 3 S S"] | str:
    """One tensor of a batch, or the first thing that is wrong."""
    images = [item for item in items if isinstance(item, Tensor)]
    return torch.stack(images) if len(images) == len(items) else next(item for item in items if isinstance(item, str))


def _next(found: Iterator[Any]) -> Any:
    try:
        return next(found)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            "a process that reads images ended early, for want of memory perhaps; use fewer, or none: "
            "--set data.workers=0"
        ) from error


def _deaf(_: int) -> None:
    """Ctrl-C is for the process that trains, which saves first; workers end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # More workers than cores are the user's own choice.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        # Python's word on any fork beside threads; torch's workers are made for it.
        warnings.filterwarnings("ignore", r"This process .* is multi-threaded, use of fork", DeprecationWarning)
        yield
