"""The plain pair: sizes far apart, formula, and a teacher that reads digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.nn.images import SMALL
from gnnkd.nn.images.cnn import cnn, cnn_small


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def n_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_small_one_is_ten_times_smaller() -> None:
    large, small = n_parameters(cnn(1, 10)), n_parameters(cnn_small(1, 10))
    assert (large, small) == (103_466, 6_866)
    assert large > 10 * small


@pytest.mark.parametrize("name", ["cnn", "cnn_small"])
def test_maps_at_the_digits_size(name: str) -> None:
    width = {"cnn": 32, "cnn_small": 8}[name]
    maps = SMALL[name](1, 10)(torch.randn(2, 1, 8, 8)).maps
    assert [tuple(m.shape[1:]) for m in maps] == [(k * width, s, s) for k, s in [(1, 8), (1, 8), (2, 4), (4, 2)]]


@pytest.mark.parametrize("convs", [1, 2])
def test_it_is_its_formula(convs: int) -> None:
    network, x = cnn(3, 5, width=4, convs=convs).eval(), torch.randn(2, 3, 9, 12)
    for norm in network.norms():
        nn.init.normal_(norm.bias)
    out, h = network(x), x
    for i, (stage, n) in enumerate([("stem", 1), ("stage1", convs), ("stage2", convs), ("stage3", convs)]):
        if i > 1:
            h = F.max_pool2d(h, 2)
        for j in range(n):
            conv, norm = network.get_submodule(f"{stage}.{3 * j}"), network.get_submodule(f"{stage}.{3 * j + 1}")
            raw = norm(F.conv2d(h, conv.weight, padding=1))
            h = raw.relu()
        assert torch.allclose(out.raw_maps[i], raw, atol=1e-5)
        assert torch.allclose(out.maps[i], h, atol=1e-5)
    assert torch.allclose(out.logits, network.fc(h.mean((2, 3))), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"width": 0}, "width is 0; it must be at least 1"), ({"convs": -1}, "convs is -1; it must be at least 1")],
)
def test_an_option_outside_its_range_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        cnn(1, 10, **options)


def test_an_image_without_a_pixel_for_each_stage_is_refused() -> None:
    assert cnn(1, 10).eval()(torch.randn(1, 1, 4, 4)).maps[-1].shape[2:] == (1, 1)
    with pytest.raises(UserError, match="the images are 3 x 4 pixels; this network needs at least 4 x 4"):
        cnn(1, 10)(torch.randn(2, 1, 3, 4))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels for training, and of a stratified fifth for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = torch.from_numpy((x - x.mean()) / x.std()).float().reshape(-1, 1, 8, 8)
    fit, test = train_test_split(range(len(y)), test_size=0.2, stratify=y, random_state=0)
    labels = torch.from_numpy(y)
    return x[fit], labels[fit], x[test], labels[test]


@pytest.mark.parametrize(("name", "least"), [("cnn", 0.97), ("cnn_small", 0.9)])
def test_it_learns_digits_in_a_few_epochs(name: str, least: float) -> None:
    x, y, x_test, y_test = digits()
    network, epochs = SMALL[name](1, 10), 3
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]).logits, y[rows]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = network.eval()(x_test).logits.argmax(1)
    assert (found == y_test).float().mean() >= least
