"""Wide residual networks: norm before convolution, and maps where the next stage reads them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gnnkd.nn.images.wrn import NETWORKS, Block


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def lively(network: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that change what they see."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize(("out_channels", "stride"), [(4, 1), (6, 1), (6, 2)])
def test_a_block_is_its_formula(out_channels: int, stride: int) -> None:
    block, x = lively(Block(4, out_channels, stride)), torch.randn(3, 4, 8, 8)
    a = block.bn1(x).relu()
    z = F.conv2d(
        block.bn2(F.conv2d(a, block.conv1.weight, stride=stride, padding=1)).relu(), block.conv2.weight, padding=1
    )
    # Where channels stay, the raw input goes around; where they change, the activated one is convolved.
    z = z + (x if out_channels == 4 else F.conv2d(a, block.convShortcut.weight, stride=stride))
    assert torch.allclose(block(x), z, atol=1e-4)
    assert torch.allclose(block.behind(x, a), z, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_map_is_what_the_next_stage_reads(name: str) -> None:
    network, x = lively(NETWORKS[name](3, 5)), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        out = network(x)
        h = network.conv1(x)
        readers = [network.block1["layer"][0].bn1, network.block2["layer"][0].bn1, network.block3["layer"][0].bn1]
        for i, (reader, blocks) in enumerate(
            zip(readers, (network.block1, network.block2, network.block3), strict=True)
        ):
            assert torch.allclose(out.raw_maps[i], reader(h), atol=1e-3, rtol=1e-3)
            assert torch.allclose(out.maps[i], reader(h).relu(), atol=1e-3, rtol=1e-3)
            h = blocks["layer"](h)
        assert torch.allclose(out.raw_maps[3], network.bn1(h), atol=1e-3, rtol=1e-3)
        assert torch.allclose(out.pooled, network.bn1(h).relu().mean((2, 3)), atol=1e-3, rtol=1e-3)
    assert all(one is other for one, other in zip(network.norms(), [*readers, network.bn1], strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_training_moves_each_statistic_by_the_batch_once(name: str) -> None:
    network, x = NETWORKS[name](3, 5).train(), torch.randn(4, 3, 8, 8)
    raw = network.conv1(x)
    network(x)
    norm = network.norms()[0]
    assert torch.allclose(norm.running_mean, 0.1 * raw.mean((0, 2, 3)), atol=1e-5)


def test_size_of_the_knowledge_transfer_graphs_network() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in NETWORKS["wrn_28_2"](3, 100).parameters()) == 1_479_220


def test_depth_and_width_are_those_of_the_name() -> None:
    for name in NETWORKS:
        _, depth, width = name.split("_")
        with torch.device("meta"):
            network = NETWORKS[name](3, 5)
        convs = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert len(convs) + 1 + 2 == int(depth)  # the published count has two of the three 1x1 convolutions
        assert [conv.out_channels for conv in convs[1 :: (len(convs) - 1) // 3]] == [
            k * int(width) for k in (16, 32, 64)
        ]
