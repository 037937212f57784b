"""Laws of augmentation: a view is a padded crop, all views occur, and pixels become numbers as elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gnnkd.data.augment import (
    CPU,
    Augment,
    Normalisation,
    chosen,
    drawn_apart,
    generator,
    key,
    normalised,
    seen,
    view_pixels,
)
from gnnkd.data.store import Pixels
from gnnkd.errors import UserError

N, K, S = 40, 3, 12


def images() -> torch.Tensor:
    return torch.randint(1, 256, (N, K, S, S), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def slowly(image: torch.Tensor, view: int, augment: Augment) -> torch.Tensor:
    """One image: pad with black, cut, mirror."""
    padded = F.pad(image, (augment.padding,) * 4)
    offset, mirror = divmod(view, 2) if augment.flip else (view, 0)
    down, right = divmod(offset, augment.offsets)
    cut = padded[:, down : down + image.shape[1], right : right + image.shape[2]]
    return cut.flip(-1) if mirror else cut


@pytest.mark.parametrize(
    "augment", [Augment("shift", 4, True), Augment("shift", 1), Augment("none"), Augment("shift", 2)]
)
def test_each_view_is_a_crop_of_the_padded_image(augment):
    x, table = images()[:2], view_pixels(augment, S)
    assert table.shape == (augment.views, S * S)
    for view in range(augment.views):
        found = seen(x, torch.full((2,), view), table)
        assert torch.equal(found, torch.stack([slowly(image, view, augment) for image in x]))


def test_the_number_of_views():
    assert Augment("shift", 4, True).views == 162
    assert Augment("shift", 1).views == 9
    assert Augment("none").views == 1
    assert Augment("resized", flip=True).views == 0


@pytest.mark.parametrize(("size", "padding"), [(8, 1), (16, 2), (28, 3), (32, 4), (64, 4)])
def test_padding_is_an_eighth_up_to_four(size, padding):
    assert chosen("auto", size=size, large=False, flips=True) == Augment("shift", padding, True)


def test_words():
    small = {"size": 32, "large": False, "flips": False}
    assert chosen("auto", **small) == chosen("crop", **small) == Augment("shift", 4, False)
    assert chosen("Crop-Flip", **small) == Augment("shift", 4, True)
    assert chosen("none", **small) == chosen("none", **small | {"large": True}) == Augment("none")
    assert chosen("auto", size=224, large=True, flips=True) == Augment("resized", flip=True)
    with pytest.raises(UserError, match="did you mean 'crop_flip'"):
        chosen("cropflip", **small)


def test_offsets_and_mirrors_are_uniform_and_independent():
    """Of 40 images over 400 epochs each of 162 views is expected 98.8 times; chi-squared of 161 degrees."""
    store, augment = Pixels(images()), Augment("shift", 4, True)
    found = torch.cat([next(store.augmented([torch.arange(N)], augment, 0, e)).view for e in range(400)])
    counts = torch.bincount(found, minlength=162).double()
    expected = N * 400 / 162
    assert float(((counts - expected) ** 2 / expected).sum()) < 161 + 5 * (2 * 161) ** 0.5


def test_the_draw_of_an_image_depends_on_seed_epoch_and_row_only():
    store, augment = Pixels(images()), Augment("shift", 4, True)
    (whole,) = store.augmented([torch.arange(N)], augment, 3, 7)
    torch.rand(5)
    pieces = list(store.augmented([torch.tensor([5, 1]), torch.tensor([30])], augment, 3, 7))
    rows = torch.tensor([5, 1, 30])
    assert torch.equal(torch.cat([p.pixels for p in pieces]), whole.pixels[rows])
    assert torch.equal(torch.cat([p.view for p in pieces]), whole.view[rows])
    for other in ((3, 8), (4, 7)):
        assert not torch.equal(next(store.augmented([torch.arange(N)], augment, *other)).view, whole.view)


def test_drawing_takes_nothing_from_the_generator_that_networks_use():
    state = torch.get_rng_state()
    list(Pixels(images()).augmented([torch.arange(N)], Augment("shift", 4, True), 0, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_keys_differ_by_every_part():
    found = {key(*parts) for parts in [("a", 1, 23), ("a", 12, 3), ("b", 1, 23), ("a", 1, 24)]}
    assert len(found) == 4
    assert all(0 <= k < 2**63 for k in found)
    assert torch.equal(torch.rand(3, generator=generator(1)), torch.rand(3, generator=generator(1)))


def test_normalising_is_that_of_images_scaled_to_one():
    x, mean, std = images(), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    plain = (x.double() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(normalised(x, mean, std), plain.float(), rtol=1e-5, atol=1e-5)


def test_padding_is_black_before_normalising():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    augment = Augment("shift", 4)
    shifted = seen(images()[:1], torch.zeros(1, dtype=torch.long), view_pixels(augment, S))
    corner = Normalisation.of(mean, std)(shifted)
    expected = -torch.tensor(mean) / torch.tensor(std)
    torch.testing.assert_close(corner[0, :, 0, 0], expected)


def test_images_in_memory_have_no_crop_of_random_area():
    with pytest.raises(ValueError, match="need"):
        list(Pixels(images()).augmented([torch.arange(2)], Augment("resized"), 0, 0))


def test_what_is_drawn_apart_follows_its_seed_and_leaves_the_random_state() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with drawn_apart(CPU, seed):
            drawn.append(torch.rand(4))
        torch.rand(1)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    torch.set_rng_state(before)
    with drawn_apart(CPU, 1):
        torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
