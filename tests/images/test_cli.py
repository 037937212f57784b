"""What a command does on images: places, messages, published teachers, mistakes of the surroundings, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gnnkd
from gnnkd import report
from gnnkd.images.networks import built
from gnnkd.main import main
from gnnkd.train import minibatches

ROOT = Path(__file__).parents[2]
FAST = ["--set", "train.epochs=2", "train.batch_size=256"]
SMALL = ["--teacher", "cnn_small", "--student", "cnn_small"]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnkd.images.results.draw", lambda *_, **__: None)


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _on(folder: Path, out: Path, *more: str) -> list[str]:
    return ["--dataset", str(folder), "--out", str(out), *SMALL, *FAST, *more]


def _fails(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line of a command that must fail with exit code 2."""
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("gnnkd: error: ")
    assert error.count("\n") == 1
    return error


# -- places and messages -------------------------------------------------------------------------------------------


def test_digits_are_images_or_a_graph_by_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path)]
    assert main(["--teacher", "cnn", "--student", "cnn_small", *out, *FAST, "teacher.width=8"]) == 0
    assert main(["--dataset", "digits-images", "--mode", "tea", *out, *FAST, "teacher.width=8"]) == 0
    assert main(["--method", "glnn", *out, "--set", "train.epochs=2", "train.width=4"]) == 0
    places = {f.parent.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("result.json")}
    assert places == {
        "digits/random-tran/cnn/teacher/seed0",
        "digits/random-tran/cnn/cnn_small/kd/seed0",
        "digits-images/random-tran/cnn/teacher/seed0",
        "digits/cpf-tran/gcn/teacher/seed0",
        "digits/cpf-tran/gcn/mlp/glnn/seed0",
    }
    shown = capsys.readouterr().out
    assert "digits random-tran cnn -> cnn_small, kd, seed 0: test " in shown
    assert shown.count("(best by validation)") == 3
    assert "best on test" not in shown
    assert report.main([str(tmp_path)]) == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if "dataset" in line)
    assert "test accuracy %" in head, "rows of both halves"
    assert "last %" in head


def test_a_base_that_is_named_is_part_of_the_place(tmp_path: Path, folder: Path) -> None:
    assert main(_on(folder, tmp_path / "out", "--method", "dot", "--set", "method.base=gkd")) == 0
    assert main(_on(folder, tmp_path / "out", "--method", "dot")) == 0
    found = {f.parents[1].name: _json(f)["base"] for f in tmp_path.rglob("cnn_small/cnn_small/*/*/result.json")}
    assert found == {"dot+gkd": "gkd", "dot": "kd"}


