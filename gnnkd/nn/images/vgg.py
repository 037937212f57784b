"""Networks of Simonyan and Zisserman (ICLR 2015) with batch norm, for small images, as in RepDistiller and mdistiller.

Five blocks of 3x3 convolutions with a shift; the image is halved behind the first three, and behind the fourth too when
it is 64 pixels or more in both directions (mdistiller: at 64 rows exactly); a mean over pixels, one linear map.
First weights are as published: also the classifier's are normal, with deviation 0.01, and its shift is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, initialise, normal, pooled
from gnnkd.types import Neighbours, Output

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""Convolutions of each block."""


@final
class VGG(ImageNetwork):
    """Blocks of 3x3 convolutions, each with batch norm and ReLU.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.
        depths: convolutions of each of the five blocks.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int, *, depths: Sequence[int]) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        self.in_channels = in_channels
        for i, (k, width, n) in enumerate(zip((in_channels, *WIDTHS[:-1]), WIDTHS, depths, strict=True)):
            self.add_module(f"block{i}", _block(k, width, n))
        self.classifier = nn.Linear(WIDTHS[-1], n_classes)
        initialise(self)
        normal(self.classifier.weight, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, each block's map before and after its ReLU, pooled features; from 8 x 8 pixels on."""
        check_images(x, self.in_channels, least=8)
        last_but_one = len(WIDTHS) - 2
        halved = set(range(last_but_one + 1 if min(x.shape[2:]) >= 64 else last_but_one))
        raws, maps = [], []
        for i, block in enumerate(self._blocks()):
            raws.append(block(x))
            maps.append(F.relu(raws[-1]))
            x = F.max_pool2d(maps[-1], 2) if i in halved else maps[-1]
        rows = pooled(x)
        return Output(self.classifier(rows), maps=tuple(maps), raw_maps=tuple(raws), pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The last batch norm of each block."""
        return tuple(cast("nn.BatchNorm2d", block[-1]) for block in self._blocks())

    def _blocks(self) -> list[nn.Sequential]:
        return [cast("nn.Sequential", self.get_submodule(f"block{i}")) for i in range(len(WIDTHS))]


def _block(in_channels: int, width: int, n: int) -> nn.Sequential:
    """`n` convolutions with batch norm, and ReLU between them."""
    layers: list[nn.Module] = []
    for i in range(n):
        layers += [nn.Conv2d(width if i else in_channels, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _vgg(depths: Sequence[int]) -> Callable[..., VGG]:
    def build(in_channels: int, n_classes: int) -> VGG:
        return VGG(in_channels, n_classes, depths=depths)

    return build


NETWORKS = {name: _vgg(depths) for name, depths in DEPTHS.items()}
"""By name."""
