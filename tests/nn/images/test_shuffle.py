"""ShuffleNets: the shuffle's definition, blocks written out by hand, sizes of Tiny-ImageNet."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkd.nn.images import SMALL, TINY
from gnnkd.nn.images.shuffle_v1 import Shuffled, shuffle
from gnnkd.nn.images.shuffle_v2 import Down, Half


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def stirred(block: nn.Module) -> nn.Module:
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
    return block.eval()


def slow_shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel `place` of each group in turn, for each place."""
    share = x.shape[1] // groups
    return torch.stack([x[:, g * share + place] for place in range(share) for g in range(groups)], dim=1)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_a_shuffle_deals_channels_out(groups: int) -> None:
    x = torch.randn(2, 6, 3, 4)
    assert torch.equal(shuffle(x, groups), slow_shuffle(x, groups))
    assert torch.equal(shuffle(shuffle(x, groups), 6 // groups), x)


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 3])
def test_a_block_of_v1_adds_or_halves(groups: int) -> None:
    x = torch.rand(2, 24, 7, 7)
    for out_channels in (24, 60):
        block = stirred(Shuffled(24, out_channels, groups=groups))
        h = slow_shuffle(block.bn1(block.conv1(x)).relu(), groups)
        h = block.bn3(block.conv3(block.bn2(block.conv2(h)).relu()))
        want = h + x if out_channels == 24 else torch.cat([h, F.avg_pool2d(x, 3, 2, 1)], 1)
        assert want.shape == (2, out_channels, *((7, 7) if out_channels == 24 else (4, 4)))
        assert torch.allclose(block.raw(x), want, atol=1e-5)
        assert torch.equal(block(x), block.raw(x).relu())
        assert block.conv1.groups == groups
        assert block.conv3.groups == 3


@torch.no_grad()
def test_a_block_of_v2_keeps_half_its_channels() -> None:
    x = torch.rand(2, 8, 5, 5)
    block = stirred(Half(8))
    h = block.bn1(block.conv1(x[:, 4:])).relu()
    h = block.bn3(block.conv3(block.bn2(block.conv2(h))))
    assert torch.allclose(block.raw(x), slow_shuffle(torch.cat([x[:, :4], h], 1), 2), atol=1e-5)
    out = block(x)
    assert torch.equal(out[:, ::2], x[:, :4])
    assert torch.allclose(out[:, 1::2], h.relu(), atol=1e-5)


@torch.no_grad()
def test_a_block_of_v2_halves_on_both_sides() -> None:
    x = torch.randn(2, 6, 5, 5)
    block = stirred(Down(6, 10))
    one = block.bn2(block.conv2(block.bn1(block.conv1(x)))).relu()
    two = block.bn4(block.conv4(block.bn3(block.conv3(x)).relu()))
    two = block.bn5(block.conv5(two)).relu()
    assert block(x).shape == (2, 10, 3, 3)
    assert torch.allclose(block(x), slow_shuffle(torch.cat([one, two], 1), 2), atol=1e-5)


@pytest.mark.parametrize(("name", "size", "pooled"), [("shufflev1", 1_045_358, 960), ("shufflev2", 1_458_028, 1024)])
def test_they_run_at_64_pixels(name: str, size: int, pooled: int) -> None:
    """As published, ShuffleV2 fails there."""
    network = TINY[name](3, 200)
    with torch.no_grad():
        out = network(torch.rand(2, 3, 64, 64))
    assert sum(p.numel() for p in network.parameters()) == size
    assert [m.shape[2] for m in out.maps] == [64, 32, 16, 8]
    assert out.pooled.shape == (2, pooled)


def test_the_stem_alone_is_read_ungrouped() -> None:
    network = SMALL["shufflev1"](3, 5)
    blocks = [block for part in (network.layer1, network.layer2, network.layer3) for block in part]
    assert [block.groups for block in blocks] == [1, *[3] * 15]
    assert [block.conv1.groups for block in blocks] == [1, *[3] * 15]


def test_norms_are_of_all_channels_or_none() -> None:
    one, two = SMALL["shufflev1"](3, 5), SMALL["shufflev2"](3, 5)
    assert one.norms() == (one.bn1, one.layer1[3].bn3, one.layer2[7].bn3, one.layer3[3].bn3)
    assert two.norms() == (two.bn1, None, None, None)
