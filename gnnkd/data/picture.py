"""An image file becomes a square of RGB bytes."""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from gnnkd.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
AREA, SHAPE = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of a crop of random area: the part of the image that it covers, and its width by its height."""
SMALL = 64
"""Pixels a side of an input up to which an image is shown whole, but for what makes it no square."""
MARGIN = 256 / 224
"""The shorter side of an image is brought to this many sizes of a larger input before its centre is cut out."""
_TRIES = 10
_GREY = ("1", "L", "LA", "I")


def rgb(path: Path) -> tuple[Image.Image, str]:
    """The image in RGB, and the mode that it had in the file.

    Grey is repeated in all channels, 16-bit grey loses its lower 8 bits, transparency is laid over black, and anything
    else is what Pillow makes of it.

    Raises:
        UserError: Pillow cannot read it, or its values have no known range.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
            return to_rgb(image), mode
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except OSError as error:
        why = error.strerror or _reason(error)
        raise UserError(f"{path} cannot be read as an image ({why}); replace it, or take it out") from error
    # Decoders fail in as many ways as there are formats.
    except Exception as error:
        raise UserError(f"{path} cannot be read as an image ({_reason(error)}); replace it, or take it out") from error


def dimensions(path: Path) -> tuple[int, int]:
    """Width and height by the file's head alone.

    Raises:
        UserError: Pillow cannot read it.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            return width, height
    except Exception as error:
        raise UserError(f"{path} cannot be read as an image ({_reason(error)}); replace it, or take it out") from error


def centred(image: Image.Image, size: int) -> Image.Image:
    """The centre [size, size] of the image, its shorter side brought to `MARGIN` sizes, or to one up to `SMALL`."""
    from PIL import Image

    short = size if size <= SMALL else round(size * MARGIN)
    scale = short / min(image.size)
    width, height = (max(short, int(side * scale)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def resized_crop(image: Image.Image, size: int, draw: random.Random) -> Image.Image:
    """A crop of random area and shape (`AREA`, `SHAPE`), resized to [size, size].

    Ten tries to fit one in; then the largest crop in the middle whose shape is allowed.
    """
    from PIL import Image

    box = _random_box(*image.size, draw)
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def mirrored(image: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    from PIL import Image

    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def to_tensor(image: Image.Image) -> UInt8[Tensor, "3 H W"]:
    """The bytes of an RGB image, channels first."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def load_all(root: Path, names: Sequence[str], size: int) -> tuple[UInt8[Tensor, "N 3 S S"], tuple[str, ...]]:
    """All images of a set in memory, and notes on those that were not RGB.

    Raises:
        UserError: an image that cannot be read, or is not [size, size].
    """

    def one(name: str) -> tuple[UInt8[Tensor, "3 S S"], str]:
        image, mode = rgb(root / name)
        if image.size != (size, size):
            raise UserError(f"{root / name} has {image.width} x {image.height} pixels; it must have {size} x {size}")
        return to_tensor(image), mode

    pixels = torch.empty(len(names), 3, size, size, dtype=torch.uint8)
    modes: Counter[str] = Counter()
    # Decoding runs outside of Python's lock, so threads share it.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for row, (image, mode) in enumerate(pool.map(one, names)):
            pixels[row] = image
            modes["grey" if _is_grey(mode) else f"of mode {mode}"] += mode != "RGB"
    total = len(names)
    return pixels, tuple(f"{n} of {total} images were {what}" for what, n in sorted(modes.items()) if n)


def _is_grey(mode: str) -> bool:
    return mode in _GREY or mode.startswith("I;16")


def to_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB; see `rgb`.

    Raises:
        UserError: its values have no known range.
    """
    from PIL import Image

    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise UserError("has pixels of 32 bits, of no known range; save it with 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        high = np.clip(np.asarray(image.convert("I")), 0, 65535) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _random_box(width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
    for _ in range(_TRIES):
        area = width * height * draw.uniform(*AREA)
        shape = math.exp(draw.uniform(*map(math.log, SHAPE)))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            left, top = draw.randint(0, width - w), draw.randint(0, height - h)
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * SHAPE[1])))
    h = min(height, max(1, round(width / SHAPE[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.120}" if text else type(error).__name__
