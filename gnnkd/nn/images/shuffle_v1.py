"""ShuffleNet (Zhang, Zhou, Lin, Sun, CVPR 2018) for small images, three groups, as in RepDistiller and mdistiller.

A block is a 1x1 convolution in groups, a shuffle that deals each group's channels out to all groups, a 3x3 convolution
of each channel, a 1x1 convolution in groups. It adds its input; or, halving the image, it puts the mean over 3x3 pixels
of its input behind its own channels. The stem is a 1x1 convolution without stride, whose 24 channels are read
ungrouped. 949,258 parameters at 100 classes. First weights are those of torch, as published.

Departures: the mean over pixels is taken at any size; the stem's raw map is the one before its ReLU.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, pooled
from gnnkd.nn.images.residual import features, last_norm
from gnnkd.types import Neighbours, Output

GROUPS = 3
STEM = 24


def shuffle(x: Float[Tensor, "N K H W"], groups: int) -> Float[Tensor, "N K H W"]:
    """Deal channels out: from [group, place in it] to [place, group]."""
    n, k, h, w = x.shape
    return x.reshape(n, groups, k // groups, h, w).transpose(1, 2).reshape(n, k, h, w)


@final
class Shuffled(nn.Module):
    """A block.

    Args:
        in_channels: of the input.
        out_channels: of the output, a multiple of 12 above `in_channels` or equal to it.
        groups: of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.halves = in_channels != out_channels
        new = out_channels - in_channels if self.halves else out_channels
        width = new // 4
        self.conv1 = nn.Conv2d(in_channels, width, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 2 if self.halves else 1, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, new, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(new)

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The last batch norm."""
        return self.bn3

    def raw(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """The output before its activation."""
        out = shuffle(F.relu(self.bn1(self.conv1(x)), inplace=True), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)), inplace=True)))
        return torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], dim=1) if self.halves else out + x

    def forward(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """The output."""
        return F.relu(self.raw(x), inplace=True)


@final
class ShuffleV1(ImageNetwork):
    """A 1x1 convolution, three stages that halve the image, a linear classifier.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        self.conv1 = nn.Conv2d(in_channels, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _stage(STEM, 240, 4)
        self.layer2 = _stage(240, 480, 8)
        self.layer3 = _stage(480, 960, 4)
        self.linear = nn.Linear(960, n_classes)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of stem and stages (each before and after its ReLU), pooled features; any size."""
        check_images(x, self.conv1.in_channels)
        maps, raws = features(self.bn1(self.conv1(x)), self._stages())
        rows = pooled(maps[-1])
        return Output(self.linear(rows), maps=maps, raw_maps=raws, pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The stem's batch norm and the last one of each stage."""
        return (self.bn1, *(last_norm(blocks) for blocks in self._stages()))

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3


def _stage(in_channels: int, out_channels: int, n: int) -> nn.Sequential:
    """A block that halves the image, and `n` - 1 others."""
    first = Shuffled(in_channels, out_channels, groups=1 if in_channels == STEM else GROUPS)
    return nn.Sequential(first, *(Shuffled(out_channels, out_channels, groups=GROUPS) for _ in range(n - 1)))


NETWORKS = {"shufflev1": ShuffleV1}
"""By name."""
