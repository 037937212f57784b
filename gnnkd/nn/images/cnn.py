"""Plain convolutional networks for tiny images such as 8 x 8 digits: a pair that trains in seconds on one CPU core.

A stem and three stages of 3x3 convolutions, each with batch norm and ReLU; the image is halved behind the first and the
second stage, channels double there. A mean over pixels, one linear map. Of this house, with no published weights; with
one channel and 10 classes the small one has less than a tenth of the weights of the other. docs/results.md
has their accuracies.
"""

from __future__ import annotations

from typing import cast, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, initialise, pooled
from gnnkd.types import Neighbours, Output


@final
class CNN(ImageNetwork):
    """Convolutions of `width`, `width`, 2 `width` and 4 `width` channels.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.
        width: channels of stem and first stage, >= 1.
        convs: convolutions of a stage, >= 1.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int, *, width: int, convs: int) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        for name, size in {"width": width, "convs": convs}.items():
            if size < 1:
                raise UserError(f"{name} is {size}; it must be at least 1")
        self.in_channels = in_channels
        self.stem = _stage(in_channels, width, 1)
        self.stage1 = _stage(width, width, convs)
        self.stage2 = _stage(width, 2 * width, convs)
        self.stage3 = _stage(2 * width, 4 * width, convs)
        self.fc = nn.Linear(4 * width, n_classes)
        initialise(self)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of stem and stages (each before and after its ReLU), pooled features; from 4 x 4 pixels."""
        check_images(x, self.in_channels, least=4)
        raws, maps = [], []
        for stage in self._stages():
            raws.append(stage(F.max_pool2d(x, 2) if stage in (self.stage2, self.stage3) else x))
            maps.append(F.relu(raws[-1]))
            x = maps[-1]
        rows = pooled(x)
        return Output(self.fc(rows), maps=tuple(maps), raw_maps=tuple(raws), pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The last batch norm of stem and stages."""
        return tuple(cast("nn.BatchNorm2d", stage[-1]) for stage in self._stages())

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.stem, self.stage1, self.stage2, self.stage3


def _stage(in_channels: int, width: int, convs: int) -> nn.Sequential:
    """Convolutions with batch norm, and ReLU between them."""
    layers: list[nn.Module] = []
    for i in range(convs):
        conv = nn.Conv2d(width if i else in_channels, width, 3, 1, 1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def cnn(in_channels: int, n_classes: int, *, width: int = 32, convs: int = 1) -> CNN:
    """The larger one, about 100,000 weights; options as for `CNN`."""
    return CNN(in_channels, n_classes, width=width, convs=convs)


def cnn_small(in_channels: int, n_classes: int, *, width: int = 8, convs: int = 1) -> CNN:
    """The smaller one, about 7,000 weights; options as for `CNN`."""
    return CNN(in_channels, n_classes, width=width, convs=convs)


NETWORKS = {"cnn": cnn, "cnn_small": cnn_small}
"""By name."""