def test_the_report_has_columns_for_best_last_and_best_on_test(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = _on(folder, tmp_path / "out", "--method", "dkd", "--best-on-test", "--seeds", "2")
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert shown.count("(for comparison with the literature only)") == 4
    last = shown.splitlines()[-1]
    for words in ("2 seeds: test ", ", after the last epoch ", ", best on test ", "ddof 1"):
        assert words in last
    assert report.main([str(tmp_path / "out")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    for words in ("best %", "last %", "best on test %"):
        assert words in lines[0]
    assert lines[-1].count("+-") == 3
    result = _json(next(tmp_path.rglob("dkd/seed0/result.json")))
    assert result["config"]["best_on_test"] is True
    line = _fails(capsys, _on(folder, tmp_path / "out", "--method", "dkd", "--mode", "stu"))
    assert "best_on_test is true there and null here" in line


def _teacher(out: Path) -> Path:
    return out / "toys" / "random-tran" / "cnn_small" / "teacher" / "seed0"


def test_what_cannot_change_a_teacher_does_not_invalidate_it(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    assert main(_on(folder, out, "--mode", "tea")) == 0
    before = {f.name: f.read_bytes() for f in _teacher(out).iterdir()}
    assert main(_on(folder, out, "--method", "kd", "--best_on_test", "--set", "train.cache_teacher=true")) == 0
    assert {f.name: f.read_bytes() for f in _teacher(out).iterdir()} == before
    result = _json(next(out.rglob("kd/seed0/result.json")))
    assert "test_acc_best_on_test" in result
    assert result["config"]["student"]["cache_teacher"] is True


def test_a_continued_training_reports_no_best_of_a_part_of_its_epochs(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, argv = minibatches.apply, _on(folder, tmp_path / "out", "--mode", "tea", "--set", "train.checkpoint_every=1")

    def interrupted(*args: Any) -> Any:
        if args[-1].epoch == 1:
            raise KeyboardInterrupt
        return apply(*args)

    with monkeypatch.context() as broken:
        broken.setattr(minibatches, "apply", interrupted)
        assert main(argv) == 130
    assert main([*argv, "--resume", "--best_on_test"]) == 0
    assert "test_acc_best_on_test" not in _json(_teacher(tmp_path / "out") / "result.json")


def test_other_data_in_a_place_is_explained_by_an_option_or_in_words(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    argv = _on(folder, tmp_path / "out", "--mode", "tea")
    assert main(argv) == 0
    line = _fails(capsys, [*argv, "--val_fraction", "0.3", "--set", "teacher.lr=0.3", "teacher.width=9"])
    assert "configuration: data.val_fraction is 0.1 there and 0.3 here, " in line
    assert "teacher.lr" in line
    assert "fingerprint" not in line
    Image.new("L", (8, 8), 200).save(next(folder.rglob("*.png")))
    line = _fails(capsys, argv)
    assert "holds a run on other pixels or labels; choose a --tag" in line


def test_a_folder_that_begins_small_and_is_not_is_asked_about(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    Image.new("L", (300, 200)).save(folder / "middle" / "zzz.png")
    line = _fails(capsys, _on(folder, tmp_path / "out"))
    assert "the first image of" in line
    assert "has 8 x 8 pixels and others have not, so that all would be brought to 224" in line
    assert main(_on(folder, tmp_path / "out", "--mode", "tea", "--set", "data.size=8", "data.workers=0")) == 0


def test_a_missing_teacher_is_named_with_the_command_that_makes_it(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--val_fraction", "0.25", "--set", "teacher.width=7", "data.augment=none"]
    line = _fails(capsys, _on(folder, tmp_path / "out", "--mode", "stu", *more))
    command = line.strip().split("python -m gnnkd.main ")[1].split()
    assert "data.val_fraction=0.25" in command
    assert "data.augment=none" in command
    assert main(command) == 0
    assert main(_on(folder, tmp_path / "out", "--mode", "stu", *more)) == 0


def test_a_run_of_both_stages_refuses_a_method_that_does_not_fit_before_the_first(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _fails(capsys, _on(folder, tmp_path / "out", "--method", "at", "--set", "train.cache_teacher=true"))
    assert "cache_teacher" in line
    assert not (tmp_path / "out").exists()


# -- published teachers --------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    file = tmp_path / "teacher.pth"
    torch.save({"model": built("cnn_small", 8, 3, 3, {}).state_dict()}, file)
    return file


def test_a_published_teacher_is_scored_kept_and_learnt_from(
    tmp_path: Path, folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = _on(folder, out, "--teacher_weights", str(weights))
    assert main([*argv, "--mode", "tea"]) == 0
    shown = capsys.readouterr().out
    assert "may have been trained on images that validate here" in shown
    place = out / "toys" / "random-tran" / "cnn_small" / "teacher" / "seed0"
    assert {f.name for f in place.iterdir()} == {"model.safetensors", "config.json", "result.json"}
    result = _json(place / "result.json")
    assert (result["epochs"], result["best_epoch"], result["method"]) == (0, None, "teacher")
    assert len(result["config"]["teacher_weights"]) == 64
    assert "lr" not in result["config"]["teacher"]
    saved = torch.load(weights, weights_only=True)["model"]
    kept = gnnkd.load(place).network.state_dict()
    assert all(torch.equal(t, kept[name]) for name, t in saved.items())
    # A student of a teacher that is there, both stages, and without saying again where it is from.
    assert main(argv) == 0
    assert "reused" in capsys.readouterr().out
    again = ["--dataset", str(folder), "--out", str(out), *SMALL, "--method", "dkd", "--mode", "stu"]
    assert main([*again, "--set", "student.epochs=2"]) == 0
    student = _json(next(out.rglob("dkd/seed0/result.json")))
    assert student["teacher_test_acc"] == result["test_acc"]
    assert student["config"]["teacher"] == result["config"]
    # Another file is another teacher.
    torch.save({"model": built("cnn_small", 8, 3, 3, {}).state_dict()}, weights)
    assert "teacher_weights" in _fails(capsys, [*argv, "--mode", "stu", "--method", "at"])
    assert report.main([str(out)]) == 0


def test_a_missing_published_teachers_command_names_its_file(
    tmp_path: Path, folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _fails(capsys, _on(folder, tmp_path / "out", "--teacher_weights", str(weights), "--mode", "stu"))
    assert main(line.strip().split("python -m gnnkd.main ")[1].split()) == 0


def test_weights_of_another_network_are_refused_before_anything_is_written(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "teacher.pth", tmp_path / "out"
    torch.save(built("resnet8", 8, 3, 3, {}).state_dict(), file)
    assert "of another network" in _fails(capsys, _on(folder, out, "--teacher_weights", str(file)))
    torch.save(built("cnn_small", 8, 3, 100, {}).state_dict(), file)
    assert "a head of 100 classes, the data has 3" in _fails(capsys, _on(folder, out, "--teacher_weights", str(file)))
    assert not out.exists()


# -- interrupts, mistakes, processes -------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_saves_and_ends_in_one_line(
    tmp_path: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    apply, argv = minibatches.apply, _on(folder, tmp_path / "out", "--mode", "tea")

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(number)
        return apply(*args)

    with monkeypatch.context() as broken:
        broken.setattr(minibatches, "apply", interrupted)
        assert main(argv) == code
    assert "--resume" in capsys.readouterr().err.splitlines()[-1]
    place = tmp_path / "out" / "toys" / "random-tran" / "cnn_small" / "teacher" / "seed0"
    assert {f.name for f in place.iterdir()} == {"config.json", "checkpoint.safetensors"}
    assert main([*argv, "--resume"]) == 0
    assert [json.loads(line)["epoch"] for line in (place / "metrics.jsonl").read_text().splitlines()] == [0, 1]


def test_a_loss_that_explodes_is_one_line(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _fails(capsys, _on(folder, tmp_path / "out", "--mode", "tea", "--set", "train.lr=1e30"))
    assert "not finite" in line


def test_results_do_not_go_among_the_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(folder.rglob("*"))
    for out in (folder.parent, folder, folder / "runs"):
        assert "among the images; choose another folder with --out" in _fails(capsys, _on(folder, out))
    assert set(folder.rglob("*")) == before


def test_a_set_known_by_name_is_no_folder_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        argv = ["--dataset", "digits-images", "--out", ".", "--mode", "tea", "--overwrite", *SMALL]
        assert main([*argv, *FAST]) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--split", "public"], "has no split 'public'; it has random"),
        (["--set", "data.size=4000000000"], ""),
        (["--teacher", "resnet34"], "laid out for images of more than 64 pixels"),
        (["--student", "mobilenetv1"], "laid out for images of more than 64 pixels"),
    ],
)
def test_what_the_files_tell_is_checked_before_training(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert said in _fails(capsys, _on(folder, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_names_that_no_file_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown dataset" in _fails(capsys, ["--dataset", "x" * 300, "--teacher", "cnn"])


def test_two_processes_share_a_training(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gnnkd.main"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*argv, *_on(folder, tmp_path / "out", "--method", "gkdfd", "--device", "cpu")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test ") == 2, "one process speaks"
    assert len([*(tmp_path / "out").rglob("method.safetensors")]) == 1
    for file in (tmp_path / "out").rglob("result.json"):
        assert _json(file)["processes"] == _json(file)["config"]["processes"] == 2
    argv = _on(folder, tmp_path / "out", "--method", "gkdfd", "--device", "cpu")
    for mode in ("tea", "stu", "tea/stu"):
        line = _fails(capsys, [*argv, "--mode", mode, "--resume"])
        assert "processes is 2 there and null here" in line, "what one process makes is another result"
