"""`python -m gnnkd.selfsup`: exit codes, files, reuse, and what it says of mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import gnnkd
from gnnkd.data import images
from gnnkd.selfsup.__main__ import main
from gnnkd.train.fit import Fit

TINY = ["--dataset", "digits", "--models", "cnn_small", "--device", "cpu", "--set", "train.warmup_epochs=0"]
PLACE = "digits/random-tran/selfsup/cnn_small/simclr"
FILES = {"model.safetensors", "config.json", "result.json", "metrics.jsonl", "curves.png"}


def _run(out: Path, *flags: str, epochs: int = 1) -> int:
    return main([*TINY, f"train.epochs={epochs}", "--out", str(out), *flags])


def _fails(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What a command that is refused says, in one line."""
    assert main([*TINY, *flags]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two epochs."""
    out = tmp_path_factory.mktemp("selfsup") / "runs"
    assert _run(out, epochs=2) == 0
    return out


def test_files_and_result(finished: Path) -> None:
    folder = finished / PLACE / "seed0"
    assert {file.name for file in folder.iterdir()} - {"last.safetensors"} == FILES
    assert (folder.parent / "summary.json").is_file()
    result = json.loads((folder / "result.json").read_text())
    assert (result["dataset"], result["method"], result["student_model"]) == ("digits", "simclr", "cnn_small")
    assert result["epochs"] == len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    for name in ("test_acc", "test_acc_last", "test_acc_untrained", "val_acc"):
        assert 0 <= result[name] <= 1


def test_the_folder_loads_and_scores_as_the_result_says(finished: Path) -> None:
    folder = finished / PLACE / "seed0"
    task = images.task(images.load("digits"), seed=0, val_fraction=0.1)
    pixels = task.store.data[task.split.test].numpy()  # type: ignore[attr-defined]
    said = [task.classes.index(word.item()) for word in gnnkd.load(folder).predict(pixels)]
    hits = (torch.tensor(said) == task.y[task.split.test]).double().mean().item()
    assert hits == pytest.approx(json.loads((folder / "result.json").read_text())["test_acc_means"])


@pytest.mark.parametrize("flags", [(), ("--resume",)])
def test_a_finished_run_is_reused(
    finished: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fit, "run", lambda *_: pytest.fail("trained again"))
    assert _run(finished, *flags, epochs=2) == 0
    said = capsys.readouterr().out
    assert "is finished, with the same configuration: reused" in said
    assert "seed 0: 20 neighbours say test" in said


def test_another_configuration_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(finished, epochs=3) == 2
    assert "train.epochs is 2 there and 3 here; choose a --tag, or --overwrite it" in capsys.readouterr().err


def test_two_seeds_have_a_summary_and_a_tag_a_place_of_its_own(tmp_path: Path) -> None:
    assert _run(tmp_path, "--seeds", "2", "--tag", "two", "--quiet") == 0
    (folder,) = (tmp_path / PLACE).parent.iterdir()
    assert folder.name == "simclr@two"
    results = [json.loads((folder / f"seed{k}" / "result.json").read_text()) for k in (0, 1)]
    summary = json.loads((folder / "summary.json").read_text())
    mean = sum(result["test_acc"] for result in results) / 2
    assert summary["seeds"] == [0, 1]
    assert summary["test_acc"]["mean"] == pytest.approx(mean)


def test_an_interrupted_run_wants_resume_and_comes_to_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epoch = Fit._epoch

    def stopping(self: Fit, step: object) -> dict[str, float]:
        epoch(self, step)  # type: ignore[arg-type]
        self.save()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Fit, "_epoch", stopping)
        assert _run(tmp_path, epochs=2) == 130
    assert _run(tmp_path, epochs=2) == 2
    assert "continue it with --resume or start anew with --overwrite" in capsys.readouterr().err
    assert _run(tmp_path, "--resume", epochs=2) == 0
    assert (tmp_path / PLACE / "seed0/model.safetensors").read_bytes() == (
        finished / PLACE / "seed0/model.safetensors"
    ).read_bytes()


def test_to_overwrite_leaves_nothing_of_the_former_run(finished: Path, tmp_path: Path) -> None:
    """A node's file of a run of other networks would be read as if it were of this one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / PLACE / "seed0"
    for stale in ("node1.safetensors", "node12.safetensors", "last.safetensors"):
        (folder / stale).write_bytes(b"of another run")
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events").touch()
    assert _run(tmp_path, "--overwrite") == 0
    assert {file.name for file in folder.iterdir()} == FILES


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--metod", "byol"), "did you mean 'method'?"),
        (("--method", "simcrl"), "did you mean 'simclr'?"),
        (("--models", "cnn_smal"), "cnn_small"),
        (("--seed", "-1"), "seed is -1"),
        (("--set", "train.epoch=3"), "did you mean 'train.epochs'?"),
        (("--set", "student.width=3"), "a group of data, views, model, method, edges, train"),
        (("--gates", "through,through"), "1 networks need 1 rows of 1 gates"),
        (("--models", "cnn,cnn", "--gates", "cutoff,through/through,cutoff"), "node 0 can learn nothing"),
        (("--resume", "--overwrite"), "--resume continues what is there, and --overwrite removes it"),
        (("--quiet=yes",), "--quiet is a switch"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_mistakes_are_said_in_one_line(
    flags: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in _fails(capsys, *flags, "--out", str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_file_says_the_same_as_flags(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is finished is found again by the file's words."""
    file = tmp_path / "run.yaml"
    file.write_text("dataset: digits\nmodels: [cnn_small]\ndevice: cpu\ntrain: {epochs: 2, warmup_epochs: 0}\n")
    monkeypatch.setattr(Fit, "run", lambda *_: pytest.fail("trained again"))
    assert main(["--config", str(file), "--out", str(finished)]) == 0


def test_help_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--gates", "--resume", "--tensorboard"))
