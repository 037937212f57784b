"""Folders of class folders: layouts, modes of images, worker processes, and what is wrong with a broken one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gnnkd.data import images, picture
from gnnkd.data.augment import Augment
from gnnkd.data.files import Files, _Reader
from gnnkd.data.image_task import IMAGENET, task
from gnnkd.data.store import Pixels
from gnnkd.errors import UserError


def save(path: Path, width: int = 40, height: int = 30, mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def photographs(root: Path, per_class: int = 10, prefix: str = "", classes: str = "ab") -> Path:
    """Images of sizes from 30 to 60 pixels a side."""
    rng = random.Random(prefix)
    for label in classes:
        for i in range(per_class):
            save(
                root / prefix / label / f"{i}.png", rng.randint(30, 60), rng.randint(30, 60), seed=rng.randint(0, 99999)
            )
    return root


def small(root: Path, side: int = 12) -> Path:
    for label in "ab":
        for i in range(10):
            save(root / label / f"{i}.png", side, side, seed=i)
    return root


def test_photographs_stay_files_and_a_fifth_tests(tmp_path):
    data = images.load(photographs(tmp_path), size=24, workers=0)
    t = images.task(data, seed=0)
    assert isinstance(t.store, Files)
    assert (t.name, t.protocol, t.split.sizes, t.classes) == (tmp_path.name, "random", (14, 2, 4), ("a", "b"))
    assert (t.size, t.in_channels, t.mean, t.std) == (24, 3, *IMAGENET)
    assert t.augment == Augment("resized", flip=True)
    batches = list(t.epoch(0, 6))
    assert [b.x.shape for b in batches] == [(6, 3, 24, 24), (6, 3, 24, 24), (2, 3, 24, 24)]
    assert batches[0].view is None
    assert torch.equal(torch.cat([b.y for b in batches]), t.y[torch.cat([b.index for b in batches])])
    assert images.load(tmp_path).store.size == 224


@pytest.mark.parametrize("tests", ["val", "test"])
def test_a_given_split(tmp_path, tests):
    photographs(tmp_path, 10, "train", "abc")
    photographs(tmp_path, 3, tests, "ab")
    data = images.load(str(tmp_path), size=24, workers=0)
    t = images.task(data, seed=0)
    assert (t.protocol, t.split.sizes) == ("given", (27, 3, 6))
    assert data.notes == ("1 of 3 classes have no test image",)
    assert torch.equal(t.split.test.nonzero().flatten(), torch.arange(30, 36))
    assert [str(data.store.path(row).relative_to(tmp_path)) for row in (0, 35)] == ["train/a/0.png", f"{tests}/b/2.png"]


def test_a_folder_that_says_who_validates(tmp_path):
    for prefix, n in (("train", 5), ("val", 3), ("test", 2)):
        photographs(tmp_path, n, prefix)
    t = images.task(images.load(tmp_path, workers=0), seed=0)
    assert (t.protocol, t.split.sizes) == ("given", (10, 6, 4))
    assert torch.equal(t.y[t.split.val], torch.tensor([0, 0, 0, 1, 1, 1]))


def test_classes_may_be_called_train_and_test(tmp_path):
    data = images.load(photographs(tmp_path, 4, classes=["train", "bus"]), workers=0)
    assert (data.protocol, data.classes) == ("random", ("bus", "train"))


def test_small_images_of_one_size_are_kept_in_memory(tmp_path):
    data = images.load(small(tmp_path))
    assert isinstance(data.store, Pixels)
    assert data.notes == ("all images have 12 x 12 pixels and are kept in memory",)
    expected = np.asarray(Image.open(tmp_path / "b" / "3.png"))
    assert np.array_equal(data.store.data[13].permute(1, 2, 0).numpy(), expected)
    t = images.task(data, seed=0)
    assert (t.augment.kind, t.augment.flip, t.size) == ("shift", True, 12)
    assert t.mean != IMAGENET[0]


@pytest.mark.parametrize(("width", "height"), [(12, 13), (13, 13), (13, 12), (200, 200)])
@pytest.mark.parametrize("where", ["a/0.png", "a/5.png", "b/9.png"])
def test_one_image_of_another_size_makes_them_files(tmp_path, width, height, where):
    save(small(tmp_path) / where, width, height)
    assert isinstance(images.load(tmp_path).store, Files)


def test_the_size_asked_for_beats_that_of_small_images(tmp_path):
    small(tmp_path)
    assert isinstance(images.load(tmp_path, size=12).store, Pixels)
    data = images.load(tmp_path, size=16, workers=0)
    assert isinstance(data.store, Files)
    assert next(images.task(data, seed=0).epoch(0, 4)).x.shape == (4, 3, 16, 16)


@pytest.mark.parametrize("augment", ["auto", "crop", "none"])
def test_the_number_of_workers_changes_nothing_and_leaves_no_process(tmp_path, augment):
    data = images.load(photographs(tmp_path), size=24, workers=0)
    before = {p.pid for p in multiprocessing.active_children()}
    found = []
    for workers in (0, 1, 3):
        t = task(replace(data, store=replace(data.store, workers=workers)), seed=1, augment=augment)
        state = torch.get_rng_state()
        found.append((list(t.epoch(2, 6)), list(t.scan(t.split.test, 3))))
        assert torch.equal(torch.get_rng_state(), state)
    for epoch, scan in found[1:]:
        for a, b in zip(epoch + scan, found[0][0] + found[0][1], strict=True):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.index, b.index)
    assert {p.pid for p in multiprocessing.active_children()} == before


def test_an_epoch_broken_off_leaves_no_process(tmp_path):
    data = images.load(photographs(tmp_path), size=24, workers=2)
    before = {p.pid for p in multiprocessing.active_children()}
    batches = images.task(data, seed=0).epoch(0, 2)
    next(batches)
    assert {p.pid for p in multiprocessing.active_children()} > before
    batches.close()
    assert {p.pid for p in multiprocessing.active_children()} == before


def test_the_draw_of_an_image_depends_on_seed_epoch_and_row_only(tmp_path):
    data = images.load(photographs(tmp_path), size=24, workers=0)

    def seen(seed: int, epoch: int, size: int) -> torch.Tensor:
        found = torch.zeros(20, 3, 24, 24)
        t = replace(images.task(data, seed=0), seed=seed)
        for b in t.epoch(epoch, size):
            found[b.index] = b.x
        return found

    once = seen(0, 1, 4)
    assert torch.equal(seen(0, 1, 9), once)
    assert not torch.equal(seen(0, 2, 4), once)
    assert not torch.equal(seen(1, 1, 4), once)


def test_ranks_share_a_batch(tmp_path):
    t = images.task(images.load(photographs(tmp_path), size=24, workers=0), seed=0)
    one = {int(i): x for b in t.epoch(0, 7) for i, x in zip(b.index, b.x, strict=True)}
    two = {int(i): x for r in (0, 1) for b in t.epoch(0, 7, rank=r, world=2) for i, x in zip(b.index, b.x, strict=True)}
    assert sorted(one) == sorted(two)
    assert all(torch.equal(one[i], two[i]) for i in one)


def test_evaluation_is_the_centre_of_the_resized_image():
    """A ramp from left to right keeps its middle, and its slope is that of 256/224 times the size."""
    ramp = np.broadcast_to(np.linspace(0, 255, 512)[None, :, None], (256, 512, 3)).astype(np.uint8)
    out = np.asarray(picture.centred(Image.fromarray(ramp), 112)).astype(float)
    assert out.shape == (112, 112, 3)
    assert abs(out.mean() - 127.5) < 1
    slope = np.polyfit(np.arange(112), out[50, :, 0], 1)[0]
    assert abs(slope - 255 / 256) < 0.02
    assert picture.centred(Image.new("RGB", (3, 500)), 224).size == (224, 224)
    small = np.asarray(picture.centred(Image.fromarray(ramp), 64)).astype(float)
    assert abs(np.polyfit(np.arange(64), small[20, :, 0], 1)[0] - 255 / 128) < 0.05, "a small input shows it whole"


def test_crops_cover_the_published_areas_and_shapes():
    draw = random.Random(0)
    boxes = np.array([picture._random_box(450, 450, draw) for _ in range(3000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, shape = width * height / 450**2, width / height
    assert boxes.min() >= 0
    assert boxes[:, 2:].max() == 450
    assert 0.075 < area.min() < 0.1
    assert 0.9 < area.max() <= 1
    assert 0.74 < shape.min() < 0.76
    assert 1.32 < shape.max() < 1.35
    assert abs(np.log(shape).mean()) < 0.02
    assert picture._random_box(1000, 10, draw) == (493, 0, 506, 10), "no crop of an allowed shape covers enough of it"


def test_half_of_the_images_are_mirrored(tmp_path):
    left = np.zeros((40, 40, 3), np.uint8)
    left[:, :20] = 255
    for i in range(100):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(left).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    data = images.load(tmp_path, size=8, workers=0)

    def mirrored(augment: str) -> int:
        t = replace(task(data, seed=0, augment=augment), seed=3)
        x = torch.cat([b.x for e in range(4) for b in t.epoch(e, 30)])
        return int((x[..., :4].mean((1, 2, 3)) < x[..., 4:].mean((1, 2, 3))).sum())

    total = 4 * int(task(data, seed=0).split.train.sum())
    assert mirrored("crop") == 0
    assert abs(mirrored("crop_flip") - total * 0.45) < total * 0.1, "some crops show one side only"


def test_images_of_mixed_modes_become_rgb(tmp_path):
    grey = np.arange(144, dtype=np.uint8).reshape(12, 12)
    rgb = np.stack([grey, 255 - grey, grey // 2], -1)
    alpha = np.where(grey < 72, 0, 255).astype(np.uint8)
    sixteen = grey.astype(np.uint16) * 256 + 7
    for name, image in {
        "a/l.png": Image.fromarray(grey),
        "a/one.png": Image.fromarray(grey).convert("1"),
        "a/sixteen.png": Image.fromarray(sixteen),
        "a/p.png": Image.fromarray(rgb).quantize(144),
        "b/rgb.png": Image.fromarray(rgb),
        "b/rgba.png": Image.fromarray(np.dstack([rgb, alpha])),
        "b/la.png": Image.fromarray(grey).convert("LA"),
        "b/cmyk.tif": Image.fromarray(rgb).convert("CMYK"),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    data = images.load(tmp_path)
    found = {str(n): data.store.data[i].permute(1, 2, 0).numpy() for i, n in enumerate(sorted_names(tmp_path))}
    assert np.array_equal(found["a/l.png"], np.dstack([grey] * 3))
    assert np.array_equal(found["a/sixteen.png"], found["a/l.png"])
    assert set(found["a/one.png"].flatten()) == {0, 255}
    assert np.abs(found["a/p.png"].astype(int) - rgb).max() < 40
    assert np.array_equal(found["b/rgb.png"], rgb)
    assert np.array_equal(found["b/rgba.png"], rgb * (alpha > 0)[..., None])
    assert np.array_equal(found["b/la.png"], found["a/l.png"])
    assert np.array_equal(found["b/cmyk.tif"], rgb)
    assert data.notes[1:] == (
        "4 of 8 images were grey",
        "1 of 8 images were of mode CMYK",
        "1 of 8 images were of mode P",
        "1 of 8 images were of mode RGBA",
    )


def sorted_names(root: Path) -> list[Path]:
    return sorted(p.relative_to(root) for p in root.glob("*/*"))


def test_a_palette_with_a_transparent_colour_is_laid_over_black(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png", transparency=1)
    found, mode = picture.rgb(tmp_path / "p.png")
    assert mode == "P"
    assert found.getpixel((0, 0)) == (9, 9, 9)
    assert found.getpixel((1, 1)) == (0, 0, 0)


def test_other_files_and_hidden_ones_are_left_out_and_counted(tmp_path):
    photographs(tmp_path)
    (tmp_path / "a" / "boxes.txt").write_text("x")
    (tmp_path / "a" / "deeper").mkdir()
    save(tmp_path / "a" / "deeper" / "0.png")
    (tmp_path / "a" / "._0.png").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    data = images.load(tmp_path)
    assert data.n_images == 20
    assert data.notes == ("2 entries of class folders are not images by their names and were left out",)


def broken(root: Path, how) -> Path:
    how(photographs(root))
    return root


def move_down(root: Path) -> None:
    (root / "c" / "deeper").mkdir(parents=True)
    save(root / "c" / "deeper" / "0.png")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda r: (r / "c").mkdir(), r"the class folder .*/c has no images; fill it or remove it"),
        (move_down, r"/c has no images \(1 folders are in it; images must lie in the class folder itself\)"),
        (lambda r: [f.unlink() for f in (r / "a").iterdir()] and (r / "a").rmdir(), "has one class, 'b'"),
    ],
)
def test_a_broken_folder(tmp_path, how, said):
    with pytest.raises(UserError, match=said) as error:
        images.load(broken(tmp_path, how))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["a/0.png", "b/7.png"])
def test_a_small_image_that_cannot_be_read_is_named(tmp_path, where):
    (small(tmp_path) / where).write_bytes(b"GIF89a")
    with pytest.raises(UserError, match=f"{where} cannot be read as an image"):
        images.load(tmp_path)


def test_folders_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no folders; it must have one for each class"):
        images.load(tmp_path / "empty")
    photographs(tmp_path / "x", 3, "train")
    save(tmp_path / "x" / "val" / "0.png")
    with pytest.raises(UserError, match="val has no folders"):
        images.load(tmp_path / "x")
    photographs(tmp_path / "x", 3, "val", "ad")
    with pytest.raises(UserError, match=r"val/d is of a class that .*train does not have"):
        images.load(tmp_path / "x")
    photographs(tmp_path / "y", 3, "train")
    with pytest.raises(UserError, match=r"class folder .*train has no images \(2 folders"):
        images.load(tmp_path / "y")
    for option in ({"size": 7}, {"workers": -1}):
        with pytest.raises(UserError, match=r"is -?[17]; it must be"):
            images.load(tmp_path, **option)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_cannot_be_read_is_named_from_any_process(tmp_path, workers):
    data = images.load(photographs(tmp_path), size=24, workers=workers)
    whole = (tmp_path / "b" / "3.png").read_bytes()
    (tmp_path / "b" / "3.png").write_bytes(whole[: len(whole) // 2])
    t = images.task(data, seed=0, val_fraction=0)
    everything = torch.ones(20, dtype=torch.bool)
    with pytest.raises(UserError, match=r"b/3.png cannot be read as an image") as error:
        list(t.scan(everything, 4))
    assert "\n" not in str(error.value)
    (tmp_path / "b" / "3.png").unlink()
    with pytest.raises(UserError, match=r"b/3.png cannot be read as an image \(No such file"):
        list(t.scan(everything, 4))


def test_a_reader_can_be_sent_to_a_process(tmp_path):
    """Where processes do not start as copies of ours, as on macOS, what they read by is pickled."""
    store = images.load(photographs(tmp_path), size=24).store
    reader = _Reader(store, Augment("resized", flip=True), 0, 3)
    assert torch.equal(pickle.loads(pickle.dumps(reader))[7], reader[7])  # our own object


def test_a_worker_that_dies_is_said_in_one_line(tmp_path, monkeypatch):
    data = images.load(photographs(tmp_path), size=24, workers=1)
    monkeypatch.setattr(picture, "rgb", lambda _: os._exit(1))
    with pytest.raises(UserError, match=r"ended early.*--set data\.workers=0"):
        list(images.task(data, seed=0).epoch(0, 4))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_32_bits_have_no_range(tmp_path, kind):
    Image.fromarray(np.zeros((4, 4), kind)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match=r"f\.tif has pixels of 32 bits, of no known range"):
        picture.rgb(tmp_path / "f.tif")


def test_files_have_no_shifts(tmp_path):
    store = images.load(photographs(tmp_path), workers=0).store
    with pytest.raises(ValueError, match="crops of random area"):
        list(store.augmented([torch.arange(2)], Augment("shift", 4), 0, 0))


def test_content_is_of_names_lengths_and_labels_not_of_the_place(tmp_path):
    one, two = (images.task(images.load(photographs(tmp_path / d), workers=0), seed=0) for d in "xy")
    assert one.content == two.content
    assert one.fingerprint == two.fingerprint
    save(tmp_path / "y" / "a" / "0.png", 50, 70)
    again = images.task(images.load(tmp_path / "y", workers=0), seed=0)
    assert again.content != one.content
