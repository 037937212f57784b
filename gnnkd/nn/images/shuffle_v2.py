"""ShuffleNetV2 (Ma, Zhang, Zheng, Sun, ECCV 2018) for small images, at width 1, as in RepDistiller and mdistiller.

A block changes the second half of its channels by 1x1, 3x3 (each channel alone) and 1x1 convolutions, keeps the first
half, and shuffles the two. A block that halves the image has convolutions on both sides, each of which sees all
channels. The stem is a 1x1 convolution without stride or pooling. 1,355,528 parameters at 100 classes, 1,458,028 at
200. First weights are those of torch, as published.

Departures: the mean over pixels is taken at any size (published: 32 x 32 only); a raw map has its channels in the order
of the map and its stem's before the ReLU.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, pooled
from gnnkd.nn.images.residual import features
from gnnkd.nn.images.shuffle_v1 import STEM, shuffle
from gnnkd.types import Neighbours, Output

WIDTHS = (116, 232, 464)
LAST = 1024
"""Channels of the last convolution."""


@final
class Half(nn.Module):
    """A block that changes half of its channels.

    Args:
        channels: of input and output, even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 2
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)

    def raw(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N K H W"]:
        """The output, its changed half before its activation."""
        kept, out = x.chunk(2, dim=1)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(out)), inplace=True)))
        return shuffle(torch.cat([kept, self.bn3(self.conv3(out))], dim=1), 2)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N K H W"]:
        """The output; what is kept has its activation already, and a second ReLU leaves it as it is."""
        return F.relu(self.raw(x), inplace=True)


@final
class Down(nn.Module):
    """A block that halves the image.

    Args:
        in_channels: of the input.
        out_channels: of the output, even.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, 1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv4 = nn.Conv2d(width, width, 3, 2, 1, groups=width, bias=False)
        self.bn4 = nn.BatchNorm2d(width)
        self.conv5 = nn.Conv2d(width, width, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(width)

    def forward(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """Convolve on both sides, and shuffle."""
        one = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        two = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)), inplace=True)))
        return shuffle(F.relu(torch.cat([one, self.bn5(self.conv5(two))], dim=1), inplace=True), 2)


@final
class ShuffleV2(ImageNetwork):
    """A 1x1 convolution, three stages that halve the image, a 1x1 convolution, a linear classifier.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        first, second, third = WIDTHS
        self.conv1 = nn.Conv2d(in_channels, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _stage(STEM, first, 4)
        self.layer2 = _stage(first, second, 8)
        self.layer3 = _stage(second, third, 4)
        self.conv2 = nn.Conv2d(third, LAST, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(LAST)
        self.linear = nn.Linear(LAST, n_classes)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of stem and stages (each before and after its ReLU), pooled features; any size."""
        check_images(x, self.conv1.in_channels)
        maps, raws = features(self.bn1(self.conv1(x)), (self.layer1, self.layer2, self.layer3))
        rows = pooled(F.relu(self.bn2(self.conv2(maps[-1])), inplace=True))
        return Output(self.linear(rows), maps=maps, raw_maps=raws, pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The stem's batch norm; a stage's last one sees only half of the channels, so there is none."""
        return (self.bn1, None, None, None)


def _stage(in_channels: int, out_channels: int, n: int) -> nn.Sequential:
    """A block that halves the image, and `n` - 1 others."""
    return nn.Sequential(Down(in_channels, out_channels), *(Half(out_channels) for _ in range(n - 1)))


NETWORKS = {"shufflev2": ShuffleV2}
"""By name."""
