"""A trained image network with what it needs to be used again: classes, normalisation, size, constructor options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.data.augment import normalised
from gnnkd.errors import UserError
from gnnkd.images.networks import built
from gnnkd.images.pictures import Pictures, pixels
from gnnkd.nn.images import ImageNetwork
from gnnkd.train import checkpoint
from gnnkd.types import Output

FORMAT = 1
KIND = "images"
"""Tells files of image networks from those of graph networks."""
_CHUNK = 256


@final
@dataclass(frozen=True)
class ImagePredictor:
    """Predicts classes from pictures.

    Args:
        network: in eval mode.
        name: of the network, a key of its family in `gnnkd.nn.images`.
        options: of its constructor.
        classes: original label of each class id.
        mean: of each channel over the training images, of pixels in [0, 1].
        std: likewise.
        size: height and width that the network was trained on.
        in_channels: number of channels K.
    """

    network: ImageNetwork
    name: str
    options: Mapping[str, Any]
    classes: tuple[int | str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    in_channels: int

    def logits(self, images: Pictures) -> Float[Tensor, "N C"]:
        """Logits of pictures: arrays of bytes [N, K, H, W] or [N, H, W, K], or a list of PIL images or of files.

        Arrays must have the network's size; PIL images and files are brought to it (`pictures.pixels`).

        Raises:
            UserError: another type, size or number of channels, or a file that cannot be read.
        """
        x = pixels(images, self.size, self.in_channels)
        device = next(self.network.parameters()).device
        self.network.eval()
        found = []
        with torch.no_grad():
            for start in range(0, x.shape[0], _CHUNK):
                chunk = x[start : start + _CHUNK].to(device)
                output: Output = self.network(normalised(chunk, self.mean, self.std))
                found.append(output.logits)
        return torch.cat(found)

    def predict_proba(self, images: Pictures) -> Float[Tensor, "N C"]:
        """Probability of each class, columns in the order of `classes`."""
        return self.logits(images).softmax(dim=1)

    def predict(self, images: Pictures) -> np.ndarray:
        """Most probable class of each picture, as a label of the training data (numbers or names)."""
        found: np.ndarray = np.array(self.classes)[self.logits(images).argmax(dim=1).cpu().numpy()]
        return found

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.network.parameters())

    def save(self, folder: Path | str, name: str = "model.safetensors") -> None:
        """Write the network into `folder`; `gnnkd.load` needs nothing else."""
        meta = {
            "format": FORMAT,
            "kind": KIND,
            "model": self.name,
            "options": dict(self.options),
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "size": self.size,
            "in_channels": self.in_channels,
        }
        checkpoint.save(Path(folder) / name, self.network.state_dict(), meta)


def no_network(file: Path, meta: Mapping[str, Any]) -> UserError:
    """What to say of a file that holds no network which can be used here."""
    if "method" in meta and "model" not in meta:
        return UserError(
            f"{file} is the part of {meta.get('base') or meta['method']} that was trained beside a student, and no "
            f"network; give the folder, {file.parent}"
        )
    return UserError(f"{file} was not written by this version of gnnkd")


def restored(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], file: Path) -> ImagePredictor:
    """The network that `file` holds, from its content.

    Raises:
        UserError: the content is not that of a saved image network.
    """
    if meta.get("format") != FORMAT:
        raise no_network(file, meta)
    try:
        size, channels, classes = int(meta["size"]), int(meta["in_channels"]), tuple(meta["classes"])
        network = built(meta["model"], size, channels, len(classes), dict(meta["options"]))
        network.load_state_dict(dict(tensors))
        mean, std = (tuple(float(v) for v in meta[name]) for name in ("mean", "std"))
        if not len(mean) == len(std) == channels:
            raise ValueError
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(f"{file} holds other tensors than its description says; train it again") from None
    return ImagePredictor(network.eval(), meta["model"], dict(meta["options"]), classes, mean, std, size, channels)


def load(file: Path) -> ImagePredictor:
    """The image network saved in a file; executes no code.

    Raises:
        UserError: no such file, or one that holds something else.
    """
    tensors, meta = checkpoint.load(file)
    if meta.get("kind") != KIND:
        raise UserError(f"{file} holds no network of images")
    return restored(tensors, meta, file)
