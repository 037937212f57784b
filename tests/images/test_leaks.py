"""What may not be read is not read: labels outside training change no bit of any weight, whatever the method.

Both stages run as the command line runs them. A new method is tested here by being there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.data.image_task import ImageTask
from gnnkd.images.config import ImageConfig
from gnnkd.images.resolve import resolve
from gnnkd.images.stages import train_student, train_teacher
from gnnkd.nn.images import ImageNetwork
from gnnkd.train import minibatches
from gnnkd.train.progress import Silent
from gnnkd.types import UNKNOWN, Batch

METHODS = sorted(distillers.image_methods())
EPOCHS = 2
Toy = Callable[..., ImageTask]


def _permuted(task: ImageTask, part: str) -> ImageTask:
    """The same images in the same roles, the labels of one part shuffled among them."""
    mask = getattr(task.split, part)
    order = torch.randperm(int(mask.sum()), generator=torch.Generator().manual_seed(1))
    y = task.y.clone()
    y[mask] = y[mask][order]
    assert not torch.equal(y, task.y)
    changed = replace(task, y=y)
    assert changed.fingerprint == task.fingerprint
    assert changed.content != task.content
    return changed


def _config(method: str, **options: Any) -> ImageConfig:
    small = {"epochs": EPOCHS, "batch_size": 32}
    levels = ({"train": small, "teacher": {"width": 8}, "method": options},)
    return resolve("digits-images", method=method, levels=levels)


def _teacher(task: ImageTask, config: ImageConfig) -> ImageNetwork:
    return train_teacher(task, config, Silent()).predictor.network


def _student(task: ImageTask, config: ImageConfig, teacher: ImageNetwork) -> dict[str, Tensor]:
    return train_student(task, config, teacher, Silent()).predictor.network.state_dict()


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(t, other[name]) for name, t in one.items())


@dataclass
class Steps:
    """What the only optimisation step in the house was shown, and the weights after it, step by step."""

    batches: list[Batch]
    weights: list[dict[str, Tensor]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """A record of every step from here on."""
    record, step = Steps([], []), minibatches.apply

    def apply(model: torch.nn.Module, optimizer: Any, distiller: Any, batch: Batch, *rest: Any) -> Any:
        taken = step(model, optimizer, distiller, batch, *rest)
        record.batches.append(batch)
        record.weights.append({name: t.detach().clone() for name, t in model.state_dict().items()})
        return taken

    monkeypatch.setattr(minibatches, "apply", apply)
    return record


@pytest.mark.parametrize("method", METHODS)
def test_labels_of_test_images_touch_no_weight(toy: Toy, method: str) -> None:
    plain, config = toy(), _config(method)
    shuffled = _permuted(plain, "test")
    teachers = [_teacher(task, config) for task in (plain, shuffled)]
    assert _same(teachers[0].state_dict(), teachers[1].state_dict())
    one, other = (_student(task, config, net) for task, net in zip((plain, shuffled), teachers, strict=True))
    assert _same(one, other)


@pytest.mark.parametrize("method", METHODS)
def test_labels_of_validation_touch_no_weight_of_any_step(toy: Toy, steps: Steps, method: str) -> None:
    """They choose among epochs, and that is all they do."""
    plain, config = toy(), _config(method)
    teacher = _teacher(plain, config)
    steps.weights.clear()
    for task in (plain, _permuted(plain, "val")):
        _student(task, config, teacher)
    half = len(steps.weights) // 2
    assert half == EPOCHS * 3
    assert all(_same(*pair) for pair in zip(steps.weights[:half], steps.weights[half:], strict=True))


def test_labels_of_validation_touch_no_weight_of_any_step_of_a_teacher(toy: Toy, steps: Steps) -> None:
    plain = toy()
    reached = [train_teacher(t, _config("kd"), Silent()).reached for t in (plain, _permuted(plain, "val"))]
    half = len(steps.weights) // 2
    assert all(_same(*pair) for pair in zip(steps.weights[:half], steps.weights[half:], strict=True))
    assert reached[0] is not None
    assert reached[1] is not None
    assert [row["val_acc"] for row in reached[0].history] != [row["val_acc"] for row in reached[1].history]


@pytest.mark.parametrize("method", METHODS)
def test_every_step_sees_training_images_once_an_epoch_and_their_labels_only(
    toy: Toy, steps: Steps, method: str
) -> None:
    task, config = toy(), _config(method)
    _student(task, config, _teacher(task, config))
    train = task.split.train.nonzero().flatten()
    for epoch in range(2 * EPOCHS):
        batches = steps.batches[3 * epoch : 3 * epoch + 3]
        seen = torch.cat([batch.index for batch in batches])
        assert torch.equal(seen.sort().values, train)
        for batch in batches:
            assert bool(batch.labelled.all())
            assert torch.equal(batch.y, task.y[batch.index])
    for batch in task.scan(task.split.test | task.split.val, 16):
        assert bool((batch.y == UNKNOWN).all())


def test_a_method_hears_training_labels_only(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    task, config = toy(), _config("kd")
    heard: list[Tensor] = []
    kind = distillers.methods()["kd"]
    monkeypatch.setattr(kind, "prepare", lambda _, lesson: heard.append(lesson.y))
    _student(task, config, _teacher(task, config))
    assert torch.equal(heard[0], torch.where(task.split.train, task.y, UNKNOWN))


@pytest.mark.parametrize("method", METHODS)
def test_these_tests_would_notice(toy: Toy, method: str) -> None:
    """Labels of training images do change teacher and student."""
    plain, config = toy(), _config(method)
    shuffled = _permuted(plain, "train")
    teachers = [_teacher(task, config) for task in (plain, shuffled)]
    assert not _same(teachers[0].state_dict(), teachers[1].state_dict())
    one, other = (_student(task, config, teachers[0]) for task in (plain, shuffled))
    assert not _same(one, other)


def test_looking_at_the_test_set_after_each_epoch_changes_nothing(toy: Toy) -> None:
    task, config = toy(), _config("kd")
    one, other = (train_teacher(task, c, Silent()) for c in (config, replace(config, best_on_test=True)))
    assert _same(one.predictor.network.state_dict(), other.predictor.network.state_dict())
    assert one.reached is not None
    assert other.reached is not None
    assert one.reached.best_epoch == other.reached.best_epoch
    assert ["test_acc" in row for row in one.reached.history] == [False] * EPOCHS
    assert ["test_acc" in row for row in other.reached.history] == [True] * EPOCHS
