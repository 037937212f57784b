"""Every objective learns: neighbours in feature space know more digits after a short training than before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gnnkd.data import images
from gnnkd.selfsup.config import resolve
from gnnkd.selfsup.objectives import objectives
from gnnkd.selfsup.stage import learn
from gnnkd.train.progress import Silent

FEW = 512
"""Digits that train; all others are asked about."""


@pytest.mark.parametrize("method", objectives())
def test_neighbours_know_more_digits_than_before(method: str) -> None:
    task = images.task(images.load("digits"), seed=0)
    train = task.split.train & (task.split.train.cumsum(0) <= FEW)
    rest = ~train
    task = replace(task, split=replace(task.split, train=train, val=rest, test=rest))
    settings = {"epochs": 8, "batch_size": 64, "warmup_epochs": 1}
    found = learn(task, resolve("digits", method=method, models=["cnn_small"], levels=[{"train": settings}]), Silent())
    assert found.reached.history[-1]["val_acc"] > found.untrained[0]["val"] + 0.02
    features = found.encoders[0].eval()(next(task.scan(rest, 256)).x).pooled
    assert features is not None
    assert torch.linalg.matrix_rank(features - features.mean(0)) > 4
