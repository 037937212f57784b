"""A folded network says what the network says, with fewer passes over its maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gnnkd.nn.images import SMALL
from gnnkd.nn.images.folded import folded
from gnnkd.types import Output


def lively(network: nn.Module) -> nn.Module:
    """The network with statistics and affine maps that differ from channel to channel."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


NAMES = ("resnet8", "resnet8x4", "resnet18", "wrn_16_1", "vgg8", "mobilenetv2", "shufflev1", "shufflev2")


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_says_the_same(name: str) -> None:
    network, x = lively(SMALL[name](3, 7)), torch.randn(3, 3, 32, 32)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    twin = folded(network, x[:2])
    assert twin is not network
    assert norms(twin) < 0.6 * norms(network)
    ours, theirs = network(x), twin(x)
    for a, b in zip(
        (ours.logits, ours.pooled, *ours.maps, *ours.raw_maps),
        (theirs.logits, theirs.pooled, *theirs.maps, *theirs.raw_maps),
        strict=True,
    ):
        assert (a - b).abs().max() <= 1e-4 * a.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "the original stays"


class Past(nn.Module):
    """A convolution whose output goes into a batch norm, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> Output:
        y = self.conv(x)
        return Output((self.bn(y) + y).mean((2, 3)))


class Shared(Past):
    """A convolution that is used twice, with a batch norm behind one of its uses."""

    def forward(self, x: torch.Tensor) -> Output:
        return Output(self.conv(self.bn(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("kind", [Past, Shared])
def test_a_convolution_that_is_read_or_used_twice_is_left_alone(kind: type[Past]) -> None:
    network = lively(kind())
    assert folded(network, torch.randn(2, 3, 8, 8)) is network
