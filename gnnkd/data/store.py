"""Where images are kept, and how a run of batches comes out of there."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from typing_extensions import Self

from gnnkd.data.augment import Augment, generator, seen, view_pixels


@final
@dataclass(frozen=True, eq=False)
class Loaded:
    """Images of one batch on the device: their rows, pixels, and which view each is in where that can be said."""

    index: Int[Tensor, " N"]
    pixels: UInt8[Tensor, "N K S S"]
    view: Int[Tensor, " N"] | None


class Store(ABC):
    """Images by row. Batches come out in the order in which they are asked for, squares of `size` pixels."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Pixels a side of what comes out."""

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Channels of what comes out."""

    @property
    @abstractmethod
    def large(self) -> bool:
        """Whether the images that are kept are larger than what comes out, and crops of random area make sense."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same store, with its batches on `device`."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what the images are."""

    @abstractmethod
    def plain(self, batches: Sequence[Int[Tensor, " _"]]) -> Iterator[Loaded]:
        """Images as they are, for scoring.

        Args:
            batches: rows, on the CPU.
        """

    @abstractmethod
    def augmented(
        self, batches: Sequence[Int[Tensor, " _"]], augment: Augment, seed: int, epoch: int
    ) -> Iterator[Loaded]:
        """Images varied for training; each image's draw depends on seed, epoch and row only.

        Args:
            batches: rows, on the CPU.
        """


@final
@dataclass(frozen=True, eq=False)
class Pixels(Store):
    """Small images, all of them as bytes in the device's memory."""

    data: UInt8[Tensor, "N K S S"]

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.data.shape[-1]

    @property
    def in_channels(self) -> int:
        """Channels K."""
        return self.data.shape[1]

    @property
    def large(self) -> bool:
        """False: what is kept is what comes out."""
        return False

    def __len__(self) -> int:
        """Number of images N."""
        return self.data.shape[0]

    def to(self, device: torch.device | str) -> Pixels:
        """The same pixels on `device`."""
        return replace(self, data=self.data.to(device))

    def digest(self) -> str:
        """SHA-256 of shape and pixels."""
        digest = hashlib.sha256(str(tuple(self.data.shape)).encode())
        digest.update(self.data.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def plain(self, batches: Sequence[Int[Tensor, " _"]]) -> Iterator[Loaded]:
        """The rows' pixels."""
        for index in self._moved(batches):
            yield Loaded(index, self.data.index_select(0, index), None)

    def augmented(
        self, batches: Sequence[Int[Tensor, " _"]], augment: Augment, seed: int, epoch: int
    ) -> Iterator[Loaded]:
        """The rows' pixels, each image in a view drawn for it.

        Raises:
            ValueError: a crop of random area, which needs larger images.
        """
        if augment.kind == "resized":
            raise ValueError("images in memory have the size of the input; crops of random area need files")
        device = self.data.device
        view = torch.randint(augment.views, (len(self),), generator=generator("view", seed, epoch)).to(device)
        table = view_pixels(augment, self.size).to(device)
        for index in self._moved(batches):
            views, pixels = view.index_select(0, index), self.data.index_select(0, index)
            yield Loaded(index, seen(pixels, views, table) if augment.views > 1 else pixels, views)

    def _moved(self, batches: Sequence[Int[Tensor, " _"]]) -> tuple[Int[Tensor, " _"], ...]:
        """All at once: a copy for each batch would make the device wait."""
        if not batches:
            return ()
        return torch.cat([*batches]).to(self.data.device).split_with_sizes([b.numel() for b in batches])
