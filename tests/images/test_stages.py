"""A published teacher, and what is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gnnkd.data.image_task import ImageTask
from gnnkd.errors import UserError
from gnnkd.images.config import ImageConfig
from gnnkd.images.networks import built
from gnnkd.images.resolve import resolve
from gnnkd.images.stages import check, train_student, train_teacher
from gnnkd.train.progress import Silent

Toy = Callable[..., ImageTask]
FAST = {"epochs": 2, "batch_size": 32}


def _config(method: str = "kd", teacher: str = "cnn_small", student: str = "cnn_small", **more: Any) -> ImageConfig:
    levels = ({"train": FAST} if "levels" not in more else more.pop("levels"),)
    return resolve("digits", teacher_model=teacher, student_model=student, method=method, levels=levels, **more)


def _published(folder: Path, classes: int = 3) -> str:
    torch.manual_seed(1)
    file = folder / "ckpt.pth"
    torch.save({"epoch": 240, "model": built("cnn_small", 8, 1, classes, {}).state_dict()}, file)
    return str(file)


def test_a_published_teacher_is_read_and_not_trained(toy: Toy, tmp_path: Path) -> None:
    config = _config(teacher_weights=_published(tmp_path))
    taught = train_teacher(toy(), config, Silent())
    assert taught.reached is None
    torch.manual_seed(1)
    for name, t in built("cnn_small", 8, 1, 3, {}).state_dict().items():
        assert torch.equal(t, taught.predictor.network.state_dict()[name])


def test_a_published_teacher_for_other_classes_is_refused_before_a_place_is_claimed(toy: Toy, tmp_path: Path) -> None:
    config = _config(teacher_weights=_published(tmp_path, classes=100))
    with pytest.raises(UserError, match="a head of 100 classes, the data has 3"):
        check(toy(), config, student=False)


def test_a_teacher_stands_still_while_a_student_learns(toy: Toy) -> None:
    task, config = toy(), _config("at")
    teacher = train_teacher(task, config, Silent()).predictor.network
    before = {name: t.clone() for name, t in teacher.state_dict().items()}
    train_student(task, config, teacher, Silent())
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())
    assert not teacher.training


def test_the_random_state_outside_is_put_back(toy: Toy) -> None:
    task, config = toy(), _config("crd")
    before = torch.get_rng_state()
    check(task, config, student=True)
    teacher = train_teacher(task, config, Silent()).predictor.network
    train_student(task, config, teacher, Silent())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_does_not_fit_is_refused_before_a_teacher_is_trained(toy: Toy) -> None:
    task = toy()
    caching = {"train": FAST | {"cache_teacher": True}}
    check(task, _config("kd", levels=caching), student=True)
    with pytest.raises(UserError, match="cache_teacher"):
        check(task, _config("at", levels=caching), student=True)
    check(task, _config("at", levels=caching), student=False)
    with pytest.raises(UserError, match=r"delta"):
        check(task, _config("dot", levels={"train": {"momentum": 0.05}}), student=True)


def test_settings_that_would_do_nothing_are_refused(toy: Toy, tmp_path: Path) -> None:
    caching = {"train": FAST | {"cache_teacher": True}}
    with pytest.raises(UserError, match="supervised asks no teacher"):
        check(toy(), _config("supervised", levels=caching), student=True)
    with pytest.raises(UserError, match="dot asks no teacher"):
        check(toy(), _config("dot", levels=caching | {"method": {"base": "supervised"}}), student=True)
    unseen = toy(val_fraction=0.0)
    for role in ("teacher", "student"):
        patient = _config(levels={role: {"patience": 3}})
        check(toy(), patient, student=True)
        with pytest.raises(UserError, match=f"{role}.patience is 3, and no image validates"):
            check(unseen, patient, student=True)
    check(unseen, patient, student=False)
    check(unseen, _config(levels={"student": {"patience": 3}}, teacher_weights=_published(tmp_path)), student=False)


def test_a_network_of_another_size_is_refused(toy: Toy) -> None:
    config = replace(_config(), student_model="mobilenetv1")
    with pytest.raises(UserError, match="student: network 'mobilenetv1' is laid out for images of more than 64 pixels"):
        check(toy(), config, student=True)


def test_cached_teachers_teach_the_same(toy: Toy) -> None:
    """Up to rounding, for a teacher's batches differ in size."""
    task = toy()
    found = []
    for cached in (False, True):
        config = _config("kd", levels={"train": FAST | {"cache_teacher": cached}})
        teacher = train_teacher(task, config, Silent()).predictor.network
        found.append(train_student(task, config, teacher, Silent()).predictor.network.state_dict())
    for name, t in found[0].items():
        torch.testing.assert_close(found[1][name], t, rtol=1e-3, atol=1e-4)
