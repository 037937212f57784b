"""Wide residual networks (Zagoruyko, Komodakis, BMVC 2016) of CIFAR: `wrn_D_W` has depth D = 6 n + 4 and width W.

Norm and activation stand before each convolution, so a stage ends in an unnormalised sum. A stage's map is what the
next one reads: `raw_maps` are that sum behind the next batch norm (the first of the next stage; the network's last),
`maps` their ReLU, and `norms` those batch norms. **Departure** from mdistiller, whose feature lists hold the sums
without norm: those norms are the ones that its methods read, and maps of all networks are activated ones here. There, a
forward pass also runs these norms a second time, which moves their running statistics twice in each step; here, once.

`wideresnet28_2` of the Knowledge Transfer Graph (KTG) is `wrn_28_2` here, alike in every weight's name and shape: depth
28, width 2, plain ReLU, no dropout; 1,479,220 parameters at 100 classes. First weights are as published.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.nn.images.network import ImageNetwork, check_head, check_images, initialise, pooled
from gnnkd.types import Neighbours, Output


@final
class Block(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice; plus the input, or 1x1 convolution of the activated input if channels change.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.convShortcut = (
            None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        )

    def forward(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """The sum of branch and detour."""
        return self.behind(x, F.relu(self.bn1(x), inplace=True))

    def behind(self, x: Float[Tensor, "N I H W"], active: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """The same, when `active` = relu(bn1(x)) is there already."""
        branch = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        return cast("Tensor", branch + (x if self.convShortcut is None else self.convShortcut(active)))


@final
class WideResNet(ImageNetwork):
    """A 3x3 convolution, three stages of which two halve the image, norm and ReLU, a linear classifier.

    Args:
        in_channels: channels of an image, >= 1.
        n_classes: >= 1.
        n: blocks of a stage, >= 1.
        width: channels of the first stage in 16s, >= 1.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, n_classes: int, *, n: int, width: int) -> None:
        super().__init__()
        check_head(in_channels, n_classes)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.block1 = _stage(16, 16 * width, n, stride=1)
        self.block2 = _stage(16 * width, 32 * width, n, stride=2)
        self.block3 = _stage(32 * width, 64 * width, n, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, n_classes)
        initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Float[Tensor, "N K H W"], graph: Neighbours | None = None) -> Output:
        """Logits, the maps of stem and stages (each behind the next norm and its ReLU), pooled features; any size."""
        check_images(x, self.conv1.in_channels)
        x = self.conv1(x)
        raws, maps = [], []
        for first, *rest in self._stages():
            raws.append(first.bn1(x))
            maps.append(F.relu(raws[-1]))
            x = first.behind(x, maps[-1])
            for block in rest:
                x = block(x)
        raws.append(self.bn1(x))
        maps.append(F.relu(raws[-1]))
        rows = pooled(maps[-1])
        return Output(self.fc(rows), maps=tuple(maps), raw_maps=tuple(raws), pooled=rows)

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The first batch norm of each stage, which stem or stage before flow into, and the last of all."""
        return (*(blocks[0].bn1 for blocks in self._stages()), self.bn1)

    def _stages(self) -> list[list[Block]]:
        stages = (self.block1, self.block2, self.block3)
        return [[cast("Block", block) for block in cast("nn.Sequential", stage["layer"])] for stage in stages]


def _stage(in_channels: int, out_channels: int, n: int, *, stride: int) -> nn.ModuleDict:
    first = Block(in_channels, out_channels, stride)
    # The published names of weights have the word `layer` between a stage and its blocks.
    return nn.ModuleDict({"layer": nn.Sequential(first, *(Block(out_channels, out_channels, 1) for _ in range(n - 1)))})


def _wrn(depth: int, width: int) -> Callable[..., WideResNet]:
    def build(in_channels: int, n_classes: int) -> WideResNet:
        return WideResNet(in_channels, n_classes, n=(depth - 4) // 6, width=width)

    return build


NETWORKS = {
    f"wrn_{depth}_{width}": _wrn(depth, width) for depth, width in [(16, 1), (16, 2), (28, 2), (40, 1), (40, 2)]
}
"""By name, depth and width."""
