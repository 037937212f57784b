"""Views: what a draw means, and what it must not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gnnkd.errors import UserError
from gnnkd.selfsup.views import DRAWS, Views, hues, seen

LUMA = torch.tensor([0.299, 0.587, 0.114])
STILL = Views(least_area=1.0, ratio=1.0, flip=False, jitter=0.0, grey=0.0)
AREA, FLIP, JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE, GREY = 0, 4, 5, 6, 7, 8, 9, 10


def _images(channels: int = 3) -> Tensor:
    return torch.rand(6, channels, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


def _draws(**named: float) -> Tensor:
    draws = torch.full((6, DRAWS), 0.5)
    for name, value in named.items():
        draws[:, globals()[name.upper()]] = value
    return draws


@pytest.mark.parametrize("channels", [1, 3])
def test_no_change_is_the_image(channels: int) -> None:
    x = _images(channels)
    torch.testing.assert_close(seen(x, torch.rand(6, DRAWS), STILL), x)


def test_a_flip_mirrors_half_of_the_images() -> None:
    x, views = _images(), Views(least_area=1.0, ratio=1.0, flip=True, jitter=0.0, grey=0.0)
    torch.testing.assert_close(seen(x, _draws(flip=0.49), views), x.flip(3))
    torch.testing.assert_close(seen(x, _draws(flip=0.51), views), x)


def test_a_crop_of_a_quarter_in_the_corner_is_that_corner_at_twice_the_size() -> None:
    """Area .25 of 8 x 8 is 4 x 4; its pixel centres lie at every second sample, shifted by a quarter."""
    ramp = torch.arange(8.0).repeat(8, 1).expand(6, 1, 8, 8) / 10
    draws = _draws(area=0.0)
    draws[:, 2] = draws[:, 3] = 0.0
    found = seen(ramp, draws, Views(least_area=0.25, ratio=1.0, flip=False, jitter=0.0))
    along = (torch.arange(8.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(found[0, 0, 3], along.clamp(min=0) / 10)


def test_a_crop_has_the_area_that_is_drawn() -> None:
    """On a ramp, the crop's width is the spread of what is seen, and so is its height on the turned ramp."""
    side = 64
    ramp = (torch.arange(side) / side).expand(6, 1, side, side)
    draws = _draws(area=0.3)
    draws[:, 1] = torch.linspace(0, 0.9, 6)
    views = Views(least_area=0.2, ratio=4 / 3, flip=False, jitter=0.0)
    across, down = (
        seen(x, draws, views).flatten(1).amax(1) - seen(x, draws, views).flatten(1).amin(1)
        for x in (ramp, ramp.mT.contiguous())
    )
    ratios = torch.exp((2 * draws[:, 1] - 1) * math.log(4 / 3))
    torch.testing.assert_close(across * down, torch.full((6,), 0.2 + 0.8 * 0.3), rtol=0.05, atol=0)
    torch.testing.assert_close(across / down, ratios, rtol=0.05, atol=0)


def _slow(x: Tensor, b: float, c: float, s: float, turn: float, *, grey: bool) -> Tensor:
    """One operation after another, each as its definition has it, clipped at the end."""
    x = b * x
    mean = (x * LUMA.view(3, 1, 1)).sum(1).mean((1, 2)).view(-1, 1, 1, 1)
    x = c * x + (1 - c) * mean
    x = s * x + (1 - s) * (x * LUMA.view(3, 1, 1)).sum(1, keepdim=True)
    x = torch.einsum("ij,njhw->nihw", hues(torch.tensor([turn]))[0], x)
    if grey:
        x = (x * LUMA.view(3, 1, 1)).sum(1, keepdim=True).expand_as(x)
    return x.clamp(0, 1)


@pytest.mark.parametrize("grey", [False, True])
def test_colours_are_the_operations_one_after_another(grey: bool) -> None:
    views = Views(least_area=1.0, ratio=1.0, flip=False, grey=0.2)
    draws = _draws(jitter=0.1, brightness=0.9, contrast=0.2, saturation=0.7, hue=0.8, grey=0.1 if grey else 0.3)
    wanted = _slow(_images(), 1.32, 0.76, 1.16, 0.06, grey=grey)
    torch.testing.assert_close(seen(_images(), draws, views), wanted, rtol=1e-4, atol=1e-5)


def test_a_grey_image_of_three_channels_stays_grey_and_is_what_one_channel_becomes() -> None:
    one = _images(1)
    draws, views = torch.rand(6, DRAWS, generator=torch.Generator().manual_seed(1)), Views()
    three = seen(one.expand(-1, 3, -1, -1).contiguous(), draws, views)
    torch.testing.assert_close(three, seen(one, draws, views).expand_as(three), rtol=1e-3, atol=1e-3)


def test_a_hue_turns_colours_around_grey() -> None:
    turn = torch.tensor([0.0, 0.1, -0.1, 1.0])
    m = hues(turn)
    torch.testing.assert_close(m[0], torch.eye(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(m[3], torch.eye(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(m[1] @ m[2], torch.eye(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(LUMA @ m[1], LUMA, rtol=0, atol=1e-5)
    torch.testing.assert_close(m[1] @ torch.ones(3), torch.ones(3), rtol=0, atol=2e-3)


def test_a_view_is_of_its_own_draws_alone() -> None:
    x, draws = _images(), torch.rand(6, DRAWS)
    torch.testing.assert_close(seen(x, draws, Views())[4:5], seen(x[4:5], draws[4:5], Views()))


def test_values_stay_in_their_range() -> None:
    x = torch.rand(64, 3, 8, 8).round()
    found = seen(x, torch.rand(64, DRAWS), Views(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5))
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"least_area": 0.0}, r"views.least_area is 0.0; it must lie in \[0.01, 1\]"),
        ({"hue": 0.6}, r"views.hue is 0.6; it must lie in \[0, 0.5\]"),
        ({"ratio": 0.9}, "views.ratio is 0.9"),
        ({"grey": -0.1}, "views.grey is -0.1"),
    ],
)
def test_an_option_out_of_range(wrong: dict[str, float], words: str) -> None:
    make: Callable[..., Views] = Views
    with pytest.raises(UserError, match=words):
        make(**wrong)
