"""Tiny ImageNet: its lists, its grey images, and what is wrong with a broken folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gnnkd.data import images
from gnnkd.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"
IDS = ("n02", "n01", "n03")


def save(path: Path, side: int = 64, grey: bool = False, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert("L" if grey else "RGB").save(path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three classes with 4 training images and 2 that test each; the first of each class is grey."""
    folder = tmp_path / "tiny-imagenet-200"
    lines = []
    for c, wnid in enumerate(IDS):
        for i in range(4):
            save(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", grey=not i, seed=10 * c + i)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("x")
    for i in range(6):
        save(folder / "val" / "images" / f"val_{i}.JPEG", seed=100 + i)
        lines.append(f"val_{i}.JPEG\t{IDS[i % 3]}\t0\t1\t2\t3")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (folder / "wnids.txt").write_text("\n".join(IDS) + "\n")
    (folder / "words.txt").write_text("n01\tcrane\nn02\tcrane\nn99\tother\n")
    return folder


def test_it_is_read_by_its_lists(tiny):
    data = images.load("tiny-imagenet", root=tiny.parent)
    assert data.store.data.shape == (18, 3, 64, 64)
    assert data.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0, 1, 2] * 2
    assert data.test.nonzero().flatten().tolist() == list(range(12, 18))
    assert data.classes == ("crane (n02)", "crane (n01)", "n03")
    assert data.notes == ("3 of 18 images were grey",)
    expected = np.asarray(Image.open(tiny / "train" / "n01" / "images" / "n01_2.JPEG"))
    assert np.array_equal(data.store.data[6].permute(1, 2, 0).numpy(), expected)
    grey = data.store.data[4]
    assert torch.equal(grey[0], grey[1])
    t = images.task(data, seed=0, val_fraction=0.25)
    assert (t.protocol, t.split.sizes, t.size, t.augment.views) == ("public", (9, 3, 6), 64, 162)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "wnids.txt").unlink(), "wnids.txt cannot be read"),
        (lambda f: (f / "wnids.txt").write_text("n01\nn01\n"), "wnids.txt lists 2 classes, 1 different"),
        (
            lambda f: (f / "wnids.txt").write_text("n01\nn77\n"),
            "n77/images has no images; wnids.txt lists the class n77",
        ),
        (lambda f: (f / "val" / "val_annotations.txt").unlink(), "val_annotations.txt cannot be read"),
        (lambda f: (f / "val" / "val_annotations.txt").write_text("\n"), "val_annotations.txt lists no image"),
        (lambda f: (f / "val" / "val_annotations.txt").write_text("a.JPEG\tn77\n"), "line 1 is 'a.JPEG n77'"),
        (lambda f: (f / "val" / "val_annotations.txt").write_text("../x.JPEG\tn01\n"), "line 1 names '../x.JPEG'"),
        (
            lambda f: (f / "val" / "images" / "val_3.JPEG").unlink(),
            "val_3.JPEG cannot be read as an image .No such file",
        ),
        (lambda f: (f / "val" / "images" / "val_3.JPEG").write_bytes(b"x"), "val_3.JPEG cannot be read as an image"),
        (lambda f: save(f / "train/n01/images/n01_9.JPEG", 32), "n01_9.JPEG has 32 x 32 pixels; it must have 64 x 64"),
    ],
)
def test_a_broken_folder(tiny, spoil, said):
    spoil(tiny)
    with pytest.raises(UserError, match=said) as error:
        images.load("tiny_imagenet", root=tiny.parent)
    assert "\n" not in str(error.value)


def test_without_words_the_ids_are_the_names(tiny):
    (tiny / "words.txt").unlink()
    assert images.load("tiny-imagenet", root=tiny.parent).classes == IDS


def test_where_it_is_to_be(tmp_path):
    with pytest.raises(UserError, match=r"'tiny-imagenet' is not in .*tiny-imagenet-200; unpack .*--data_root"):
        images.load("tiny-imagenet", root=tmp_path)


@pytest.mark.skipif(not (REAL / "tiny-imagenet-200").is_dir(), reason="the real Tiny ImageNet is not here")
def test_the_real_one():
    data = images.load("tiny-imagenet", root=REAL)
    assert torch.bincount(data.y[data.test]).unique().numel() == 1
    assert data.classes[0] == "goldfish, Carassius auratus"
    assert any("images were grey" in note for note in data.notes)
