"""Residual networks of CIFAR (He, Zhang, Ren, Sun, CVPR 2016): a 3x3 stem, three stages, depth 6 n + 2.

Two layouts share the names of their weights. `shortcut="b"` is that of RepDistiller and mdistiller: a 1x1 convolution
with batch norm where the shape changes. `shortcut="a"` is the paper's own for CIFAR, also that of the Knowledge
Transfer Graph (KTG): every second pixel and zeros for the new channels, after the old ones. The weights of a KTG file
are called conv_a, bn_a, conv_b, bn_b where these are called conv1, bn1, conv2, bn2.

The networks called x4 have four times the channels in their stages and twice as many in their stem.

First weights are as published, but for the classifier of KTG, which is drawn from N(0, 2 / inputs) there; here it
starts as `torch.nn.Linear` does in both layouts, as in mdistiller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, initialise, pooled
from gnnkd.nn.images.residual import Basic, features, last_norm, stage
from gnnkd.types import Neighbours, Output

NARROW = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)


@final
class ResNet(ImageNetwork):
    """A 3x3 convolution, three stages of basic blocks of which two halve the image, a linear classifier.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.
        widths: channels of the stem and of the three stages.
        n: blocks of a stage, >= 1.
        shortcut: `b` or `a`.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int, *, widths: Sequence[int], n: int, shortcut: str) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        stem, first, second, third = widths
        self.conv1 = nn.Conv2d(in_channels, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = stage(Basic, stem, first, n, stride=1, shortcut=shortcut, detour="downsample")
        self.layer2 = stage(Basic, first, second, n, stride=2, shortcut=shortcut, detour="downsample")
        self.layer3 = stage(Basic, second, third, n, stride=2, shortcut=shortcut, detour="downsample")
        self.fc = nn.Linear(third, n_classes)
        initialise(self)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of stem and stages (each before and after its ReLU), pooled features; any size."""
        check_images(x, self.conv1.in_channels)
        maps, raws = features(self.bn1(self.conv1(x)), (self.layer1, self.layer2, self.layer3))
        rows = pooled(maps[-1])
        return Output(self.fc(rows), maps=maps, raw_maps=raws, pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The stem's batch norm and the last one of each stage."""
        return (self.bn1, *(last_norm(blocks) for blocks in (self.layer1, self.layer2, self.layer3)))


def _resnet(depth: int, widths: Sequence[int]) -> Callable[..., ResNet]:
    def build(in_channels: int, n_classes: int, *, shortcut: Literal["b", "a"] = "b") -> ResNet:
        return ResNet(in_channels, n_classes, widths=widths, n=(depth - 2) // 6, shortcut=shortcut)

    return build


NETWORKS = {f"resnet{depth}": _resnet(depth, NARROW) for depth in (8, 14, 20, 32, 44, 56, 110)} | {
    f"resnet{depth}x4": _resnet(depth, WIDE) for depth in (8, 32)
}
"""By name and depth; the option is `shortcut`."""
