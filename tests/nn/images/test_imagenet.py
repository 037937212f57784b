"""Residual networks of ImageNet: the weights of torchvision, shapes at 224 pixels, the forward pass by hand."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.nn.images import LARGE

RESNETS = {
    "resnet18": (11_689_512, 122, "66b04efc1dfd4b8081ba80fd7b23ab4d63039fdd0a7f5cef3c8bd7aea780b487"),
    "resnet34": (21_797_672, 218, "4aa3e2bbbdc5e2fdb7bfcf1e886271e8e822af6b754d4023a9ab60bf1453a693"),
    "resnet50": (25_557_032, 320, "614cd53ddf84966979ca9f6b3cf723cba0ad398675e7d0db3550943789819c17"),
    "resnet101": (44_549_160, 626, "593b3bde446ee9039879438487d99c04df1fc6161488fb2f5c1bde280073e79d"),
}
"""Parameters at 1000 classes, entries of the state dict, SHA-256 of its names and shapes, all of torchvision 0.28."""
SMALLEST, WIDEST = "resnet18", "resnet50"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", RESNETS)
def test_names_and_shapes_of_weights_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        network = LARGE[name](3, 1000)
    state = network.state_dict()
    listed = "\n".join(f"{key} {list(value.shape)}" for key, value in state.items())
    size = sum(p.numel() for p in network.parameters())
    assert (size, len(state), hashlib.sha256(listed.encode()).hexdigest()) == RESNETS[name]
    assert state["layer2.0.downsample.0.weight"].shape[2:] == (1, 1)
    assert ("layer1.0.downsample.0.weight" in state) == (name in ("resnet50", "resnet101"))


@pytest.mark.parametrize("name", LARGE)
def test_shapes_at_the_published_size(name: str) -> None:
    with torch.device("meta"):
        network = LARGE[name](3, 1000)
        out = network(torch.empty(2, 3, 224, 224))
    wide = {"resnet50": 4, "resnet101": 4}.get(name, 1)
    channels = [32, 128, 256, 512, 1024] if name == "mobilenetv1" else [64, *(wide * k for k in (64, 128, 256, 512))]
    assert [tuple(m.shape) for m in out.maps] == [
        (2, k, size, size) for k, size in zip(channels, (112, 56, 28, 14, 7), strict=True)
    ]
    assert out.logits.shape == (2, 1000)
    assert out.pooled.shape == (2, channels[-1])
    assert [norm.num_features for norm in network.norms()] == channels


def block(part: nn.Module, x: Tensor) -> Tensor:
    """A block's raw output from its activated input."""
    h, last = x, 3 if hasattr(part, "conv3") else 2
    for i in range(1, last + 1):
        conv, norm = getattr(part, f"conv{i}"), getattr(part, f"bn{i}")
        h = norm(F.conv2d(h, conv.weight, stride=conv.stride, padding=conv.padding))
        h = h.relu() if i < last else h
    return h + (part.downsample(x) if hasattr(part, "downsample") else x)


@torch.no_grad()
@pytest.mark.parametrize("name", [SMALLEST, WIDEST])
def test_it_is_its_formula(name: str) -> None:
    network, x = LARGE[name](3, 5), torch.randn(2, 3, 64, 64)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias, std=0.1)
            nn.init.uniform_(part.running_var, 1, 2)
    out = network.eval()(x)
    raws = [network.bn1(network.conv1(x))]
    padded = F.pad(raws[0].relu(), (1, 1, 1, 1))
    h = padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for part in layer:
            raw = block(part, h)
            h = raw.relu()
        raws.append(raw)
    for found, raw, activated in zip(out.raw_maps, raws, out.maps, strict=True):
        assert torch.allclose(found, raw, rtol=1e-3, atol=1e-3)
        assert torch.equal(activated, found.relu())
    assert torch.allclose(out.pooled, h.mean((2, 3)), rtol=1e-3, atol=1e-3)
    assert torch.allclose(out.logits, network.fc(out.pooled))


def test_the_stride_is_in_the_3x3_convolution() -> None:
    """As in torchvision; in the paper it is in the first one."""
    first = LARGE[WIDEST](3, 5).layer2[0]
    assert (first.conv1.stride, first.conv2.stride, first.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_norms_are_those_before_the_maps() -> None:
    network = LARGE[WIDEST](3, 5)
    layers = (network.layer1, network.layer2, network.layer3, network.layer4)
    assert network.norms() == (network.bn1, *(layer[-1].bn3 for layer in layers))


def test_training_reaches_every_parameter() -> None:
    network = LARGE[SMALLEST](3, 5).train()
    out = network(torch.randn(3, 3, 40, 40))
    params = dict(network.named_parameters())
    gradients = torch.autograd.grad(out.logits.square().sum(), list(params.values()))
    assert [key for key, g in zip(params, gradients, strict=True) if not g.any()] == []


def test_other_sizes_run_and_wrong_images_are_named() -> None:
    network = LARGE[SMALLEST](1, 5).eval()
    with torch.no_grad():
        for height, width in ((1, 1), (65, 90)):
            assert network(torch.randn(2, 1, height, width)).logits.shape == (2, 5)
    with pytest.raises(UserError, match="at least 1 x 1"):
        network(torch.empty(2, 1, 8, 0))
    with pytest.raises(UserError, match="the images have 3 channels; the network was made for 1"):
        network(torch.empty(2, 3, 8, 8))
    with pytest.raises(UserError, match="in_channels is 0"):
        LARGE[SMALLEST](0, 5)
