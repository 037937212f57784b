"""What both stages on images leave behind: the files of the contract, their content, and a second command on them."""

from __future__ import annotations

import json
import math
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gnnkd
from gnnkd import distillers
from gnnkd.data import images
from gnnkd.data.image_task import ImageTask, task
from gnnkd.main import main
from gnnkd.train import checkpoint, minibatches
from gnnkd.train.fit import Fit

EPOCHS = 4
NETWORKS = ["--teacher", "cnn_small", "--student", "cnn_small"]
SETTINGS = ["--quiet", "--device", "cpu", "--set", f"train.epochs={EPOCHS}", "train.batch_size=32", "teacher.width=10"]
TEACHER, STUDENT = "toys/random-tran/cnn_small/teacher/seed0", "toys/random-tran/cnn_small/cnn_small/crd/seed0"
COMMON = {"model.safetensors", "config.json", "result.json", "metrics.jsonl", "curves.png"}
FIELDS: dict[str, tuple[type, ...]] = {
    "dataset": (str,),
    "protocol": (str,),
    "setting": (str,),
    "teacher_model": (str,),
    "student_model": (str, type(None)),
    "method": (str,),
    "base": (str, type(None)),
    "seed": (int,),
    "test_acc": (float,),
    "test_acc_last": (float,),
    "test_acc_best_on_test": (float,),
    "val_acc": (float,),
    "best_epoch": (int,),
    "teacher_test_acc": (float,),
    "teacher_test_acc_last": (float,),
    "epochs": (int,),
    "seconds": (float,),
    "images_per_second": (float,),
    "n_parameters": (int,),
    "config": (dict,),
    "versions": (dict,),
    "commit": (str, type(None)),
}


