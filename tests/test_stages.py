"""What the two stages leave behind: the files of the contract, their content, and what they refuse to learn from."""

from __future__ import annotations

import json
import math
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnkd
from gnnkd.data.graphs import load
from gnnkd.data.task import NodeTask, task
from gnnkd.errors import UserError
from gnnkd.main import main
from gnnkd.results import cached_outputs
from gnnkd.train import checkpoint
from gnnkd.train import whole as steps_of
from gnnkd.train.fit import Fit

EPOCHS = 4
SETTINGS = ["--quiet", "--device", "cpu", "--set", f"train.epochs={EPOCHS}", "train.width=8"]
TEACHER, STUDENT = "toy/given-tran/gcn/teacher/seed0", "toy/given-tran/gcn/mlp/dgd/seed0"
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
    "val_acc": (float,),
    "teacher_test_acc": (float,),
    "epochs": (int,),
    "seconds": (float,),
    "n_parameters": (int,),
    "n_stored": (int,),
    "config": (dict,),
    "versions": (dict,),
    "commit": (str, type(None)),
}


def _graph(file: Path, *, seed: int = 0, n: int = 120) -> Path:
    """A planted partition with masks and labels that are not numbered from 0; `seed` draws the edges."""
    rng, y = np.random.default_rng(0), np.arange(n) % 3
    words = rng.random((n, 30)) < np.where(np.arange(30) % 3 == y[:, None], 0.4, 0.05)
    a, b = np.random.default_rng(seed).integers(0, n, (2, 8 * n))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    masks = {f"{part}_mask": np.minimum(np.arange(n) // 30, 2) == i for i, part in enumerate(("train", "val", "test"))}
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, edge_index=np.stack([a, b])[:, near], x=words.astype(np.float32), y=10 * y + 5, **masks)
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, and both stages of DGD run on it."""
    folder = tmp_path_factory.mktemp("finished-runs")
    assert main(["--dataset", str(_graph(folder / "toy.npz")), "--out", str(folder / "runs"), *SETTINGS]) == 0
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> tuple[Path, Callable[..., int]]:
    """A copy of it to write into: its folder of runs, and the command on it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    fixed = ["--dataset", str(tmp_path / "toy.npz"), "--out", str(tmp_path / "runs"), *SETTINGS]
    return tmp_path / "runs", lambda *more: main([*fixed, *more])


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _task(folder: Path) -> NodeTask:
    return task(load(folder / "toy.npz"), seed=0)


# -- files -------------------------------------------------------------------------------------------------------


def test_exactly_the_files_of_the_contract_are_there(finished: Path) -> None:
    """No checkpoint of a finished run, and no half-written file."""
    runs = finished / "runs"
    expected = {f"{TEACHER}/{name}" for name in COMMON | {"generators.safetensors", "outputs.safetensors"}}
    expected |= {f"{STUDENT}/{name}" for name in COMMON}
    expected |= {str(Path(place).parent / "summary.json") for place in (TEACHER, STUDENT)}
    assert {f.relative_to(runs).as_posix() for f in runs.rglob("*") if f.is_file()} == expected


@pytest.mark.parametrize("place", [TEACHER, STUDENT])
def test_the_result_has_the_listed_fields(finished: Path, place: str) -> None:
    result = _json(finished / "runs" / place / "result.json")
    for name, kinds in FIELDS.items():
        assert type(result[name]) in kinds, name
    for name in ("test_acc", "val_acc", "teacher_test_acc"):
        assert 0 <= result[name] <= 1
    teacher = place == TEACHER
    found = [result[name] for name in ("dataset", "protocol", "setting", "teacher_model", "seed", "epochs")]
    assert found == ["toy", "given", "tran", "gcn", 0, EPOCHS]
    named = (result["method"], result["student_model"], result["base"])
    assert named == (("teacher", None, None) if teacher else ("dgd", "mlp", "glnn"))
    assert result["config"] == _json(finished / "runs" / place / "config.json")
    assert {"python", "torch", "torch_geometric", "numpy", "gnnkd"} <= result["versions"].keys()
    assert result["seconds"] > 0


def test_the_teachers_score_is_handed_on(finished: Path) -> None:
    teacher, student = (_json(finished / "runs" / place / "result.json") for place in (TEACHER, STUDENT))
    assert teacher["test_acc"] == teacher["teacher_test_acc"] == student["teacher_test_acc"]
    assert teacher["generator_seconds"] > 0
    assert student["config"]["teacher"] == teacher["config"]


@pytest.mark.parametrize("place", [TEACHER, STUDENT])
def test_scores_are_those_of_the_saved_network(finished: Path, place: str) -> None:
    """Counted by hand in the user's labels, on the masks of the file."""
    with np.load(finished / "toy.npz") as data:
        x, y, edges = data["x"], data["y"], torch.from_numpy(data["edge_index"])
        masks = {"test_acc": data["test_mask"], "val_acc": data["val_mask"]}
    network = gnnkd.load(finished / "runs" / place)
    both = torch.cat([edges, edges.flip(0)], dim=1).unique(dim=1)
    found = network.predict(x, both if place == TEACHER else None).numpy()
    result = _json(finished / "runs" / place / "result.json")
    for name, mask in masks.items():
        assert math.isclose(result[name], (found[mask] == y[mask]).mean()), name
    assert result["n_parameters"] == sum(p.numel() for p in network.network.parameters())


@pytest.mark.parametrize("place", [TEACHER, STUDENT])
def test_metrics_have_a_line_an_epoch_and_the_kept_one_is_the_first_best(finished: Path, place: str) -> None:
    lines = (finished / "runs" / place / "metrics.jsonl").read_text().splitlines()
    rows, result = [json.loads(line) for line in lines], _json(finished / "runs" / place / "result.json")
    assert [row["epoch"] for row in rows] == list(range(EPOCHS))
    scores = [row["val_acc"] for row in rows]
    assert (result["val_acc"], result["best_epoch"]) == (max(scores), scores.index(max(scores)))
    assert (finished / "runs" / place / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_single_seed_has_a_mean_and_no_spread(finished: Path) -> None:
    for place in (TEACHER, STUDENT):
        summary = _json((finished / "runs" / place).parent / "summary.json")
        result = _json(finished / "runs" / place / "result.json")
        assert (summary["mean"], summary["std"], summary["n"]) == (result["test_acc"], None, 1)


def test_outputs_are_the_teachers_logits_of_these_rows(finished: Path) -> None:
    data = _task(finished)
    tensors, meta = checkpoint.load(finished / "runs" / TEACHER / "outputs.safetensors")
    network = gnnkd.load(finished / "runs" / TEACHER)
    torch.testing.assert_close(tensors["logits"], network.logits(data.x, data.graph))
    assert torch.equal(tensors["index"], data.index)
    assert meta == {"fingerprint": data.fingerprint}
    assert torch.equal(cached_outputs(finished / "runs" / TEACHER / "outputs.safetensors", data), tensors["logits"])


def test_tensor_files_tell_no_path_and_no_host(finished: Path) -> None:
    files = sorted(finished.rglob("*.safetensors"))
    assert len(files) == 4
    private = [str(finished), finished.name, "toy", str(Path.home())]
    private += [socket.gethostname()] if len(socket.gethostname()) > 5 else []
    for file in files:
        content = file.read_bytes()
        header = content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
        assert not [word for word in private if len(word) > 1 and word in header], file.name
        assert not [word for word in ("time", "date", "host", "seconds") if word in header], file.name


# -- a second command --------------------------------------------------------------------------------------------


def test_a_finished_teacher_of_equal_configuration_is_reused(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, command = copy
    before = {f.name: f.read_bytes() for f in (runs / TEACHER).iterdir()}
    trained: list[str] = []
    run = Fit.run
    name = lambda fit: type(fit.course.distiller).__name__  # noqa: E731
    monkeypatch.setattr(Fit, "run", lambda self, *a: (trained.append(name(self)), run(self, *a))[1])
    assert command("--method", "kd", "--mode", "tea/stu") == 0
    assert trained == ["Kd"]
    assert {f.name: f.read_bytes() for f in (runs / TEACHER).iterdir()} == before
    assert capsys.readouterr().out.count("test ") == 2, "the reused teacher's result is printed too"


def test_generators_can_be_left_out(tmp_path: Path) -> None:
    fixed = ["--dataset", str(_graph(tmp_path / "toy.npz")), "--out", str(tmp_path / "runs"), *SETTINGS]
    assert main([*fixed, "--mode", "tea", "--set", "method.generators=false"]) == 0
    assert not (tmp_path / "runs" / TEACHER / "generators.safetensors").exists()


def test_dgd_says_what_it_lacks_when_a_teacher_has_no_generators(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, command = copy
    (runs / TEACHER / "generators.safetensors").unlink()
    assert command("--mode", "stu", "--overwrite") == 2
    assert "dgd needs a teacher with generators" in capsys.readouterr().err
    assert command("--mode", "stu", "--method", "glnn") == 0


def test_a_teacher_of_another_graph_teaches_no_student_of_this_one(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, command = copy
    _graph(runs.parent / "toy.npz", seed=1)
    assert command("--mode", "stu", "--method", "kd") == 2
    line = capsys.readouterr().err.strip()
    assert "trained on another split, graph or order of nodes" in line
    assert "Traceback" not in line
    assert not (runs / STUDENT.replace("dgd", "kd")).exists(), "nothing was begun"


def test_outputs_on_other_rows_are_refused(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the hash of node order, graph and split, and by the ids themselves."""
    runs, command = copy
    file, data = runs / TEACHER / "outputs.safetensors", _task(runs.parent)
    tensors, meta = checkpoint.load(file)
    wrong: list[tuple[dict[str, torch.Tensor], dict[str, str]]] = [
        (tensors, {"fingerprint": "0" * 64}),
        (tensors, {}),
        (tensors | {"index": tensors["index"].flip(0)}, meta),
    ]
    for content, said in wrong:
        checkpoint.save(file, content, said)
        with pytest.raises(UserError, match="outputs on other nodes, another graph or split"):
            cached_outputs(file, data)
    assert command("--mode", "stu", "--method", "kd") == 2
    assert "outputs on other nodes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["outputs.safetensors", "generators.safetensors"])
def test_damaged_files_of_a_teacher_are_one_line(
    copy: tuple[Path, Callable[..., int]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    runs, command = copy
    whole = (runs / TEACHER / name).read_bytes()
    (runs / TEACHER / name).write_bytes(whole[: len(whole) // 2])
    assert command("--mode", "stu", "--overwrite") == 2
    line = capsys.readouterr().err.strip()
    assert f"{name} is not a readable safetensors file" in line
    assert "\n" not in line


@pytest.mark.parametrize("mode", ["tea", "stu"])
def test_an_interrupted_stage_continues_to_the_same_files(
    copy: tuple[Path, Callable[..., int]], finished: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    runs, command = copy
    place = runs / (TEACHER if mode == "tea" else STUDENT)
    update = steps_of.update

    def interrupted(*args: Any) -> Any:
        if args[-2].epoch == 2:  # the step, before what shows a method other rows
            raise KeyboardInterrupt
        return update(*args)

    with monkeypatch.context() as broken:
        broken.setattr(steps_of, "update", interrupted)
        assert command("--mode", mode, "--overwrite", "--set", "train.checkpoint_every=2") == 130
    assert {f.name for f in place.iterdir()} == {"config.json", "checkpoint.safetensors"}
    assert command("--mode", mode) == 2, "an unfinished run is neither lost nor continued unasked"
    assert command("--mode", mode, "--resume") == 0
    assert not (place / "checkpoint.safetensors").exists()
    whole = finished / "runs" / place.relative_to(runs)
    for file in place.iterdir():
        if file.suffix in (".safetensors", ".jsonl", ".png"):
            assert file.read_bytes() == (whole / file.name).read_bytes(), file.name
