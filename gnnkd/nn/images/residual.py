"""Residual blocks (He, Zhang, Ren, Sun, CVPR 2016): out = relu(branch(x) + detour(x)), and stages of them.

The detour is the identity where input and output have one shape. Elsewhere it is a strided 1x1 convolution with batch
norm (option B of the paper), or free of parameters (option A): every second row and column, new channels zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, cast, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.errors import unknown

SHORTCUTS = ("a", "b")
"""What may stand where a block changes the shape: A without parameters, B a convolution with batch norm."""


@final
class Padded(nn.Module):
    """Option A: every `stride`-th pixel, and zeros as the channels that are new; they come after the old ones."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.new = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """Subsample and pad."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))


class Block(nn.Module, ABC):
    """A residual block.

    Args:
        in_channels: of the input.
        width: channels inside; the output has `expansion` times as many.
        stride: of the output against the input.
        shortcut: `b` or `a`.
        detour: the name under which the detour's weights are saved.
    """

    expansion: ClassVar[int]

    def __init__(self, in_channels: int, width: int, stride: int, *, shortcut: str, detour: str) -> None:
        super().__init__()
        self.detour = detour
        out_channels = width * self.expansion
        self._lay(in_channels, width, stride)
        if stride == 1 and in_channels == out_channels:
            return
        self.add_module(
            detour,
            Padded(in_channels, out_channels, stride)
            if shortcut == "a"
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            ),
        )

    @abstractmethod
    def _lay(self, in_channels: int, width: int, stride: int) -> None:
        """Make the layers of the branch."""

    @abstractmethod
    def branch(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """What is learned on top of the detour."""

    @property
    @abstractmethod
    def norm(self) -> nn.BatchNorm2d:
        """The last batch norm of the branch."""

    def raw(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """The output before its activation."""
        detour = self._modules.get(self.detour)
        return self.branch(x) + (x if detour is None else detour(x))

    def forward(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """The output."""
        return F.relu(self.raw(x), inplace=True)


@final
class Basic(Block):
    """Two 3x3 convolutions; the first has the stride."""

    expansion = 1

    def _lay(self, in_channels: int, width: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def branch(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """Convolve twice."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return cast("Tensor", self.bn2(self.conv2(x)))

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The second batch norm."""
        return self.bn2


@final
class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions; the middle one has the stride, the last one four times the channels."""

    expansion = 4

    def _lay(self, in_channels: int, width: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)

    def branch(self, x: Float[Tensor, "N I H W"]) -> Float[Tensor, "N O h w"]:
        """Convolve three times."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return cast("Tensor", self.bn3(self.conv3(x)))

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The third batch norm."""
        return self.bn3


def stage(
    block: type[Block], in_channels: int, width: int, n: int, *, stride: int, shortcut: str = "b", detour: str
) -> nn.Sequential:
    """`n` blocks of one width, the first of which changes the shape.

    Raises:
        UserError: another shortcut than `a` or `b`.
    """
    if shortcut not in SHORTCUTS:
        raise unknown("shortcut", shortcut, SHORTCUTS)
    inputs = [in_channels, *[width * block.expansion] * (n - 1)]
    strides = [stride, *[1] * (n - 1)]
    return nn.Sequential(
        *(block(i, width, s, shortcut=shortcut, detour=detour) for i, s in zip(inputs, strides, strict=True))
    )


def features(
    raw: Float[Tensor, "N I H W"],
    stages: Iterable[nn.Sequential],
    *,
    entry: Callable[[Tensor], Tensor] | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The maps [N, O, h, w] of stem and stages: all after their last activation, and all before it.

    Args:
        raw: the stem's map before its activation.
        stages: of blocks that know their raw output.
        entry: what stands between the stem's map and the first stage, if anything.
    """
    raws, maps = [raw], [F.relu(raw)]
    x = maps[0] if entry is None else entry(maps[0])
    for *first, last in stages:
        for block in first:
            x = block(x)
        raws.append(cast("Block", last).raw(x))
        x = F.relu(raws[-1])
        maps.append(x)
    return tuple(maps), tuple(raws)


def last_norm(blocks: nn.Sequential) -> nn.BatchNorm2d:
    """The batch norm whose output is the last term of a stage's raw output."""
    return cast("Block", blocks[-1]).norm
