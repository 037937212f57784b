"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018) for images of 64 x 64.

mdistiller's layout for Tiny-ImageNet: all the paper's channels, the blocks of `mobilenet_v2` with a shift in each
convolution and ReLU6; the stem is a 1x1 convolution with stride 1 and a border of one pixel (66 x 66 from 64 x 64),
which sees its shift alone; stages 2, 3 and 4 halve the image, stage 6 does not; the classifier is a 1x1 convolution
behind the mean over pixels. 2,497,480 parameters at 200 classes. First weights are those of torch, as published.
"""

from __future__ import annotations

from typing import cast, final

from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.mobilenet_v2 import LAST, Inverted, stage
from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, pooled
from gnnkd.types import Neighbours, Output


@final
class MobileNetV2Tiny(ImageNetwork):
    """A 1x1 convolution, seven stages of which three halve the image, a 1x1 convolution, a classifier.

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
        self.pre = nn.Sequential(nn.Conv2d(in_channels, 32, 1, padding=1), nn.BatchNorm2d(32), nn.ReLU6(inplace=True))
        self.stage1 = _stage(32, 16, 1, stride=1, expansion=1)[0]
        self.stage2 = _stage(16, 24, 2, stride=2)
        self.stage3 = _stage(24, 32, 3, stride=2)
        self.stage4 = _stage(32, 64, 4, stride=2)
        self.stage5 = _stage(64, 96, 3, stride=1)
        self.stage6 = _stage(96, 160, 3, stride=1)
        self.stage7 = _stage(160, 320, 1, stride=1)[0]
        self.conv1 = nn.Sequential(nn.Conv2d(320, LAST, 1), nn.BatchNorm2d(LAST), nn.ReLU6(inplace=True))
        self.conv2 = nn.Conv2d(LAST, n_classes, 1)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of the stem, of stages 2, 3, 4 and of the last convolution, pooled features; any size.

        As published, the raw maps are the maps: those of stages have no activation, the two others are behind theirs.
        """
        check_images(x, self.in_channels)
        stem = self.pre(x)
        second = self.stage2(self.stage1(stem))
        third = self.stage3(second)
        fourth = self.stage4(third)
        last = self.conv1(self.stage7(self.stage6(self.stage5(fourth))))
        maps = (stem, second, third, fourth, last)
        rows = pooled(last)
        return Output(self.conv2(rows[:, :, None, None]).flatten(1), maps=maps, raw_maps=maps, pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The batch norms of the stem and of the last convolution; between them, the last one of stages 2, 3 and 4."""
        stem, last = cast("nn.BatchNorm2d", self.pre[1]), cast("nn.BatchNorm2d", self.conv1[1])
        return (stem, *(cast("Inverted", s[-1]).norm for s in (self.stage2, self.stage3, self.stage4)), last)


def _stage(in_channels: int, out_channels: int, n: int, *, stride: int, expansion: int = 6) -> nn.Sequential:
    return stage(
        in_channels,
        out_channels,
        n,
        stride=stride,
        expansion=expansion,
        branch="residual",
        bias=True,
        activation=nn.ReLU6,
    )


NETWORKS = {"mobilenetv2": MobileNetV2Tiny}
"""By name."""
