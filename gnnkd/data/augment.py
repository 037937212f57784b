"""How a training image is varied, and how pixels become numbers: batched tensor operations on whole bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from gnnkd.errors import unknown

CHOICES = ("auto", "none", "crop", "crop_flip")
MOST_PADDING = 4
CPU = torch.device("cpu")


@final
@dataclass(frozen=True)
class Augment:
    """What happens to a training image.

    `none`: nothing. `shift`: black `padding` on each side, then a crop of the old size at any of its offsets.
    `resized`: a crop of random area and shape, resized. With `flip`, half of the images are mirrored, too.
    """

    kind: Literal["none", "shift", "resized"]
    padding: int = 0
    flip: bool = False

    @property
    def offsets(self) -> int:
        """Positions of the crop along one side."""
        return 2 * self.padding + 1

    @property
    def views(self) -> int:
        """Number of distinct views of an image; 0 where they cannot be counted."""
        return 0 if self.kind == "resized" else self.offsets**2 * (1 + self.flip)


def chosen(word: str, *, size: int, large: bool, flips: bool) -> Augment:
    """The augmentation that a word asks for.

    Args:
        word: one of `CHOICES`; `auto` is `crop_flip`, or `crop` where a mirrored image means something else.
        size: pixels a side; the padding is an eighth of it, from 1 to 4 (digits 1, CIFAR 4).
        large: whether images are larger than the network's input, so that a crop is one of random area.
        flips: whether a mirrored image is of the same class.

    Raises:
        UserError: another word.
    """
    word = word.lower().replace("-", "_")
    if word not in CHOICES:
        raise unknown("augmentation", word, CHOICES)
    if word == "none":
        return Augment("none")
    flip = flips if word == "auto" else word == "crop_flip"
    if large:
        return Augment("resized", flip=flip)
    return Augment("shift", min(MOST_PADDING, max(1, size // 8)), flip)


def key(*parts: object) -> int:
    """A seed, 0 .. 2^63 - 1, that depends on every part and on nothing else."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A generator of its own for one purpose, on the CPU: the same draws whatever the device and what ran before."""
    return torch.Generator().manual_seed(key(*parts))


@contextmanager
def drawn_apart(device: torch.device, seed: int) -> Iterator[None]:
    """What a block draws from torch's own random state, on the CPU and on `device`, follows a seed of its own.

    The random state stays as it was.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        if cuda:
            torch.manual_seed(seed)
        else:  # the states of GPUs are not put back, and so are left alone
            torch.default_generator.manual_seed(seed)
        yield


def view_pixels(augment: Augment, size: int) -> Int[Tensor, "views pixels"]:
    """For each view and each of its pixels, row by row: which pixel of the image it shows; size^2 stands for black.

    View v is offset v // (1 + flip), counted row by row, and mirrored if it is odd and there is a flip.
    """
    v = torch.arange(augment.views)
    offset = v // (1 + augment.flip)
    mirrored = (v % 2 == 1) & augment.flip
    down, right = offset // augment.offsets - augment.padding, offset % augment.offsets - augment.padding
    along = torch.arange(size)
    rows = down[:, None] + along
    columns = right[:, None] + torch.where(mirrored[:, None], size - 1 - along, along)
    inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
    return torch.where(inside, rows[:, :, None] * size + columns[:, None, :], size * size).flatten(1)


def seen(
    pixels: UInt8[Tensor, "N K S S"], view: Int[Tensor, " N"], table: Int[Tensor, "views pixels"]
) -> UInt8[Tensor, "N K S S"]:
    """Each image in the given view, by the table of `view_pixels`.

    One gather for crop and flip together: about half the time of unfolded windows that are then flipped.
    """
    n, channels = pixels.shape[:2]
    with_black = F.pad(pixels.flatten(2), (0, 1))
    chosen_pixels = table.index_select(0, view)[:, None].expand(n, channels, -1)
    return with_black.gather(2, chosen_pixels).view(pixels.shape)


@final
@dataclass(frozen=True, eq=False)
class Normalisation:
    """Bytes to numbers: (pixels / 255 - mean) / std, channel by channel, in float32."""

    scale: Float[Tensor, "K 1 1"]
    shift: Float[Tensor, "K 1 1"]

    @staticmethod
    def of(mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> Normalisation:
        """By mean and deviation (> 0) of each channel's pixels in [0, 1]; it works on `device`."""
        scale = torch.tensor([1 / (255 * s) for s in std], device=device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
        return Normalisation(scale.view(-1, 1, 1), shift.view(-1, 1, 1))

    def __call__(self, pixels: UInt8[Tensor, "N K H W"]) -> Float[Tensor, "N K H W"]:
        """The numbers of some images."""
        return pixels.to(torch.float32).mul_(self.scale).add_(self.shift)


def normalised(
    pixels: UInt8[Tensor, "N K H W"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "N K H W"]:
    """`Normalisation` of one lot of images."""
    return Normalisation.of(mean, std, pixels.device)(pixels)
