"""Pictures in arrays, in memory or in files become the pixels that a network reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from gnnkd.data import picture
from gnnkd.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

Pictures: TypeAlias = Any
"""A tensor or an array of bytes [N, K, H, W] or [N, H, W, K]; or a list of PIL images or of paths."""


def pixels(images: Pictures, size: int, channels: int) -> UInt8[Tensor, "N K size size"]:
    """Pixels 0..255 of pictures, channels first.

    Arrays and tensors hold bytes and must be `size` x `size`; grey ones may leave the axis of channels out. PIL images
    and files become grey or RGB as `channels` says; those of another size are brought to it as images in files are for
    evaluation (`picture.centred`).

    Raises:
        UserError: no picture, another type, size or number of channels, or a file that cannot be read.
    """
    if isinstance(images, (Tensor, np.ndarray)):
        return _from_array(images if isinstance(images, Tensor) else torch.as_tensor(images), size, channels)
    if isinstance(images, (str, os.PathLike)) or hasattr(images, "convert"):
        raise UserError("images is a single picture; give a list of pictures, as [picture]")
    if not len(images):
        raise UserError("images is an empty list; give at least one picture")
    return torch.stack([_from_picture(image, size, channels) for image in images])


def _from_array(x: Tensor, size: int, channels: int) -> Tensor:
    if x.dtype != torch.uint8:
        raise UserError(f"images are of type {str(x.dtype).removeprefix('torch.')}; they must be bytes (uint8), 0..255")
    if x.dim() == 3 and channels == 1:
        x = x[:, None]
    if x.dim() == 4 and x.shape[1] != channels and x.shape[3] == channels:
        x = x.permute(0, 3, 1, 2)
    if x.dim() != 4 or tuple(x.shape[1:]) != (channels, size, size) or x.shape[0] == 0:
        raise UserError(
            f"images have shape {list(x.shape)}; this network reads [N, {channels}, {size}, {size}] or "
            f"[N, {size}, {size}, {channels}]"
        )
    return x.contiguous()


def _from_picture(image: Any, size: int, channels: int) -> Tensor:
    from PIL import Image

    if isinstance(image, (str, os.PathLike)):
        found, _ = picture.rgb(Path(image))
    elif isinstance(image, Image.Image):
        found = _rgb(image)
    else:
        raise UserError(f"images hold a {type(image).__name__}; give PIL images, paths, or one array of bytes")
    fitted = picture.centred(found, size)
    return picture.to_tensor(fitted) if channels == 3 else _grey(fitted)


def _rgb(image: Image) -> Image:
    try:
        return picture.to_rgb(image)
    except UserError as mistake:
        raise UserError(f"an image {mistake}") from None


def _grey(image: Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("L")))[None]
