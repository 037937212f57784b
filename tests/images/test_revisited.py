"""What a picture says of a distillation's start and end is what the training had there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd.distillers.gkdfd import Gkdfd, Seen
from gnnkd.errors import UserError
from gnnkd.images import finished, revisited
from gnnkd.main import main
from gnnkd.train import checkpoint, minibatches

METHODS = {"gkdfd": "gkdfd", "dot(gkdfd)": "dot+gkdfd"}


@dataclass
class Record:
    """Weights of the student and of the method's part before the first step, and the batches of each epoch."""

    first: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = field(default_factory=list)
    batches: dict[int, list[Tensor]] = field(default_factory=dict)


def _copied(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in module.state_dict().items()}


@pytest.fixture
def run(
    request: pytest.FixtureRequest, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Record]:
    """A finished student by GK-DFD, or by what the parameter says, and what its training was like."""
    method = getattr(request, "param", "gkdfd")
    record, apply = Record(), minibatches.apply

    def heard(model: Any, optimizer: Any, distiller: Any, batch: Any, *rest: Any) -> Any:
        if distiller.part is not None:
            record.batches.setdefault(rest[-1].epoch, []).append(batch.index)
            if not record.first:
                record.first.append((_copied(model), _copied(distiller.part)))
        return apply(model, optimizer, distiller, batch, *rest)

    monkeypatch.setattr(minibatches, "apply", heard)
    monkeypatch.setattr("gnnkd.images.results.draw", lambda *_, **__: None)
    words = [
        "--dataset",
        str(folder),
        "--out",
        str(tmp_path / "runs"),
        "--method",
        method,
        "--quiet",
        "--device",
        "cpu",
    ]
    networks = ["--teacher", "cnn_small", "--student", "cnn_small"]
    settings = ["--set", "train.epochs=3", "train.batch_size=24", "method.dim=16", "student.lr=0.03"]
    assert main([*words, *networks, *settings]) == 0
    (place,) = tmp_path.glob(f"**/{METHODS[method]}/seed0")
    return place, record


def _views(place: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[revisited.Views, list[Any]]:
    """The views, and with which student's logits, part and step each was made."""
    made: list[Any] = []
    seen = Gkdfd.seen

    def heard(self: Gkdfd, batch: Any, student: Any, teacher: Any, step: Any) -> Seen:
        assert self.part is not None
        made.append((batch, student.logits, _copied(self.part), step))
        return seen(self, batch, student, teacher, step)

    monkeypatch.setattr(Gkdfd, "seen", heard)
    student = finished.read(place)
    teacher, state = finished.teacher_of(student), torch.get_rng_state()
    views = revisited.views(student, teacher, student.task(str(folder), None))
    assert torch.equal(torch.get_rng_state(), state)
    return views, made


@pytest.mark.parametrize("run", METHODS, indirect=True)
def test_start_and_end_are_those_of_the_training(
    run: tuple[Path, Record], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, record = run
    views, ((batch, before, first_part, start), (_, after, last_part, end)) = _views(place, folder, monkeypatch)
    assert (start.epoch, end.epoch, views.epoch) == (0, 2, 2)
    assert any(torch.equal(batch.index, index) for index in record.batches[2][:2])
    network_state, part_state = record.first[0]
    assert all(torch.equal(t, first_part[name]) for name, t in part_state.items())
    network = finished.read(place).predictor.network
    last = place / "last.safetensors"
    ended = finished.read(last if last.exists() else place).predictor.network
    with torch.no_grad():
        torch.testing.assert_close(ended.train()(batch.x).logits, after, rtol=1e-4, atol=1e-5)
        network.load_state_dict(network_state)
        torch.testing.assert_close(network.train()(batch.x).logits, before, rtol=1e-4, atol=1e-5)
    kept, _ = checkpoint.load(place / "method.safetensors")
    assert all(torch.equal(t, last_part[name]) for name, t in kept.items())
    assert not all(torch.equal(t, first_part[name]) for name, t in kept.items()), "it has learnt something"


def test_pixels_are_those_of_the_files(run: tuple[Path, Record], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = run
    views, ((batch, *_), _) = _views(place, folder, monkeypatch)
    task = finished.read(place).task(str(folder), None)
    mask = torch.zeros(task.n_images, dtype=torch.bool)
    mask[batch.index] = True
    (scanned,) = task.scan(mask, 1000)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (task.mean, task.std))
    order = torch.searchsorted(scanned.index, batch.index)
    expected = ((scanned.x[order] * std + mean) * 255).round()
    assert torch.equal(views.pixels.float(), expected)
    assert bool(batch.labelled.all())
    assert torch.equal(views.after.y, batch.y)


def test_another_method_and_a_missing_part_are_said(
    run: tuple[Path, Record], folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place, _ = run
    other = tmp_path / "other"
    shutil.copytree(place, other)
    student = finished.read(place)
    teacher, task = finished.teacher_of(student), student.task(str(folder), None)
    tensors, meta = checkpoint.load(other / "method.safetensors")
    checkpoint.save(other / "method.safetensors", {name: t[:1] for name, t in tensors.items()}, meta)
    with pytest.raises(UserError, match=r"method\.safetensors does not fit the networks and options of its run"):
        revisited.views(finished.read(other), teacher, task)
    with pytest.raises(UserError, match="is not the teacher of"):
        revisited.views(student, student, task)
    (other / "method.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no method\.safetensors; run the student again"):
        revisited.views(finished.read(other), teacher, task)
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"gkdfd"', '"kd"'))
    with pytest.raises(UserError, match=r"is of (kd|dot\(kd\)); this picture is of a student that gkdfd has taught"):
        revisited.views(finished.read(other), teacher, task)
    with pytest.raises(UserError, match="is of no method"):
        revisited.views(teacher, teacher, task)
