"""Residual networks of ImageNet (He, Zhang, Ren, Sun, CVPR 2016), with the names and shapes of torchvision's weights.

A 7x7 convolution with stride 2, a maximum over 3x3 pixels with stride 2, four stages. In wider blocks the 3x3
convolution has the stride, as in torchvision. The first map is the stem's before the maximum, as in mdistiller. First
weights are as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, initialise, pooled
from gnnkd.nn.images.residual import Basic, Block, Bottleneck, features, last_norm, stage
from gnnkd.types import Neighbours, Output


@final
class ResNetImageNet(ImageNetwork):
    """A stem that leaves a quarter of height and width, four stages of which three halve, a linear classifier.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.
        block: `Basic` or `Bottleneck`.
        n: blocks of each of the four stages.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int, *, block: type[Block], n: Sequence[int]) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        k = block.expansion
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(block, 64, 64, n[0], stride=1, detour="downsample")
        self.layer2 = stage(block, 64 * k, 128, n[1], stride=2, detour="downsample")
        self.layer3 = stage(block, 128 * k, 256, n[2], stride=2, detour="downsample")
        self.layer4 = stage(block, 256 * k, 512, n[3], stride=2, detour="downsample")
        self.fc = nn.Linear(512 * k, n_classes)
        initialise(self)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of stem and stages (each before and after its ReLU), pooled features; any size."""
        check_images(x, self.conv1.in_channels)
        maps, raws = features(self.bn1(self.conv1(x)), self._stages(), entry=lambda stem: F.max_pool2d(stem, 3, 2, 1))
        rows = pooled(maps[-1])
        return Output(self.fc(rows), maps=maps, raw_maps=raws, pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The stem's batch norm and the last one of each stage."""
        return (self.bn1, *(last_norm(blocks) for blocks in self._stages()))

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4


def _resnet(block: type[Block], *n: int) -> Callable[..., ResNetImageNet]:
    def build(in_channels: int, n_classes: int) -> ResNetImageNet:
        return ResNetImageNet(in_channels, n_classes, block=block, n=n)

    return build


NETWORKS = {
    "resnet18": _resnet(Basic, 2, 2, 2, 2),
    "resnet34": _resnet(Basic, 3, 4, 6, 3),
    "resnet50": _resnet(Bottleneck, 3, 4, 6, 3),
    "resnet101": _resnet(Bottleneck, 3, 4, 23, 3),
}
"""By name."""
