"""`gnnkd.evaluate` says what a run said of itself, reads published checkpoints, and refuses what it cannot judge."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from gnnkd.data import folder, images
from gnnkd.data.image_task import ImageTask, task
from gnnkd.evaluate import LEAST_SIZE, Evaluation, evaluate, main
from gnnkd.images.networks import built
from gnnkd.main import main as train
from gnnkd.nn.images import ImageNetwork
from gnnkd.types import Output

TEACHER, STUDENT = "digits/random-tran/cnn/teacher/seed3", "digits/random-tran/cnn/cnn_small/kd/seed3"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and a student on digits, seed 3."""
    out = tmp_path_factory.mktemp("evaluate")
    words = ["--dataset", "digits", "--teacher", "cnn", "--seed", "3", "--out", str(out), "--quiet", "--device", "cpu"]
    settings = ["teacher.width=8", "train.epochs=2", "train.batch_size=128"]
    assert train([*words, "--val_fraction", "0.25", "--set", *settings]) == 0
    return out


@pytest.fixture(scope="module")
def digits() -> ImageTask:
    return task(images.load("digits-images"), seed=0)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--device", "cpu"]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("gnnkd: error: ")
    return printed.err


# -- the numbers -----------------------------------------------------------------------------------------------


class Fixed(ImageNetwork):
    """Says of each image what a table says; the image is its row in the table."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table, self.asked = table, 0

    def forward(self, x, graph=None) -> Output:
        rows = self.table[self.asked : self.asked + len(x)]
        self.asked += len(x)
        return Output(rows)

    def norms(self):
        return ()


def test_hits_among_the_best_and_the_loss_are_those_of_the_logits(digits) -> None:
    mask, rows = digits.split.test, int(digits.split.test.sum())
    table = torch.randn(rows, 10, generator=torch.Generator().manual_seed(0))
    y = digits.y[mask]
    rank = (table > table.gather(1, y[:, None])).sum(1)
    for batch_size in (7, 1000):
        found = evaluate(Fixed(table), digits, mask, batch_size)
        assert (found.n_images, found.hits, found.top) == (rows, int((rank < 1).sum()), int((rank < 5).sum()))
        assert found.loss == pytest.approx(float(cross_entropy(table, y, reduction="sum")), rel=1e-5)


def test_the_second_accuracy_needs_more_than_five_classes() -> None:
    assert str(Evaluation(200, 10, 100, 150, 300.0)) == "top-1 50.00%, top-5 75.00%, loss 1.5000, 200 images"
    assert str(Evaluation(200, 5, 100, 200, 300.0)) == "top-1 50.00%, loss 1.5000, 200 images"


def test_weights_that_say_nothing_finite_are_refused(digits) -> None:
    table = torch.full((int(digits.split.test.sum()), 10), float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        evaluate(Fixed(table), digits, digits.split.test, 64)


# -- runs of gnnkd ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [TEACHER, STUDENT])
def test_a_run_gets_the_numbers_that_it_wrote(runs, capsys, place) -> None:
    result = json.loads((runs / place / "result.json").read_text())
    for split, name in (("test", "test_acc"), ("val", "val_acc")):
        line = said(capsys, "-c", str(runs / place), "--split", split)
        (accuracy,) = re.findall(r"top-1 ([\d.]+)%", line)
        assert float(accuracy) == pytest.approx(100 * result[name], abs=0.006)
        assert f"{result['n_parameters']:,} parameters" in line
    assert line.startswith("digits random-tran ")


def test_the_file_the_name_and_the_dataset_may_be_said_too(runs, capsys) -> None:
    whole = said(capsys, "-c", str(runs / STUDENT)).split(" (")[0]
    file = str(runs / STUDENT / "model.safetensors")
    assert said(capsys, "-c", file, "-m", "CNN-small", "-d", "digits-images").split(" (")[0].endswith(whole[7:])
    assert said(capsys, "--CHECKPOINT", file, "--batch-size=3").split(" (")[0] == whole


def test_another_split_than_the_runs_is_told(runs, capsys) -> None:
    assert main(["-c", str(runs / STUDENT), "--seed", "4", "--device", "cpu"]) == 0
    assert "some of these images may have trained it" in capsys.readouterr().err


def test_a_network_of_another_kind_is_refused(runs, capsys, tmp_path) -> None:
    assert "holds a cnn_small, not a resnet8; leave -m out" in refused(
        capsys, "-c", str(runs / STUDENT), "-m", "resnet8"
    )
    assert "leave --set out" in refused(capsys, "-c", str(runs / STUDENT), "--set", "width=3")
    assert "give the folder of a finished run" in refused(capsys, "-c", str(tmp_path))


def test_a_graphs_network_is_answered_with_what_to_use(capsys, tmp_path) -> None:
    words = [
        "--dataset",
        "digits",
        "--mode",
        "tea",
        "--set",
        "train.epochs=1",
        "train.width=4",
        "method.generators=false",
    ]
    assert train([*words, "--quiet", "--out", str(tmp_path), "--device", "cpu"]) == 0
    capsys.readouterr()
    (place,) = tmp_path.glob("digits/cpf-tran/gcn/teacher/seed0")
    error = refused(capsys, "-c", str(place), "-d", "digits")
    assert "a gcn network of graphs" in error
    assert "gnnkd.report" in error
    other = place / "other.pth"
    other.touch()
    assert "'cora' is a graph" in refused(capsys, "-m", "resnet8", "-c", str(other), "-d", "cora")


# -- published checkpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_a_published_checkpoint_scores_as_its_network_does(digits, capsys, tmp_path, wrapper) -> None:
    torch.manual_seed(0)
    network = built("resnet8", 8, 1, 10, {"shortcut": "a"})
    state = network.state_dict()
    torch.save({wrapper: state} if wrapper else state, tmp_path / "best.pth")
    words = ["-m", "ResNet8", "-c", str(tmp_path / "best.pth"), "-d", "digits", "--set", "shortcut=a"]
    found = evaluate(network, digits, digits.split.test, 64)
    assert f": {found}, " in said(capsys, *words)


def test_mistakes_are_said_in_one_line(capsys, tmp_path) -> None:
    file = tmp_path / "best.pth"
    torch.save(built("resnet8", 8, 1, 10, {}).state_dict(), file)
    known = ("-c", str(file), "-d", "digits")
    assert "give -m" in refused(capsys, *known)
    assert "did you mean 'resnet8'" in refused(capsys, *known, "-m", "resnet7")
    assert "is of another network" in refused(capsys, *known, "-m", "resnet14")
    assert "did you mean 'model.shortcut'" in refused(capsys, *known, "-m", "resnet8", "--set", "shortct=a")
    assert "did you mean 'test'" in refused(capsys, *known, "-m", "resnet8", "--split", "tst")
    assert "did you mean 'batch_size'" in refused(capsys, *known, "--batch_sze", "3")
    assert "no whole number from 1 on" in refused(capsys, *known, "--batch_size", "0")
    assert "val_fraction is 0.7; it must be from 0 to 0.5" in refused(
        capsys, *known, "-m", "resnet8", "--val_fraction", "0.7"
    )
    none = ("--split", "val", "--val_fraction", "0")
    assert "has no such images" in refused(capsys, *known, "-m", "resnet8", *none)
    assert "size is 9" in refused(capsys, *known, "-m", "resnet8", "--size", "9")
    assert "say which images" in refused(capsys, "-c", str(file), "-m", "resnet8")
    assert "give a checkpoint" in refused(capsys, "-m", "resnet8")
    for more in ((), ("-m", "resnet8", "-d", "digits"), ("-d", "nothing")):
        assert "no.pth does not exist" in refused(capsys, "-c", str(tmp_path / "no.pth"), *more)
    assert "does not exist" in refused(capsys, "-c", "x" * 300)


def test_a_network_laid_out_for_other_sizes_is_answered_with_the_size(capsys, tmp_path) -> None:
    from PIL import Image

    file = tmp_path / "best.pth"
    torch.save(built("resnet8", 8, 3, 2, {}).state_dict(), file)
    for row, label in enumerate("aabb" * 5):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 80), (row, 0, 0)).save(tmp_path / "photos" / label / f"{row}.png")
    words = ("-c", str(file), "-m", "resnet8", "-d", str(tmp_path / "photos"), "--workers", "0")
    assert "such a size with --size N" in refused(capsys, *words)
    assert "top-1" in said(capsys, *words, "--size", "32")
    assert "no whole number from 8 on" in refused(capsys, *words, "--size", "7")


def test_the_least_size_is_the_folders() -> None:
    assert LEAST_SIZE == folder.LEAST_SIZE


def test_a_run_in_bfloat16_gets_the_numbers_that_it_wrote(capsys, tmp_path) -> None:
    words = ["--teacher", "cnn_small", "--mode", "tea", "--out", str(tmp_path), "--quiet", "--device", "cpu"]
    assert train([*words, "--set", "train.precision=bfloat16", "train.epochs=3", "train.batch_size=128"]) == 0
    (file,) = tmp_path.rglob("result.json")
    result = json.loads(file.read_text())
    capsys.readouterr()
    for split, name in (("test", "test_acc"), ("val", "val_acc")):
        assert f"top-1 {result[name]:.2%}, " in said(capsys, "-c", str(file.parent), "--split", split)


def test_help_comes_without_torch() -> None:
    code = "import sys; from gnnkd.evaluate import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--checkpoint" in done.stdout


def test_an_interrupt_is_130(monkeypatch, capsys) -> None:
    def interrupted(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("gnnkd.evaluate.run", interrupted)
    assert main(["-c", "x"]) == 130
    assert capsys.readouterr().err == "gnnkd: interrupted\n"
