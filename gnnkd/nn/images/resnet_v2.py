"""The residual networks of ImageNet laid out for small images: ResNet18 and ResNet50 of the CIFAR literature.

The stem is one 3x3 convolution without stride or pooling, so a stage looks at four times the pixels in each direction
that it would see behind the stem of ImageNet. Weights are named as in mdistiller, where the detours are `shortcut` and
the classifier is `linear`. With 200 classes, ResNet18 is the teacher of its Tiny-ImageNet pairs. First weights are as
published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, initialise, pooled
from gnnkd.nn.images.residual import Basic, Block, Bottleneck, features, last_norm, stage
from gnnkd.types import Neighbours, Output


@final
class ResNetV2(ImageNetwork):
    """A 3x3 convolution, four stages of which three halve the image, a linear classifier.

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
        self.conv1 = nn.Conv2d(in_channels, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(block, 64, 64, n[0], stride=1, detour="shortcut")
        self.layer2 = stage(block, 64 * k, 128, n[1], stride=2, detour="shortcut")
        self.layer3 = stage(block, 128 * k, 256, n[2], stride=2, detour="shortcut")
        self.layer4 = stage(block, 256 * k, 512, n[3], stride=2, detour="shortcut")
        self.linear = nn.Linear(512 * k, n_classes)
        initialise(self)

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
        return self.layer1, self.layer2, self.layer3, self.layer4


def resnet18(in_channels: int, n_classes: int) -> ResNetV2:
    """ResNet18 for small images."""
    return ResNetV2(in_channels, n_classes, block=Basic, n=(2, 2, 2, 2))


def resnet50(in_channels: int, n_classes: int) -> ResNetV2:
    """ResNet50 for small images."""
    return ResNetV2(in_channels, n_classes, block=Bottleneck, n=(3, 4, 6, 3))


NETWORKS = {"resnet18": resnet18, "resnet50": resnet50}
"""By name."""
