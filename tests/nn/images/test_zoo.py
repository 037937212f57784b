"""The zoo: every network has the published size, names and values, and keeps the promises of its interface."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.nn.images import LARGE, NAMES, SMALL, TINY, family
from gnnkd.nn.images.network import initialise

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT.parent / "shared" / "golden"

PARAMETERS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "ResNet18": 11_220_132,
    "ResNet50": 23_705_252,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "vgg16": 14_774_436,
    "vgg19": 20_086_692,
    "MobileNetV2": 812_836,
    "ShuffleV1": 949_258,
    "ShuffleV2": 1_355_528,
}
"""Of each published network of CIFAR-100, by its published name."""

NARROW = [(16, 32), (16, 32), (32, 16), (64, 8)]
WIDE = [(32, 32), (64, 32), (128, 16), (256, 8)]
VGG = [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)]
MAPS = {
    **{f"resnet{depth}": NARROW for depth in (8, 14, 20, 32, 44, 56, 110)},
    **dict.fromkeys(["resnet8x4", "resnet32x4"], WIDE),
    "ResNet18": [(64, 32), (64, 32), (128, 16), (256, 8), (512, 4)],
    "ResNet50": [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)],
    **dict.fromkeys(["wrn_16_1", "wrn_40_1"], NARROW),
    **{name: [(16, 32), (32, 32), (64, 16), (128, 8)] for name in ("wrn_16_2", "wrn_40_2")},
    **{f"vgg{depth}": VGG for depth in (8, 11, 13, 16, 19)},
    "MobileNetV2": [(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)],
    "ShuffleV1": [(24, 32), (240, 16), (480, 8), (960, 4)],
    "ShuffleV2": [(24, 32), (116, 16), (232, 8), (464, 4)],
}
"""Channels and height of the published feature maps at 32 x 32."""

ANSWERED = ("resnet8", "resnet20", "resnet8x4", "ResNet18", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2")
"""Networks with golden logits."""
LINEAR = {"mobilenetv2"}
"""Networks whose maps have no activation behind them."""
BUILT = sorted(SMALL)


def n_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def filled(network: nn.Module) -> nn.Module:
    """Every entry of the state dict drawn from its own name, as the golden values' README has it."""
    state = {}
    for key, old in network.state_dict().items():
        n = torch.from_numpy(np.random.RandomState(crc32(key.encode())).standard_normal(tuple(old.shape)))
        if not old.is_floating_point():
            state[key] = torch.zeros_like(old)
        elif key.endswith("running_var"):
            state[key] = 1 + 0.1 * n.abs()
        elif old.dim() < 2:
            state[key] = 1 + 0.1 * n if key.endswith("weight") else 0.1 * n
        else:
            state[key] = n * (0.6 / old[0].numel()) ** 0.5
    network.load_state_dict(state, strict=True)
    return network.eval()


@cache
def golden(file: str) -> Any:
    path = GOLDEN / file
    if not path.exists():
        pytest.skip(f"no golden values at {path}")
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with np.load(path) as arrays:
        return dict(arrays)


