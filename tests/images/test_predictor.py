"""A saved image network brought back: pictures in every form give the same logits, and odd ones a clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gnnkd
from gnnkd.data.image_task import ImageTask
from gnnkd.errors import UserError
from gnnkd.images import finished, pictures
from gnnkd.images.networks import built
from gnnkd.images.predictor import ImagePredictor
from gnnkd.nn import mlp
from gnnkd.train import checkpoint, minibatches
from gnnkd.train.settings import ImageTrainSettings


def _predictor(channels: int = 3, size: int = 8, **options: Any) -> ImagePredictor:
    torch.manual_seed(0)
    network = built("cnn_small", size, channels, 3, options).eval()
    values = tuple(0.3 + 0.1 * k for k in range(channels))
    return ImagePredictor(network, "cnn_small", options, ("a", "b", "c"), values, values, size, channels)


def _bytes(channels: int = 3, n: int = 5, size: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(1)).byte()


def test_a_saved_network_comes_back(tmp_path: Path) -> None:
    one = _predictor(width=12)
    one.save(tmp_path)
    other = gnnkd.load(tmp_path)
    assert isinstance(other, ImagePredictor)
    assert torch.equal(other.logits(_bytes()), one.logits(_bytes()))
    assert (other.classes, other.mean, other.size, other.options) == (one.classes, one.mean, 8, {"width": 12})
    assert other.n_parameters == sum(p.numel() for p in one.network.parameters())
    assert not other.network.training


def test_every_form_of_a_picture_gives_the_same_logits(tmp_path: Path) -> None:
    one, x = _predictor(), _bytes()
    expected = one.logits(x)
    rows = x.permute(0, 2, 3, 1).numpy()
    images = [Image.fromarray(row) for row in rows]
    files = [tmp_path / f"{k}.png" for k in range(len(images))]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    for form in (x.numpy(), rows, torch.from_numpy(rows), images, files, [str(file) for file in files], tuple(images)):
        assert torch.equal(one.logits(form), expected)
    assert torch.equal(one.predict_proba(x), expected.softmax(1))
    assert one.predict(x).tolist() == ["abc"[k] for k in expected.argmax(1)]


def test_the_logits_are_those_that_training_sees(toy: Callable[..., ImageTask]) -> None:
    task = toy()
    torch.manual_seed(0)
    network = built("cnn_small", 8, 1, 3, {})
    one = ImagePredictor(network, "cnn_small", {}, task.classes, task.mean, task.std, 8, 1)
    everything = torch.ones(task.n_images, dtype=torch.bool)
    seen = minibatches.logits(network, network, task, everything, ImageTrainSettings(batch_size=64))
    pixels = torch.cat([loaded.pixels for loaded in task.store.plain([torch.arange(task.n_images)])])
    torch.testing.assert_close(one.logits(pixels), seen)


def test_many_pictures_are_asked_about_in_parts() -> None:
    one, x = _predictor(), _bytes(n=600)
    torch.testing.assert_close(one.logits(x), torch.cat([one.logits(x[:300]), one.logits(x[300:])]))


def test_grey_pictures() -> None:
    one, x = _predictor(channels=1), _bytes(channels=1)
    expected = one.logits(x)
    assert torch.equal(one.logits(x[:, 0]), expected)
    assert torch.equal(one.logits(x.permute(0, 2, 3, 1)), expected)
    assert torch.equal(one.logits([Image.fromarray(image[0].numpy()) for image in x]), expected)
    colours = [Image.fromarray(image[0].numpy()).convert("RGB") for image in x]
    assert torch.equal(one.logits(colours), expected)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_pictures_of_any_mode(mode: str) -> None:
    image = Image.fromarray(np.full((8, 8), 4660, dtype=np.uint16)) if mode == "I;16" else Image.new(mode, (8, 8))
    assert _predictor().logits([image]).shape == (1, 3)


@pytest.mark.parametrize("shape", [(16, 16), (20, 8), (8, 30), (4, 5), (100, 3)])
def test_pictures_of_another_size_are_brought_to_the_networks(shape: tuple[int, int]) -> None:
    x = pictures.pixels([Image.new("RGB", shape, (10, 20, 30))], 8, 3)
    assert x.shape == (1, 3, 8, 8)
    assert x[0].flatten(1).unique(dim=1).tolist() == [[10], [20], [30]]


def test_the_middle_is_kept() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    assert bool((pictures.pixels([Image.fromarray(wide)], 8, 3) == 200).all())


def test_large_pictures_are_cut_as_in_evaluations() -> None:
    from gnnkd.data import picture

    image = Image.fromarray(_bytes(size=150)[0].permute(1, 2, 0).numpy())
    assert torch.equal(pictures.pixels([image], 96, 3)[0], picture.to_tensor(picture.centred(image, 96)))


WRONG = [
    (torch.zeros(2, 3, 8, 8), "of type float32; they must be bytes"),
    (np.zeros((2, 3, 8, 8)), "of type float64"),
    (torch.zeros(2, 3, 9, 8, dtype=torch.uint8), r"\[2, 3, 9, 8\]; this network reads \[N, 3, 8, 8\]"),
    (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"\[2, 1, 8, 8\]"),
    (torch.zeros(3, 8, 8, dtype=torch.uint8), r"\[3, 8, 8\]"),
    (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), r"\[0, 3, 8, 8\]"),
    ([], "empty list"),
    (Image.new("RGB", (8, 8)), "a single picture"),
    ("picture.png", "a single picture"),
    (["nowhere.png"], "nowhere.png"),
    ([3], "hold a int"),
    ([Image.new("F", (8, 8))], "an image has pixels of 32 bits"),
]


@pytest.mark.parametrize(("images", "said"), WRONG)
def test_odd_pictures_are_refused(images: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as mistake:
        _predictor().logits(images)
    assert "\n" not in str(mistake.value)


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_text("no")
    with pytest.raises(UserError, match=r"a\.png"):
        _predictor().logits([file])


def test_a_file_that_says_something_else(tmp_path: Path) -> None:
    one = _predictor()
    one.save(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors, meta = checkpoint.load(file)
    for wrong in (
        {"options": {"width": 12}},
        {"options": {"widht": 12}},
        {"model": "resnet"},
        {"size": "a"},
        {"classes": 3},
        {"mean": [0.1]},
        {"size": 0},
    ):
        checkpoint.save(file, tensors, meta | wrong)
        with pytest.raises(UserError):
            gnnkd.load(tmp_path)
    checkpoint.save(file, tensors, meta | {"format": 0})
    with pytest.raises(UserError, match="was not written by this version"):
        gnnkd.load(tmp_path)


@pytest.mark.parametrize(
    "meta", [{"method": "gkdfd", "base": None}, {"method": "dot", "base": "gkdfd"}], ids=lambda meta: meta["method"]
)
def test_the_part_of_a_method_is_no_network(tmp_path: Path, meta: dict[str, str | None]) -> None:
    file = tmp_path / "method.safetensors"
    checkpoint.save(file, {"a": torch.zeros(2)}, meta)
    for read in (gnnkd.load, finished.read):
        with pytest.raises(UserError, match=r"the part of gkdfd .* no network; give the folder") as found:
            read(file)
        assert str(found.value).endswith(str(tmp_path))


def test_an_image_network_needs_no_module_of_the_users(tmp_path: Path) -> None:
    _predictor().save(tmp_path)
    with pytest.raises(UserError, match="leave network= out"):
        gnnkd.load(tmp_path, network=mlp(3, 2))