def _command(place: Path, *more: str) -> list[str]:
    fixed = ["--dataset", str(place / "toys"), "--out", str(place / "runs"), "--method", "crd", "--best_on_test"]
    return [*fixed, *NETWORKS, *SETTINGS, *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and both stages of CRD (which keeps a memory) run on it."""
    from PIL import Image

    place = tmp_path_factory.mktemp("finished-runs")
    noise = torch.randint(0, 200, (120, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for row, image in enumerate(noise):
        image[2 * (row % 3) + 1] += 55
        file = place / "toys" / "abc"[row % 3] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(file)
    assert main(_command(place)) == 0
    return place


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> tuple[Path, Callable[..., int]]:
    """A copy of it to write into: its folder of runs, and the command on it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs", lambda *more: main(_command(tmp_path, *more))


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _task(place: Path) -> ImageTask:
    return task(images.load(place / "toys"), seed=0)


def test_exactly_the_files_of_the_contract_are_there(finished: Path) -> None:
    """No checkpoint of a finished run, no half-written file, and the last weights only where they are not the best."""
    runs = finished / "runs"
    expected = set()
    for place in (TEACHER, STUDENT):
        last = _json(runs / place / "result.json")["best_epoch"] != EPOCHS - 1
        expected |= {f"{place}/{name}" for name in COMMON | ({"last.safetensors"} if last else set())}
        expected |= {str(Path(place).parent / "summary.json")}
    assert {f.relative_to(runs).as_posix() for f in runs.rglob("*") if f.is_file()} == expected


@pytest.mark.parametrize("place", [TEACHER, STUDENT])
def test_the_result_has_the_listed_fields(finished: Path, place: str) -> None:
    result = _json(finished / "runs" / place / "result.json")
    for name, kinds in FIELDS.items():
        assert type(result[name]) in kinds, name
    assert all(0 <= value <= 1 for name, value in result.items() if "_acc" in name)
    teacher = place == TEACHER
    found = [result[name] for name in ("dataset", "protocol", "setting", "teacher_model", "seed", "epochs")]
    assert found == ["toys", "random", "tran", "cnn_small", 0, EPOCHS]
    named = (result["method"], result["student_model"], result["base"])
    assert named == (("teacher", None, None) if teacher else ("crd", "cnn_small", None))
    assert result["config"] == _json(finished / "runs" / place / "config.json")
    rows = int(_task(finished).split.train.sum()) * EPOCHS
    assert result["images_per_second"] == pytest.approx(rows / result["seconds"], rel=0.02)


@pytest.mark.parametrize("place", [TEACHER, STUDENT])
def test_scores_are_those_of_the_saved_networks(finished: Path, place: str) -> None:
    """Counted by hand, from the files, for the best weights and the last ones."""
    data, folder = _task(finished), finished / "runs" / place
    result = _json(folder / "result.json")
    network = gnnkd.load(folder)
    files = sorted((finished / "toys").rglob("*.png"), key=lambda f: (f.parent.name, f.name))
    labels = [f.parent.name for f in files]
    assert labels == [data.classes[k] for k in data.y]
    kept = [("test", "test_acc", network), ("val", "val_acc", network)]
    if (folder / "last.safetensors").exists():
        kept.append(("test", "test_acc_last", gnnkd.load(folder / "last.safetensors")))
    for part, name, one in kept:
        rows = getattr(data.split, part).nonzero().flatten().tolist()
        found = one.predict([files[row] for row in rows])
        hits = sum(said == labels[row] for said, row in zip(found, rows, strict=True))
        assert math.isclose(result[name], hits / len(rows)), name
    assert result["n_parameters"] == sum(p.numel() for p in network.network.parameters())


@pytest.mark.parametrize("place", [TEACHER, STUDENT])
def test_metrics_have_a_line_an_epoch_and_the_kept_one_is_the_first_best(finished: Path, place: str) -> None:
    lines = (finished / "runs" / place / "metrics.jsonl").read_text().splitlines()
    rows, result = [json.loads(line) for line in lines], _json(finished / "runs" / place / "result.json")
    assert [row["epoch"] for row in rows] == list(range(EPOCHS))
    scores = [row["val_acc"] for row in rows]
    assert (result["val_acc"], result["best_epoch"]) == (max(scores), scores.index(max(scores)))
    assert result["test_acc_best_on_test"] == max(row["test_acc"] for row in rows)
    assert result["test_acc"] == rows[result["best_epoch"]]["test_acc"]
    assert result["test_acc_last"] == rows[-1]["test_acc"]
    assert (finished / "runs" / place / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_teachers_scores_are_handed_on_and_summed_up(finished: Path) -> None:
    teacher, student = (_json(finished / "runs" / place / "result.json") for place in (TEACHER, STUDENT))
    for name in ("teacher_test_acc", "teacher_test_acc_last"):
        assert teacher[name] == student[name] == teacher[name.removeprefix("teacher_")]
    assert student["config"]["teacher"] == teacher["config"]
    summary = _json((finished / "runs" / STUDENT).parent / "summary.json")
    assert (summary["mean"], summary["std"], summary["n"]) == (student["test_acc"], None, 1)
    assert summary["test_acc_last"]["mean"] == student["test_acc_last"]
    assert summary["test_acc_best_on_test"]["mean"] == student["test_acc_best_on_test"]


def test_tensor_files_tell_no_path_and_no_host(finished: Path) -> None:
    for file in sorted(finished.rglob("*.safetensors")):
        content = file.read_bytes()
        header = content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
        private = [str(finished), finished.name, "toys", str(Path.home())]
        private += [socket.gethostname()] if len(socket.gethostname()) > 5 else []
        assert not [word for word in private if len(word) > 1 and word in header], file.name
        assert not [word for word in ("time", "date", "host", "seconds") if word in header], file.name


# -- without validation --------------------------------------------------------------------------------------------


def test_where_nothing_validates_the_last_epoch_counts_and_says_so(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, command = copy
    assert command("--val_fraction", "0", "--tag", "all", "--seeds", "2") == 0
    shown = capsys.readouterr().out
    assert shown.count("after the last epoch (nothing validates)") == 4
    assert "validation " not in shown
    for place in (TEACHER.replace("teacher", "teacher@all"), STUDENT.replace("crd", "crd@all")):
        result = _json(runs / place / "result.json")
        assert (result["val_acc"], result["best_epoch"]) == (None, EPOCHS - 1)
        assert result["test_acc"] == result["test_acc_last"]
        assert "val_acc" not in _json((runs / place).parent / "summary.json")
        assert not (runs / place / "last.safetensors").exists()


# -- a second command ----------------------------------------------------------------------------------------------


def test_a_finished_teacher_is_reused_and_a_changed_one_refused(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, command = copy
    before = {f.name: f.read_bytes() for f in (runs / TEACHER).iterdir()}
    trained: list[str] = []
    run = Fit.run
    monkeypatch.setattr(Fit, "run", lambda self, *a: (trained.append(type(self.model).__name__), run(self, *a))[1])
    assert command("--method", "kd", "--set", "train.checkpoint_every=3", "data.workers=0") == 0
    assert len(trained) == 1
    assert {f.name: f.read_bytes() for f in (runs / TEACHER).iterdir()} == before
    assert command("--method", "kd", "--set", "student.lr=0.3") == 2
    assert "student.lr is 0.05 there and 0.3 here" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["crd", "dot"])
@pytest.mark.parametrize("mode", ["tea", "stu"])
def test_an_interrupted_stage_continues_to_the_same_files(
    copy: tuple[Path, Callable[..., int]], monkeypatch: pytest.MonkeyPatch, mode: str, method: str
) -> None:
    """Bit for bit, also of methods that keep a memory or velocities of their own."""
    runs, command = copy
    place = runs / (TEACHER if mode == "tea" else STUDENT.replace("crd", method))
    assert command("--method", method, "--mode", mode) == 0
    whole = {f.name: f.read_bytes() for f in place.iterdir() if f.suffix in (".safetensors", ".jsonl", ".png")}
    apply = minibatches.apply

    def interrupted(*args: Any) -> Any:
        if args[-1].epoch == 2:
            raise KeyboardInterrupt
        return apply(*args)

    with monkeypatch.context() as broken:
        broken.setattr(minibatches, "apply", interrupted)
        argv = ["--method", method, "--mode", mode, "--overwrite", "--set", "train.checkpoint_every=2"]
        assert command(*argv) == 130
    assert {f.name for f in place.iterdir()} == {"config.json", "checkpoint.safetensors"}
    assert command("--method", method, "--mode", mode) == 2, "neither lost nor continued unasked"
    assert command("--method", method, "--mode", mode, "--resume") == 0
    assert not (place / "checkpoint.safetensors").exists()
    assert {f.name: f.read_bytes() for f in place.iterdir() if f.name in whole} == whole


@pytest.mark.parametrize("word", ["fitnet", "dot(fitnet)"])
def test_a_part_that_is_worth_keeping_is_kept_as_it_was_after_the_last_epoch(
    copy: tuple[Path, Callable[..., int]], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """With a stand-in for the method that keeps its part; of a wrapper it is the base's."""
    runs, command = copy
    place = runs / STUDENT.replace("crd", word.replace("(", "+").replace(")", ""))
    assert command("--method", word, "--mode", "stu") == 0
    assert not (place / "method.safetensors").exists()
    monkeypatch.setattr(distillers.methods()["fitnet"], "keeps_part", True)
    parts: list[dict[str, torch.Tensor]] = []
    run = Fit.run

    def heard(self: Fit, *rest: Any) -> Any:
        try:
            return run(self, *rest)
        finally:
            assert self.course.distiller.part is not None  # type: ignore[attr-defined]
            parts.append(self.course.distiller.part.state_dict())  # type: ignore[attr-defined]

    monkeypatch.setattr(Fit, "run", heard)
    assert command("--method", word, "--mode", "stu", "--overwrite") == 0
    tensors, meta = checkpoint.load(place / "method.safetensors")
    assert tensors.keys() == parts[-1].keys()
    assert all(torch.equal(t, parts[-1][name]) for name, t in tensors.items())
    assert meta == {"method": word.partition("(")[0], "base": "fitnet" if "(" in word else None}
    whole, apply = (place / "method.safetensors").read_bytes(), minibatches.apply

    def interrupted(*args: Any) -> Any:
        if args[-1].epoch == 2:
            raise KeyboardInterrupt
        return apply(*args)

    with monkeypatch.context() as broken:
        broken.setattr(minibatches, "apply", interrupted)
        assert command("--method", word, "--mode", "stu", "--overwrite", "--set", "train.checkpoint_every=2") == 130
    assert not (place / "method.safetensors").exists()
    assert command("--method", word, "--mode", "stu", "--resume") == 0
    assert (place / "method.safetensors").read_bytes() == whole


def test_balanced_batches_are_another_run(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run whose description knows of no `per_class` is one without; with it, it is another."""
    runs, command = copy
    file = runs / STUDENT / "config.json"
    old = _json(file)
    for stage in (old["student"], old["teacher"]["teacher"]):
        assert stage.pop("per_class") is None
    file.write_text(json.dumps(old))
    assert command("--mode", "stu") == 0
    assert _json(file) == old, "finished, and left alone"
    assert command("--mode", "stu", "--set", "student.per_class=8") == 2
    assert "student.per_class is null there and 8 here" in capsys.readouterr().err
    assert command("--mode", "stu", "--set", "student.per_class=8", "--tag", "balanced") == 0
    here, there = (runs / place / "metrics.jsonl" for place in (STUDENT, STUDENT.replace("crd", "crd@balanced")))
    assert here.read_text() != there.read_text()


# -- other surroundings --------------------------------------------------------------------------------------------


def test_other_images_behind_a_teachers_back_are_refused(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    runs, command = copy
    file = runs.parent / "toys" / "a" / "0.png"
    Image.new("L", (8, 8), 200).save(file)
    assert command("--mode", "stu", "--overwrite") == 2
    assert "was trained on other pixels or labels" in capsys.readouterr().err
    file.unlink()
    assert command("--mode", "stu", "--overwrite") == 2
    assert "was trained on another split or order of images" in capsys.readouterr().err


def test_damaged_files_of_a_teacher_are_one_line(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, command = copy
    file = runs / TEACHER / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert command("--mode", "stu", "--overwrite") == 2
    assert "model.safetensors is not a readable safetensors file" in capsys.readouterr().err
    checkpoint.save(file, {"a": torch.zeros(2)}, {"format": 1})
    assert command("--mode", "stu", "--overwrite") == 2
    assert "holds no network of images" in capsys.readouterr().err
