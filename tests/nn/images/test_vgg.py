"""VGG: convolutions with a shift, a pool behind the first blocks, and one more for larger images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gnnkd.errors import UserError
from gnnkd.nn.images.vgg import NETWORKS


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_it_is_its_formula() -> None:
    network, x = NETWORKS["vgg8"](3, 5).eval(), torch.randn(2, 3, 16, 16)
    h = x
    for i in range(5):
        conv, norm = network.get_submodule(f"block{i}.0"), network.get_submodule(f"block{i}.1")
        nn.init.normal_(conv.bias)
        nn.init.normal_(norm.bias)
    with torch.no_grad():
        out = network(x)
        for i in range(5):
            conv, norm = network.get_submodule(f"block{i}.0"), network.get_submodule(f"block{i}.1")
            h = norm(F.conv2d(h, conv.weight, conv.bias, padding=1))
            assert torch.allclose(out.raw_maps[i], h, atol=1e-4)
            h = h.relu()
            if i < 3:
                h = h.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
        assert torch.allclose(out.pooled, h.mean((2, 3)), atol=1e-4)
        assert torch.allclose(out.logits, network.classifier(h.mean((2, 3))), atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_depth_is_that_of_the_name(name: str) -> None:
    with torch.device("meta"):
        layers = [m for m in NETWORKS[name](3, 5).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) + 2 == int(name.removeprefix("vgg"))  # the name counts the three linear maps of ImageNet


@pytest.mark.parametrize(
    ("height", "width", "last"), [(32, 32, 4), (63, 63, 7), (64, 64, 4), (64, 63, 8), (128, 128, 8), (8, 8, 1)]
)
def test_the_fourth_pool_is_for_images_of_64_pixels_and_more(height: int, width: int, last: int) -> None:
    with torch.no_grad():
        out = NETWORKS["vgg8"](3, 200).eval()(torch.randn(1, 3, height, width))
    assert [m.shape[2] for m in out.maps] == [height, height // 2, height // 4, height // 8, last]


def test_a_pool_more_changes_no_weight() -> None:
    network = NETWORKS["vgg8"](3, 5).eval()
    with torch.no_grad():
        out = network(torch.randn(1, 3, 64, 64))
    assert torch.equal(out.raw_maps[4], network.get_submodule("block4")(F.max_pool2d(out.maps[3], 2)))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_without_a_pixel_for_each_block_is_refused(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name](3, 5)
        with pytest.raises(UserError, match="images are 8 x 7 pixels; this network needs at least 8 x 8: enlarge them"):
            network(torch.empty(2, 3, 8, 7))


def test_the_classifier_starts_small() -> None:
    head = NETWORKS["vgg8"](3, 100).classifier
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()
