"""The command that searches for a graph of networks, from its flags to its files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from gnnkd import search
from gnnkd.data import images
from gnnkd.errors import UserError
from gnnkd.ktg.plans import planned
from gnnkd.ktg.spec import Spec
from gnnkd.report import rows
from gnnkd.together import main as together

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed (pip install 'gnnkd[search]')"
)
FEW = ("--dataset", "digits-images", "--models", "cnn_small", "--nodes", "2", "--quiet", "--device", "cpu")


def command(*words: str) -> int:
    return search.main(list(words))


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said about a command line that is wrong, in one line."""
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("gnnkd: error: ")
    assert said.count("\n") == 1
    return said


def test_a_search_and_its_winner_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path), "--set", "train.epochs=1")
    gates = ("--gates", "through,negative,cutoff")
    assert command(*FEW, *gates, *out, "--trials", "3") == 0
    folder = tmp_path / "digits-images" / "random-tran" / "search" / "nodes2"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "3 trials" in lines[0]
    assert str(folder / "search.html") in lines[0]
    assert {"search.html", "search.png", "best.yaml", "graph.svg", "graph.png", "journal.log"} <= {
        file.name for file in folder.iterdir()
    }
    assert command(*FEW, *gates, *out, "--retrain", "best", "--seeds", "0,3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 trials" in lines[0], "nothing more is searched"
    (file,) = folder.glob("retrain-trial*.json")
    found = json.loads(file.read_text())
    winner = f"trial{found['trial']}"
    assert found["seeds"] == [0, 3]
    assert found["split_seed"] == 0
    assert list(found["test_acc"]) == sorted({winner, "single-cnn_small", f"{winner}-dml"})
    assert found["less"].keys() == found["test_acc"].keys() - {winner}
    for name, accuracies in found["test_acc"].items():
        for seed, accuracy in zip((0, 3), accuracies, strict=True):
            result = json.loads((folder / name / f"seed{seed}" / "result.json").read_text())
            assert result["test_acc"] == accuracy
            assert result["val_acc"] is None, "what validates trains"
            assert result["config"]["retrain"] is True
            assert (result["config"]["seed"], result["config"]["split_seed"]) == (seed, 0)
    _check_rows_and_weights(tmp_path, folder, winner)
    assert f"{winner} less single-cnn_small" in lines[-2]
    assert "less single-cnn_small" in (folder / "search.html").read_text()
    assert command(*FEW, *gates, *out, "--trials", "4") == 0
    assert "less single-cnn_small" in (folder / "search.html").read_text(), "and stays there"
    assert together([str(folder / "best.yaml"), "--seed", "0", "--out", str(tmp_path), "--quiet"]) == 0


def _check_rows_and_weights(out: Path, folder: Path, winner: str) -> None:
    """A table says on what it was trained, and no other graph begins with it."""
    names = [row.name for row in rows(out) if row.name.startswith("search nodes2: ")]
    arms = ("single-cnn_small", winner, f"{winner}-dml")
    assert sorted(names) == sorted(f"search nodes2: {arm} (train+val)" for arm in arms)
    again = folder / "single-cnn_small" / "seed0"
    spec = Spec.of({"nodes": [{"model": "cnn_small", "weights": str(again)}], "gates": [["through"]]})
    task = images.task(images.load("digits-images"), seed=0)
    with pytest.raises(UserError, match="was trained on validation rows, too"):
        planned(spec, 0).weights[0].check_split(task)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gates", "thruogh"], "unknown gate 'thruogh'; allowed: "),
        (["--gates", "cutoff"], "no label passes through them"),
        (["--models", "cnn_smal"], "did you mean 'cnn_small'"),
        (["--models", ","], "models is empty"),
        (["--set", "gates.0.1=through"], "that is what the search chooses"),
        (["--set", "train.epoch=3"], "did you mean 'train.epochs'"),
        (["--set", "train.epochs=0"], "epochs is 0"),
        (["--nodes", "0"], "no whole number from 1 on"),
        (["--seeds", "3"], "--seeds are of --retrain"),
        (["--seed", "x"], "seed is 'x'"),
        (["--trails", "3"], "did you mean 'trials'"),
        (["--storage", "nonsense"], "--storage nonsense: it cannot be opened"),
        (["--trials", "0", "--retrain", "best"], "no trial of this search is complete"),
        (["--trials", "0", "--retrain", "7"], "retrain is '7'; it must be best"),
        (["--name", "a/b"], "--name 'a/b' must be letters"),
        (["--set", "data.val_fraction=0"], "no row of digits-images validates"),
    ],
)
def test_a_mistake_is_said_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in mistake(capsys, *FEW, "--out", str(tmp_path), *words)


def test_models_are_by_default_the_datas_student_and_teacher() -> None:
    assert search._space({"dataset": "digits-images"}, ["through"]).models == ("cnn_small", "cnn")
    assert search._space({"dataset": "digits"}, ["through"]).models == ("mlp", "gcn")
    assert search._space({"set": ["dataset=digits-images"]}, ["through"]).models == ("cnn_small", "cnn")
