"""Networks of images by name, in three families: for images up to 32 pixels wide, up to 64, and larger ones.

A constructor is called as `f(in_channels, n_classes, *, <options>)` and returns an `ImageNetwork`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from gnnkd.errors import UserError
from gnnkd.nn.images import (
    cnn,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v2_tiny,
    resnet,
    resnet_imagenet,
    resnet_v2,
    shuffle_v1,
    shuffle_v2,
    vgg,
    wrn,
)
from gnnkd.nn.images.network import ImageNetwork

__all__ = ["LARGE", "NAMES", "SMALL", "TINY", "Constructor", "ImageNetwork", "family"]

Constructor: TypeAlias = Callable[..., ImageNetwork]

SMALL: dict[str, Constructor] = {
    **cnn.NETWORKS,
    **mobilenet_v2.NETWORKS,
    **resnet.NETWORKS,
    **resnet_v2.NETWORKS,
    **shuffle_v1.NETWORKS,
    **shuffle_v2.NETWORKS,
    **vgg.NETWORKS,
    **wrn.NETWORKS,
}
"""For images up to 32 x 32: the networks of the CIFAR literature."""

TINY: dict[str, Constructor] = SMALL | mobilenet_v2_tiny.NETWORKS
"""For images above 32 and up to 64 x 64: the same, but for those that are laid out anew."""

LARGE: dict[str, Constructor] = {**mobilenet_v1.NETWORKS, **resnet_imagenet.NETWORKS}
"""For images above 64 x 64: the networks of the ImageNet literature."""

NAMES = frozenset(SMALL) | frozenset(TINY) | frozenset(LARGE)
"""Every name; one name may stand for different networks in different families."""


def family(size: int) -> Mapping[str, Constructor]:
    """The networks for images of `size` x `size` pixels.

    Raises:
        UserError: no pixel at all.
    """
    if size < 1:
        raise UserError(f"the image size is {size}; it must be at least 1 pixel")
    return SMALL if size <= 32 else TINY if size <= 64 else LARGE
