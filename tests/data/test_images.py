"""Names of image sets, and the digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gnnkd.data import graphs, images
from gnnkd.errors import UserError


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    found, data = load_digits(), images.load("digits-images")
    assert data.store.data.shape == (1797, 1, 8, 8)
    assert np.array_equal(data.store.data[:, 0].numpy(), found.images * 15)
    assert np.array_equal(data.y.numpy(), found.target)
    assert torch.equal(images.load("Digits").store.data, data.store.data)


def test_the_task_of_digits():
    t = images.task(images.load("digits"), seed=0)
    assert (t.protocol, t.split.sizes, t.size, t.in_channels) == ("random", (1294, 144, 359), 8, 1)
    assert (t.augment.padding, t.augment.flip, t.augment.views) == (1, False, 9)
    x = torch.cat([b.x for b in t.scan(t.split.train, 500)])
    assert abs(float(x.mean())) < 1e-4
    assert abs(float(x.std()) - 1) < 1e-3


def test_names():
    assert images.names() == sorted(images.NAMES) == ["cifar10", "cifar100", "digits-images", "tiny-imagenet"]
    assert not set(images.NAMES) & set(graphs.names())


def test_what_is_of_images(tmp_path, monkeypatch):
    assert all(
        images.is_images(word) for word in ("CIFAR10", "tiny_imagenet", "digits-images", tmp_path, str(tmp_path))
    )
    assert not any(images.is_images(word) for word in ("cora", "digits", "digits-graph", "cifar", str(tmp_path / "no")))
    (tmp_path / "cora").mkdir()
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not images.is_images("cora")
    assert images.is_images("photos")
    assert not images.is_images("x" * 5000)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: images.load("cifar-100"),
            "unknown set of images 'cifar-100'.*did you mean 'cifar100'.*path to a folder",
        ),
        (lambda: images.load("x" * 5000), "unknown set of images"),
        (lambda: images.load(Path("/no/such/folder")), "/no/such/folder is no folder"),
        (lambda: images.load("digits", size=32), "size is 32, but 'digits' has small images, kept in memory"),
        (lambda: images.load("digits", workers=2), "workers is 2, but 'digits'"),
    ],
)
def test_mistakes(call, said):
    with pytest.raises(UserError, match=said):
        call()
