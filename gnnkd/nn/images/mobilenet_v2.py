"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018) for images up to 32 x 32.

A block widens its input by a 1x1 convolution, convolves each channel with a 3x3 kernel, and narrows by a 1x1
convolution without activation; it adds its input where the shape stays. The layout is that of RepDistiller and
mdistiller: half the paper's channels (but not of the last convolution, 1280), ReLU for ReLU6, and a first block that
has the widening convolution too; 812,836 parameters at 100 classes. First weights are as published: also the
classifier's are normal, with deviation 0.01, and its shift is zero.

Departure: the mean over pixels is taken at any size.
"""

from __future__ import annotations

from typing import cast, final

from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, initialise, normal, pooled
from gnnkd.types import Neighbours, Output

LAST = 1280
"""Channels of the last convolution."""


@final
class Inverted(nn.Module):
    """A block: wide inside, narrow and linear at its end.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the 3x3 convolution.
        expansion: how many times the channels are inside.
        branch: the name under which its weights are saved.
        bias: whether convolutions have a shift.
        activation: behind the first two convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        expansion: int,
        branch: str = "conv",
        bias: bool = False,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and in_channels == out_channels
        self.branch = branch
        width = in_channels * expansion
        layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 1, bias=bias),
            nn.BatchNorm2d(width),
            activation(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=bias),
            nn.BatchNorm2d(width),
            activation(inplace=True),
            nn.Conv2d(width, out_channels, 1, bias=bias),
            nn.BatchNorm2d(out_channels),
        )
        self.add_module(branch, layers)

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The last batch norm."""
        return cast("nn.BatchNorm2d", getattr(self, self.branch)[-1])

    def forward(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """Widen, convolve, narrow."""
        out = cast("Tensor", getattr(self, self.branch)(x))
        return x + out if self.adds else out


@final
class MobileNetV2(ImageNetwork):
    """A 3x3 convolution and three blocks with stride 2, others between them, and a linear classifier.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        widths = (16, 8, 12, 16, 32, 48, 80, 160)
        expansions, lengths, strides = (1, 6, 6, 6, 6, 6, 6), (1, 2, 3, 4, 3, 3, 1), (1, 1, 2, 2, 1, 2, 1)
        self.in_channels = in_channels
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        self.blocks = nn.ModuleList(
            stage(i, o, n, stride=s, expansion=t)
            for i, o, n, s, t in zip(widths[:-1], widths[1:], lengths, strides, expansions, strict=True)
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(widths[-1], LAST, 1, bias=False), nn.BatchNorm2d(LAST), nn.ReLU(inplace=True)
        )
        self.classifier = nn.Sequential(nn.Linear(LAST, n_classes))
        initialise(self)
        head = cast("nn.Linear", self.classifier[0])
        normal(head.weight, 0.01)
        nn.init.zeros_(head.bias)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of the stem and of blocks 1, 2, 4 and 6, pooled features; any size.

        As published, the raw maps are the maps: a block ends without activation, the stem's map is behind its own.
        """
        check_images(x, self.in_channels)
        x = self.conv1(x)
        maps = [x]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _READ:
                maps.append(x)
        rows = pooled(self.conv2(x))
        return Output(self.classifier(rows), maps=tuple(maps), raw_maps=tuple(maps), pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The stem's batch norm and the last one of blocks 1, 2, 4 and 6."""
        ends = [cast("nn.Sequential", self.blocks[i])[-1] for i in _READ]
        return (cast("nn.BatchNorm2d", self.conv1[1]), *(cast("Inverted", end).norm for end in ends))


_READ = (1, 2, 4, 6)
"""The blocks whose outputs are maps, as published: one of 8 x 8 pixels, else the last of each size."""


def stage(
    in_channels: int,
    out_channels: int,
    n: int,
    *,
    stride: int,
    expansion: int,
    branch: str = "conv",
    bias: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """`n` blocks of one width, the first of which has the stride."""
    inputs, strides = [in_channels, *[out_channels] * (n - 1)], [stride, *[1] * (n - 1)]
    return nn.Sequential(
        *(
            Inverted(i, out_channels, s, expansion=expansion, branch=branch, bias=bias, activation=activation)
            for i, s in zip(inputs, strides, strict=True)
        )
    )


NETWORKS = {"mobilenetv2": MobileNetV2}
"""By name."""
