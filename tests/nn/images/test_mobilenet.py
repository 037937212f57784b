"""MobileNets: published layouts, written out again by hand, and what the zoo's tests do not see."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.nn.images import LARGE, SMALL, TINY

KINDS = [SMALL["mobilenetv2"], TINY["mobilenetv2"], LARGE["mobilenetv1"]]
kinds = pytest.mark.parametrize("kind", KINDS, ids=["small", "tiny", "v1"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def stirred(network: nn.Module) -> nn.Module:
    """With batch norms that do something, in eval mode."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return network.eval()


def normed(state: dict[str, Tensor], key: str, x: Tensor) -> Tensor:
    mean, var, scale, shift = (state[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, shift)


def convolved(state: dict[str, Tensor], key: str, x: Tensor, **options: int) -> Tensor:
    return F.conv2d(x, state[f"{key}.weight"], state.get(f"{key}.bias"), **options)


def inverted(state: dict[str, Tensor], key: str, x: Tensor, stride: int, high: float) -> Tensor:
    """A block of MobileNetV2."""
    h = normed(state, f"{key}.1", convolved(state, f"{key}.0", x)).clamp(0, high)
    h = convolved(state, f"{key}.3", h, stride=stride, padding=1, groups=h.shape[1])
    h = normed(state, f"{key}.4", h).clamp(0, high)
    h = normed(state, f"{key}.7", convolved(state, f"{key}.6", h))
    return h + x if stride == 1 and h.shape == x.shape else h


@torch.no_grad()
def test_small_v2_is_its_formula() -> None:
    network, x = stirred(SMALL["mobilenetv2"](3, 5)), torch.randn(2, 3, 32, 32)
    state, out = network.state_dict(), network(x)
    h = normed(state, "conv1.1", convolved(state, "conv1.0", x, stride=2, padding=1)).relu()
    maps = [h]
    for i, (n, stride) in enumerate(zip((1, 2, 3, 4, 3, 3, 1), (1, 1, 2, 2, 1, 2, 1), strict=True)):
        for j in range(n):
            h = inverted(state, f"blocks.{i}.{j}.conv", h, stride if j == 0 else 1, float("inf"))
        maps += [h] if i in (1, 2, 4, 6) else []
    h = normed(state, "conv2.1", convolved(state, "conv2.0", h)).relu().mean((2, 3))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(out.maps, maps, strict=True))
    assert torch.allclose(out.pooled, h, rtol=1e-3, atol=1e-3)
    assert torch.allclose(out.logits, F.linear(h, state["classifier.0.weight"], state["classifier.0.bias"]), atol=1e-3)


@torch.no_grad()
def test_tiny_v2_is_its_formula() -> None:
    network, x = stirred(TINY["mobilenetv2"](3, 5)), torch.randn(2, 3, 64, 64)
    state, out = network.state_dict(), network(x)
    h = normed(state, "pre.1", convolved(state, "pre.0", x, padding=1)).clamp(0, 6)
    maps = [h]
    for i, (n, stride) in enumerate(zip((1, 2, 3, 4, 3, 3, 1), (1, 2, 2, 2, 1, 1, 1), strict=True), start=1):
        for j in range(n):
            key = f"stage{i}.residual" if n == 1 else f"stage{i}.{j}.residual"
            h = inverted(state, key, h, stride if j == 0 else 1, 6.0)
        maps += [h] if i in (2, 3, 4) else []
    maps.append(normed(state, "conv1.1", convolved(state, "conv1.0", h)).clamp(0, 6))
    h = maps[-1].mean((2, 3))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 66, 66), (24, 33, 33), (32, 17, 17), (64, 9, 9), (1280, 9, 9)]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(out.maps, maps, strict=True))
    assert torch.allclose(out.pooled, h, rtol=1e-3, atol=1e-3)
    assert torch.allclose(out.logits, convolved(state, "conv2", h[:, :, None, None]).flatten(1), atol=1e-3)


@torch.no_grad()
def test_v1_is_its_formula() -> None:
    network, x = stirred(LARGE["mobilenetv1"](3, 5)), torch.randn(1, 3, 64, 64)
    state, out = network.state_dict(), network(x)
    h = normed(state, "model.0.1", convolved(state, "model.0.0", x, stride=2, padding=1))
    raws = [h]
    for i, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), start=1):
        h = convolved(state, f"model.{i}.0", h.relu(), stride=stride, padding=1, groups=h.shape[1])
        h = normed(state, f"model.{i}.4", convolved(state, f"model.{i}.3", normed(state, f"model.{i}.1", h).relu()))
        raws += [h] if i in (3, 5, 11, 13) else []
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(out.raw_maps, raws, strict=True))
    h = h.relu().mean((2, 3))
    assert torch.allclose(out.pooled, h, rtol=1e-3, atol=1e-3)
    assert torch.allclose(out.logits, F.linear(h, state["fc.weight"], state["fc.bias"]), atol=1e-3)


