"""What image networks share: their interface, their first weights, and what they say about a wrong image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.types import Neighbours, Output


class ImageNetwork(nn.Module, ABC):
    """A network of images [N, K, H, W]: a stem, stages, a mean over pixels, a linear classifier."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, feature maps before and after their activation, pooled features.

        Args:
            x: normalised images.
            graph: not looked at; images have no neighbours.

        Raises:
            UserError: images of other channels, or too small.
        """

    @abstractmethod
    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """For each of the `maps`, the batch norm before its activation, None where there is none."""


def check_head(in_channels: int, n_classes: int) -> None:
    """Refuse sizes that no network can have.

    Raises:
        UserError: a number below 1.
    """
    for name, size in {"in_channels": in_channels, "n_classes": n_classes}.items():
        if size < 1:
            raise UserError(f"{name} is {size}; it must be at least 1")


def check_images(x: Tensor, in_channels: int, *, least: int = 1) -> None:
    """Refuse images that the network cannot read.

    Args:
        x: images [N, K, H, W].
        in_channels: the K that the first convolution was made for.
        least: smallest height and width that leave a pixel to the last stage.

    Raises:
        UserError: another number of channels, or images too small.
    """
    channels, height, width = x.shape[1:]
    if channels != in_channels:
        raise UserError(f"the images have {channels} channels; the network was made for {in_channels}")
    if min(height, width) < least:
        raise UserError(
            f"the images are {height} x {width} pixels; this network needs at least {least} x {least}: "
            "enlarge them, or take another network"
        )


def pooled(x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N K"]:
    """The mean over all pixels, at any size."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def normal(weight: Tensor, std: float) -> None:
    """Draw a weight from N(0, std^2), but for one on the meta device: there, torch would load sympy for it, seconds."""
    if not weight.is_meta:
        nn.init.normal_(weight, std=std)


def initialise(network: nn.Module) -> None:
    """He et al.'s start: convolutions N(0, 2 / (outputs times kernel area)), without shift; batch norms 1 and 0.

    Linear layers keep torch's own uniform start.
    """
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            normal(part.weight, math.sqrt(2 / (part.out_channels * math.prod(part.kernel_size))))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
