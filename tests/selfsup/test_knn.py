"""Neighbours: equal to scikit-learn's, and of the training rows alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gnnkd.data.image_task import ImageTask
from gnnkd.nn.images.cnn import cnn_small
from gnnkd.selfsup.knn import Neighbours, votes
from gnnkd.train.settings import ImageTrainSettings


@pytest.mark.parametrize("k", [1, 20, 500])
def test_votes_are_those_of_scikit_learn(k: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    draw = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(300, 7, generator=draw), torch.randn(90, 7, generator=draw)
    y = torch.randint(0, 4, (300,), generator=draw)
    theirs = KNeighborsClassifier(n_neighbors=min(k, 300), algorithm="brute").fit(bank.numpy(), y.numpy())
    assert votes(queries, bank, y, 4, k).tolist() == theirs.predict(queries.numpy()).tolist()


def test_votes_far_from_the_origin_keep_their_digits() -> None:
    draw = torch.Generator().manual_seed(0)
    bank, queries = 100 + 0.01 * torch.randn(600, 32, generator=draw), 100 + 0.01 * torch.randn(90, 32, generator=draw)
    y = torch.randint(0, 4, (600,), generator=draw)
    assert votes(queries, bank, y, 4).tolist() == votes(queries.double(), bank.double(), y, 4).tolist()


def test_of_equal_votes_the_first_class_wins() -> None:
    bank = torch.tensor([[0.0], [0.1], [0.2], [0.3]])
    assert votes(torch.zeros(1, 1), bank, torch.tensor([2, 1, 1, 2]), 3, k=4).tolist() == [1]


def test_the_neighbours_are_training_rows_and_their_labels_alone(toy: Callable[..., ImageTask]) -> None:
    """Whatever the other rows' labels are, a row's neighbours say the same; only its own label is compared."""
    torch.manual_seed(0)
    network, task = cnn_small(1, 3), toy()

    def hits(task: ImageTask) -> float:
        judge = Neighbours(task, task.y, 3, ImageTrainSettings())
        return judge.accuracy(network, task.split.val)

    found = hits(task)
    others = torch.where(task.split.test, (task.y + 1) % 3, task.y)
    assert hits(replace(task, y=others)) == found
    assert 0.5 < found <= 1
    wrong = torch.where(task.split.val, (task.y + 1) % 3, task.y)
    assert hits(replace(task, y=wrong)) <= 1 - found


def test_asking_changes_nothing(toy: Callable[..., ImageTask]) -> None:
    network, task = cnn_small(1, 3), toy()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    Neighbours(task, task.y, 3, ImageTrainSettings()).accuracy(network.train(), task.split.test)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