def images(n: int = 2, size: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def classifier(network: nn.Module) -> nn.Linear:
    *_, last = (part for part in network.modules() if isinstance(part, nn.Linear))
    return last


@pytest.mark.parametrize("name", PARAMETERS)
def test_names_and_shapes_of_weights_are_the_published_ones(name: str) -> None:
    published = golden("cifar_models.json")[name]
    network = SMALL[name.lower()](3, 100)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == published["state_dict"]
    assert n_parameters(network) == published["parameters"]
    state = {key: torch.zeros(shape) for key, shape in published["state_dict"].items()}
    network.load_state_dict(state, strict=True)


def test_every_published_network_is_here() -> None:
    assert set(golden("cifar_models.json")) == set(PARAMETERS)
    assert {key for key in golden("cifar_logits.npz") if "/" not in key} == {*ANSWERED, "input_seed"}


@pytest.mark.parametrize("name", ANSWERED)
def test_logits_and_pooled_features_are_the_published_ones(name: str) -> None:
    values = golden("cifar_logits.npz")
    x = torch.from_numpy(np.random.RandomState(7).standard_normal((2, 3, 32, 32)).astype(np.float32))
    with torch.no_grad():
        out = filled(SMALL[name.lower()](3, 100))(x)
    for found, want in ((out.logits, values[name]), (out.pooled, values[f"{name}/pooled"])):
        assert np.allclose(found.numpy(), want, rtol=1e-3, atol=1e-3 * np.abs(want).mean())


def test_the_filling_is_worth_testing_with() -> None:
    """Two inputs give different logits, so that a wrong layer would show."""
    with torch.no_grad():
        logits = filled(SMALL["resnet8"](3, 100))(images()).logits
    assert (logits[0] - logits[1]).abs().mean() > 0.05 * logits.abs().mean()


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        assert n_parameters(SMALL[name.lower()](3, 100)) == PARAMETERS[name]
        assert n_parameters(SMALL[name.lower()](3, 10)) < PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_maps_have_the_published_shapes(name: str) -> None:
    with torch.no_grad():
        out = SMALL[name.lower()](3, 100).eval()(images())
    assert [(m.shape[1], m.shape[2]) for m in out.maps] == MAPS[name]
    assert all(m.shape[2] == m.shape[3] and m.shape[0] == 2 for m in out.maps)


@pytest.mark.parametrize("name", BUILT)
def test_outputs_belong_together(name: str) -> None:
    """The classifier multiplies `pooled`, ReLU turns raw maps into maps, and `norms` stand beside the maps."""
    torch.manual_seed(0)
    network, x = SMALL[name](1, 7).eval(), images(3, 16, 1)
    for norm in network.norms():
        nn.init.normal_(norm.bias) if norm is not None else None
    with torch.no_grad():
        out = network(x, None)
    head = classifier(network)
    assert torch.equal(F.linear(out.pooled, head.weight, head.bias), out.logits)
    assert out.logits.shape == (3, 7)
    assert len(out.maps) == len(out.raw_maps) == len(network.norms()) >= 4
    for raw, found, norm in zip(out.raw_maps, out.maps, network.norms(), strict=True):
        assert torch.equal(found, raw if name in LINEAR else raw.relu())
        assert norm is None or norm.num_features == raw.shape[1]
    assert torch.equal(network(x).logits, out.logits)


@pytest.mark.parametrize("name", BUILT)
def test_training_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    network, x = SMALL[name](3, 5).train(), images(4, 8)
    params = dict(network.named_parameters())
    gradients = torch.autograd.grad(network(x).logits.square().sum(), list(params.values()))
    assert all(torch.isfinite(g).all() for g in gradients)
    assert [key for key, g in zip(params, gradients, strict=True) if g.dim() > 1 and not g.any()] == []
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.num_batches_tracked == 1  # one pass moves the statistics once


@pytest.mark.parametrize("name", BUILT)
def test_maps_hand_gradients_down(name: str) -> None:
    """Feature methods differentiate by maps, activated or not; nothing was overwritten in place."""
    network = SMALL[name](3, 5).train()
    out = network(images(2, 8))
    total = sum(m.square().mean() for m in (*out.maps, *out.raw_maps)) + out.pooled.sum()
    total.backward()
    assert next(network.parameters()).grad.any()


@pytest.mark.parametrize("name", BUILT)
def test_other_sizes_run(name: str) -> None:
    network = SMALL[name](3, 5).eval()
    with torch.no_grad():
        for x in (torch.randn(2, 3, 8, 20), images(1, 9)):
            out = network(x)
            assert out.logits.shape == (len(x), 5)
            assert len(out.maps) == len(network.norms())
            assert torch.isfinite(out.logits).all()


@pytest.mark.parametrize("name", BUILT)
def test_a_wrong_image_or_head_is_named(name: str) -> None:
    with torch.device("meta"):
        network = SMALL[name](3, 5)
        with pytest.raises(UserError, match="the images have 1 channels; the network was made for 3"):
            network(torch.empty(2, 1, 32, 32))
        with pytest.raises(UserError, match="the images are 32 x 0 pixels; this network needs at least"):
            network(torch.empty(2, 3, 32, 0))
        with pytest.raises(UserError, match="in_channels is 0; it must be at least 1"):
            SMALL[name](0, 5)
        with pytest.raises(UserError, match="n_classes is 0; it must be at least 1"):
            SMALL[name](3, 0)


def test_a_network_of_one_seed_is_one_network() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(SMALL["resnet8"](3, 5).state_dict())
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_a_network_without_memory_is_made_at_once() -> None:
    """Options are checked on the meta device, where a normal draw would make torch load sympy."""
    code = (
        "import sys, torch\n"
        "from gnnkd.nn.images import LARGE, SMALL, TINY\n"
        "before = 'sympy' in sys.modules\n"
        "with torch.device('meta'):\n"
        "    [g[n](3, 5) for g in (SMALL, TINY, LARGE) for n in (*g.keys() & {'vgg8', 'mobilenetv2'}, 'resnet18')]\n"
        "assert ('sympy' in sys.modules) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_convolutions_start_as_he_et_al_say() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.Conv2d(128, 256, 1, groups=4, bias=False))
    nn.init.normal_(network[1].weight)
    initialise(network)
    # A layer of 128 outputs and 3 x 3 pixels: variance 2 / 1152; groups share the outputs.
    for conv, variance in ((network[0], 2 / 1152), (network[2], 2 / 256)):
        assert conv.weight.var().item() == pytest.approx(variance, rel=0.05)
    assert not network[0].bias.any()
    assert (network[1].weight == 1).all()
    assert not network[1].bias.any()


def test_families_meet_where_images_grow() -> None:
    assert [family(size) for size in (1, 8, 32, 33, 64, 65, 224)] == [SMALL, SMALL, SMALL, TINY, TINY, LARGE, LARGE]
    with pytest.raises(UserError, match="the image size is 0; it must be at least 1 pixel"):
        family(0)


def test_names_are_lower_case_and_of_all_families() -> None:
    assert frozenset({*SMALL, *TINY, *LARGE}) == NAMES
    assert {name.lower() for name in NAMES} == NAMES
    assert {name.lower() for name in PARAMETERS} <= set(SMALL)
    assert set(SMALL) <= set(TINY)
