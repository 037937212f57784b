"""MobileNetV1 (Howard et al., arXiv 1704.04861) for ImageNet, as in mdistiller; 4,231,976 parameters at 1000 classes.

A block convolves each channel with a 3x3 kernel, then mixes channels by a 1x1 convolution; both have batch norm and
ReLU. First weights are those of torch, as published.

Departures: the mean over pixels is taken at any size (published: 7 x 7); the stem has a map too.
"""

from __future__ import annotations

from typing import cast, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, pooled
from gnnkd.types import Neighbours, Output

WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
"""Channels of the stem and of each block."""
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
_READ = (0, 3, 5, 11, 13)
"""Whose outputs are maps: the stem, and the last block of each size but of the stem's."""


@final
class MobileNetV1(ImageNetwork):
    """A 3x3 convolution with stride 2, thirteen blocks of which four halve the image, a linear classifier.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        self.in_channels = in_channels
        stem = nn.Sequential(nn.Conv2d(in_channels, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]))
        blocks = [_block(i, o, s) for i, o, s in zip(WIDTHS[:-1], WIDTHS[1:], _STRIDES, strict=True)]
        self.model = nn.Sequential(stem, *blocks)
        self.fc = nn.Linear(WIDTHS[-1], n_classes)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of stem and blocks 3, 5, 11, 13 (each before and after ReLU), pooled features; any size."""
        check_images(x, self.in_channels)
        raws, maps = [], []
        for i, block in enumerate(self.model):
            raw = block(x)
            x = F.relu(raw, inplace=i not in _READ)
            if i in _READ:
                raws.append(raw)
                maps.append(x)
        rows = pooled(x)
        return Output(self.fc(rows), maps=tuple(maps), raw_maps=tuple(raws), pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The last batch norm of the stem and of blocks 3, 5, 11 and 13."""
        return tuple(cast("nn.BatchNorm2d", cast("nn.Sequential", self.model[i])[-1]) for i in _READ)


def _block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """All layers of a block but its last ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


NETWORKS = {"mobilenetv1": MobileNetV1}
"""By name."""