def test_tiny_v2_has_the_published_size_and_names() -> None:
    with torch.device("meta"):
        network = TINY["mobilenetv2"](3, 200)
    assert sum(p.numel() for p in network.parameters()) == 2_497_480
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert len(shapes) == 2 * 7 + 17 * 21 + 2
    assert shapes["pre.0.weight"] == (32, 3, 1, 1)
    assert shapes["stage1.residual.0.weight"] == (32, 32, 1, 1)
    assert shapes["stage4.3.residual.3.weight"] == (384, 1, 3, 3)
    assert shapes["stage7.residual.7.running_var"] == (320,)
    assert shapes["conv1.0.bias"] == (1280,)
    assert shapes["conv2.weight"] == (200, 1280, 1, 1)


def test_v1_has_the_published_size_and_names() -> None:
    with torch.device("meta"):
        network = LARGE["mobilenetv1"](3, 1000)
    assert sum(p.numel() for p in network.parameters()) == 4_231_976
    of_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    layers = [("0", "0", "1"), *((str(i), conv, norm) for i in range(1, 14) for conv, norm in (("0", "1"), ("3", "4")))]
    keys = {f"model.{i}.{conv}.weight" for i, conv, _ in layers} | {"fc.weight", "fc.bias"}
    assert set(network.state_dict()) == keys | {f"model.{i}.{norm}.{part}" for i, _, norm in layers for part in of_norm}


@kinds
def test_norms_are_those_before_the_maps(kind: type[nn.Module]) -> None:
    """A shift of such a norm moves its own map and no earlier one."""
    network, x = stirred(kind(3, 5)), torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        before = network(x).maps
        for i, norm in enumerate(network.norms()):
            kept = norm.bias.clone()
            norm.bias += 1
            after = network(x).maps
            norm.bias.copy_(kept)
            assert next(j for j in range(len(before)) if not torch.equal(before[j], after[j])) == i
            assert norm.num_features == before[i].shape[1]


def test_first_weights_are_the_published_ones() -> None:
    """He et al.'s for the small MobileNetV2, with a narrow classifier; torch's own, bounded, for the others."""
    small, tiny, v1 = (kind(3, 100) for kind in KINDS)
    conv = small.blocks[5][1].conv[0].weight
    assert conv.std().item() == pytest.approx((2 / conv.shape[0]) ** 0.5, rel=0.02)
    depthwise = torch.cat([block[0].conv[3].weight.flatten() * (block[0].conv[3].out_channels * 9 / 2) ** 0.5
                           for block in small.blocks])  # fmt: skip
    assert depthwise.std().item() == pytest.approx(1, rel=0.05)
    head = small.classifier[0]
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()
    for weight in (tiny.conv1[0].weight, v1.model[12][3].weight):
        bound = weight[0].numel() ** -0.5
        assert 0.99 * bound < weight.abs().max() <= bound


@kinds
def test_training_reaches_every_parameter(kind: type[nn.Module]) -> None:
    network = kind(3, 5).train()
    out = network(torch.randn(3, 3, 40, 40))
    params = dict(network.named_parameters())
    gradients = torch.autograd.grad(out.logits.square().sum(), list(params.values()))
    assert [key for key, g in zip(params, gradients, strict=True) if g.dim() > 1 and not g.any()] == []


@kinds
def test_other_sizes_run_and_wrong_images_are_named(kind: type[nn.Module]) -> None:
    network = kind(1, 5).eval()
    with torch.no_grad():
        for height, width in ((1, 1), (7, 20), (65, 33)):
            out = network(torch.randn(2, 1, height, width))
            assert out.logits.shape == (2, 5)
            assert len(out.maps) == len(out.raw_maps) == len(network.norms()) == 5
    with pytest.raises(UserError, match="at least 1 x 1"):
        network(torch.empty(2, 1, 0, 8))
    with pytest.raises(UserError, match="the images have 3 channels; the network was made for 1"):
        network(torch.empty(2, 3, 8, 8))
    with pytest.raises(UserError, match="n_classes is 0"):
        kind(3, 0)
