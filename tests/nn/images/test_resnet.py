"""Residual networks: their blocks are their formula, and both kinds of shortcut are the paper's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.nn.images import SMALL
from gnnkd.nn.images.residual import Basic, Block, Bottleneck, Padded, features, last_norm, stage
from gnnkd.nn.images.resnet import NARROW, NETWORKS, ResNet

KTG = {"resnet20": 275_572, "resnet32": 470_004, "resnet44": 664_436, "resnet56": 858_868, "resnet110": 1_733_812}
"""Parameters of the Knowledge Transfer Graph's networks at 100 classes."""


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


def normed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize("stride", [1, 2])
def test_a_basic_block_is_its_formula(stride: int) -> None:
    block, x = lively(Basic(4, 6, stride, shortcut="b", detour="short")), torch.randn(3, 4, 8, 8)
    w = block.state_dict()
    z = normed(F.conv2d(x, w["conv1.weight"], stride=stride, padding=1), w, "bn1").relu()
    z = normed(F.conv2d(z, w["conv2.weight"], padding=1), w, "bn2")
    z = z + normed(F.conv2d(x, w["short.0.weight"], stride=stride), w, "short.1")
    assert torch.allclose(block.raw(x), z, atol=1e-4)
    assert torch.allclose(block(x), z.relu(), atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_bottleneck_is_its_formula(stride: int) -> None:
    block, x = lively(Bottleneck(6, 3, stride, shortcut="b", detour="short")), torch.randn(3, 6, 8, 8)
    w = block.state_dict()
    z = normed(F.conv2d(x, w["conv1.weight"]), w, "bn1").relu()
    z = normed(F.conv2d(z, w["conv2.weight"], stride=stride, padding=1), w, "bn2").relu()
    z = normed(F.conv2d(z, w["conv3.weight"]), w, "bn3")
    z = z + normed(F.conv2d(x, w["short.0.weight"], stride=stride), w, "short.1")
    assert z.shape[1] == 12
    assert torch.allclose(block.raw(x), z, atol=1e-4)
    assert torch.allclose(block(x), z.relu(), atol=1e-4)


@pytest.mark.parametrize("kind", [Basic, Bottleneck])
def test_where_the_shape_stays_the_detour_is_the_identity(kind: type[Block]) -> None:
    x = torch.randn(2, 8, 5, 5)
    for shortcut in ("a", "b"):
        block = kind(8, 8 // kind.expansion, 1, shortcut=shortcut, detour="short").eval()
        nn.init.zeros_(block.norm.weight)
        assert torch.equal(block.raw(x), x)
        assert not [key for key in block.state_dict() if key.startswith("short")]


@pytest.mark.parametrize("size", [7, 8])
def test_option_a_takes_every_second_pixel_and_zeros(size: int) -> None:
    x = torch.randn(2, 4, size, size)
    block = Basic(4, 10, 2, shortcut="a", detour="downsample").eval()
    nn.init.zeros_(block.norm.weight)
    out = block.raw(x)
    assert torch.equal(out[:, :4], x[:, :, ::2, ::2])
    assert not out[:, 4:].any()
    assert out.shape == block.branch(x).shape
    assert not list(Padded(4, 10, 2).parameters())


@pytest.mark.parametrize("name", KTG)
def test_sizes_with_option_a_are_those_of_the_knowledge_transfer_graph(name: str) -> None:
    with torch.device("meta"):
        network, other = SMALL[name](3, 100, shortcut="a"), SMALL[name](3, 100)
    assert sum(p.numel() for p in network.parameters()) == KTG[name]
    assert set(other.state_dict()) - set(network.state_dict()) == {
        f"layer{i}.0.downsample.{key}"
        for i in (2, 3)
        for key in ["0.weight", *(f"1.{k}" for k in other.bn1.state_dict())]
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_option_a_trains_in_every_network(name: str) -> None:
    network = NETWORKS[name](3, 5, shortcut="a").train()
    out = network(torch.randn(2, 3, 9, 8))
    assert [m.shape[1:] for m in out.maps] == [m.shape[1:] for m in NETWORKS[name](3, 5)(torch.randn(2, 3, 9, 8)).maps]
    params = dict(network.named_parameters())
    gradients = torch.autograd.grad(out.logits.square().sum(), list(params.values()))
    assert [key for key, g in zip(params, gradients, strict=True) if g.dim() > 1 and not g.any()] == []


def test_another_shortcut_is_refused() -> None:
    with pytest.raises(UserError, match="unknown shortcut 'c'; allowed: a, b"):
        ResNet(3, 5, widths=NARROW, n=1, shortcut="c")


@pytest.mark.parametrize("kind", [Basic, Bottleneck])
def test_a_stage_hands_out_both_sides_of_its_last_activation(kind: type[Block]) -> None:
    blocks = lively(stage(kind, 4, 4, 3, stride=2, detour="downsample"))
    x = torch.randn(2, 4, 8, 8)
    (stem, out), (stem_raw, raw) = features(x, [blocks])
    assert torch.equal(stem_raw, x)
    assert torch.equal(stem, x.relu())
    before = blocks[1](blocks[0](stem))
    assert torch.equal(raw, blocks[2].raw(before))
    assert torch.equal(out, blocks(stem))
    assert torch.equal(out, raw.relu())
    assert (raw < 0).any()
    nn.init.zeros_(last_norm(blocks).weight)
    nn.init.constant_(last_norm(blocks).bias, 3.0)
    assert torch.allclose(features(x, [blocks])[1][1] - before, torch.tensor(3.0), atol=1e-4)


def test_a_stage_reads_the_one_before_it_and_the_first_what_the_entry_leaves_of_the_stem() -> None:
    width = 4 * Bottleneck.expansion
    first, second = (lively(stage(Bottleneck, i, 4, 2, stride=2, detour="downsample")) for i in (4, width))
    x = torch.randn(2, 4, 16, 16)
    maps, raws = features(x, [first, second], entry=lambda stem: F.max_pool2d(stem, 2))
    assert torch.equal(maps[0], x.relu())
    assert torch.equal(maps[1], first(F.max_pool2d(x.relu(), 2)))
    assert torch.equal(maps[2], second(maps[1]))
    assert [m.shape for m in maps] == [r.shape for r in raws]


def test_the_deep_network_has_as_many_layers_as_its_name_says() -> None:
    for name in NETWORKS:
        with torch.device("meta"):
            convs = [m for m in NETWORKS[name](3, 5).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert len(convs) + 1 == int(name.removeprefix("resnet").removesuffix("x4"))


def test_tiny_imagenet_has_the_published_size() -> None:
    network = SMALL["resnet18"](3, 200).eval()
    with torch.no_grad():
        out = network(torch.randn(1, 3, 64, 64))
    assert sum(p.numel() for p in network.parameters()) == 11_271_432
    assert [tuple(m.shape[1:]) for m in out.maps] == [
        (64, 64, 64),
        (64, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
    ]
