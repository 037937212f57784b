"""Ready logits instead of a teacher: what is read, what is refused, and that the laws of runs hold for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gnnkd
from gnnkd import logits
from gnnkd.config import parse
from gnnkd.data.graphs import load
from gnnkd.data.task import task
from gnnkd.errors import UserError
from gnnkd.logits import read
from gnnkd.main import main
from gnnkd.train import whole as steps_of
from gnnkd.train.fit import Fit

N, C = 180, 3
FAST = ["--device", "cpu", "--set", "train.epochs=4", "student.width=8"]


def _arrays() -> dict[str, np.ndarray]:
    """A planted partition with masks; the last ten nodes hang together only with each other."""
    rng, y = np.random.default_rng(0), np.arange(N) % C
    a, b = rng.integers(0, N - 10, (2, 8 * N))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    ring = np.stack([np.arange(N - 10, N), np.roll(np.arange(N - 10, N), 1)])
    x = rng.random((N, 12)) + (np.arange(12) % C == y[:, None])
    masks = {f"{part}_mask": np.minimum(np.arange(N) // 30, 2) == i for i, part in enumerate(("train", "val", "test"))}
    edges = np.concatenate([np.stack([a, b])[:, near], ring], axis=1)
    return {"edge_index": edges, "x": x.astype(np.float32), "y": 10 * y, **masks}


def _logits(noise: float = 1.0) -> np.ndarray:
    """Those of a teacher that is right most of the time."""
    return 2 * np.eye(C)[np.arange(N) % C] + noise * np.random.default_rng(1).normal(size=(N, C))


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., int]:
    """A command on the graph with the array in `teacher.npy`, or another one."""
    np.savez(tmp_path / "toy.npz", **_arrays())
    np.save(tmp_path / "teacher.npy", _logits())

    def run(*more: str, file: Any = "teacher.npy") -> int:
        fixed = ["--dataset", str(tmp_path / "toy.npz"), "--out", str(tmp_path / "runs"), *FAST]
        return main([*fixed, "--teacher_logits", str(tmp_path / file), "--method", "kd", *more])

    return run


def _fails(capsys: pytest.CaptureFixture[str], run: Callable[..., int], *more: str, **named: Any) -> str:
    capsys.readouterr()
    assert run(*more, **named) == 2
    line = capsys.readouterr().err
    assert line.startswith("gnnkd: error: ")
    assert line.count("\n") == 1
    return line


def _place(folder: Path, protocol: str = "given-tran", method: str = "kd", seed: int = 0) -> Path:
    return folder / "runs" / "toy" / protocol / "logits" / "mlp" / method / f"seed{seed}"


# -- a run -------------------------------------------------------------------------------------------------------


def test_a_student_is_trained_and_no_teacher(
    tmp_path: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    run = Fit.run
    name = lambda fit: type(fit.course.distiller).__name__  # noqa: E731
    monkeypatch.setattr(Fit, "run", lambda self, *a: (trained.append(name(self)), run(self, *a))[1])
    assert command() == 0
    assert trained == ["Kd"]
    files = {f.relative_to(tmp_path / "runs").as_posix() for f in (tmp_path / "runs").rglob("*") if f.is_file()}
    place = "toy/given-tran/logits/mlp/kd"
    kept = {f"{place}/seed0/{name}" for name in ("model.safetensors", "config.json", "result.json", "metrics.jsonl")}
    assert files == kept | {f"{place}/seed0/curves.png", f"{place}/summary.json"}
    result = json.loads((_place(tmp_path) / "result.json").read_text())
    assert (result["teacher_model"], result["student_model"], result["method"]) == ("logits", "mlp", "kd")
    assert result["config"]["teacher"] == {"teacher_model": "logits", "sha256": read(tmp_path / "teacher.npy").digest}
    test, y = _arrays()["test_mask"], np.arange(N) % C
    assert result["teacher_test_acc"] == pytest.approx((_logits().argmax(1) == y)[test].mean())
    assert "logits -> mlp, kd" in capsys.readouterr().out


def test_the_students_lesson_is_the_array(tmp_path: Path, command: Callable[..., int]) -> None:
    """A trained teacher's logits, written to a file, teach what the teacher teaches."""
    fixed = ["--dataset", str(tmp_path / "toy.npz"), "--out", str(tmp_path / "runs"), *FAST]
    taught = ["teacher.width=8", "teacher.layers=2", "teacher.epochs=40", "teacher.lr=0.05"]
    assert main([*fixed, *taught, "--method", "kd"]) == 0
    network = gnnkd.load(tmp_path / "runs" / "toy" / "given-tran" / "gcn" / "teacher" / "seed0")
    data = task(load(tmp_path / "toy.npz"), seed=0)
    np.save(tmp_path / "ready.npy", network.logits(data.x, data.graph).numpy())
    assert command(file="ready.npy") == 0
    same = tmp_path / "runs" / "toy" / "given-tran" / "gcn" / "mlp" / "kd" / "seed0"
    one, other = (gnnkd.load(folder).network.state_dict() for folder in (same, _place(tmp_path)))
    assert all(torch.allclose(t, other[name], atol=1e-5) for name, t in one.items())


def test_rows_are_those_of_the_file_not_of_the_component(tmp_path: Path, command: Callable[..., int]) -> None:
    """`cpf` leaves nodes out, and draws others for each seed; the array has a row for every node of the file."""
    arrays = _arrays()
    order = np.concatenate([np.arange(N - 10, N), np.arange(N - 10)])  # what hangs apart comes first
    place = np.argsort(order)
    moved = {name: a[order] for name, a in arrays.items() if name in ("x", "y")}
    np.savez(tmp_path / "toy.npz", **moved, edge_index=place[arrays["edge_index"]])
    np.save(tmp_path / "moved.npy", _logits()[order])
    assert command("--seeds", "2", file="moved.npy") == 0
    assert (_place(tmp_path, "cpf-tran").parent / "summary.json").exists()
    data = task(load(tmp_path / "toy.npz"), seed=1)
    assert data.n_nodes <= N - 10
    want = torch.from_numpy(_logits()[order]).float()[data.index]
    torch.testing.assert_close(read(tmp_path / "moved.npy").on(data), want)


def test_under_the_inductive_setting_observed_rows_teach(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--setting", "ind") == 0
    place = _place(tmp_path, "given-ind")
    data, y = task(load(tmp_path / "toy.npz"), seed=0, setting="ind"), np.arange(N) % C
    assert data.whole is not None
    hits = _logits().argmax(1) == y
    tran, ind = hits[data.index[data.split.test]].mean(), hits[data.whole.index[data.whole.unseen]].mean()
    result = json.loads((place / "result.json").read_text())
    assert result["teacher_test_acc_tran"] == pytest.approx(tran)
    assert result["teacher_test_acc_ind"] == pytest.approx(ind)
    assert result["teacher_test_acc"] == pytest.approx(0.8 * tran + 0.2 * ind)
    assert "teacher_test_acc_cold" not in result
    assert "test_acc_cold" in result
    model = (place / "model.safetensors").read_bytes()
    changed = _logits()
    changed[data.whole.index[data.whole.unseen]] = 7
    np.save(tmp_path / "teacher.npy", changed)
    assert command("--setting", "ind", "--overwrite") == 0
    assert (place / "model.safetensors").read_bytes() == model, "rows of unseen nodes teach nothing"


# -- the laws of places ------------------------------------------------------------------------------------------


def test_a_finished_run_is_reused_and_another_array_is_a_conflict(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    assert command("--mode", "stu") == 0
    assert "reused" in capsys.readouterr().out
    before = (_place(tmp_path) / "result.json").read_bytes()
    np.save(tmp_path / "other.npy", _logits(noise=0.5))
    line = _fails(capsys, command, file="other.npy")
    assert "another configuration: teacher.sha256 is" in line
    assert "--tag" in line
    assert (_place(tmp_path) / "result.json").read_bytes() == before
    assert command("--tag", "sure", file="other.npy") == 0
    assert _place(tmp_path, method="kd@sure").is_dir()
    assert command("--overwrite", file="other.npy") == 0
    assert (_place(tmp_path) / "result.json").read_bytes() != before


def test_the_same_values_in_another_file_are_the_same_array(tmp_path: Path, command: Callable[..., int]) -> None:
    single = _logits().astype(np.float32)
    forms = {"double": single.astype(np.float64), "turned": np.asfortranarray(single), "big": single.astype(">f4")}
    for name, array in {"single": single, **forms}.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert read(tmp_path / f"{name}.npy").digest == read(tmp_path / "single.npy").digest
        assert command("--quiet", file=f"{name}.npy") == 0


def test_an_interrupted_run_continues_to_the_same_files(
    tmp_path: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    whole = (_place(tmp_path) / "model.safetensors").read_bytes()
    update = steps_of.update

    def interrupted(*args: Any) -> Any:
        if args[-2].epoch == 2:  # the step, before what shows a method other rows
            raise KeyboardInterrupt
        return update(*args)

    with monkeypatch.context() as broken:
        broken.setattr(steps_of, "update", interrupted)
        assert command("--overwrite", "--set", "train.checkpoint_every=2") == 130
    assert "--resume" in _fails(capsys, command)
    np.save(tmp_path / "other.npy", _logits(noise=0.5))
    assert "teacher.sha256" in _fails(capsys, command, "--resume", file="other.npy")
    assert command("--resume") == 0
    assert (_place(tmp_path) / "model.safetensors").read_bytes() == whole


# -- flags -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--teacher-logits", "--Teacher_Logits", "--set"])
def test_it_is_said_as_other_flags_are(tmp_path: Path, flag: str) -> None:
    np.save(tmp_path / "t.npy", _logits())
    file = str(tmp_path / "t.npy")
    said = [flag, f"teacher_logits={file}"] if flag == "--set" else [flag, file]
    config = parse([*said, "--method", "glnn"]).config
    assert config.teacher_model == "logits"
    assert config.logits is not None
    assert (config.logits.where, config.generators) == (file, None)


def test_it_may_stand_in_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", _logits())
    (tmp_path / "run.yml").write_text(f"teacher-logits: {tmp_path / 't.npy'}\nmethod: glnn\ntrain: {{width: 4}}\n")
    config = parse(["--config", str(tmp_path / "run.yml")]).config
    assert config.teacher_model == "logits"
    assert config.student["width"] == 4


def _say(folder: Path, text: str) -> list[str]:
    np.save(folder / "t.npy", _logits())
    (folder / "run.yml").write_text(text.replace("FILE", str(folder / "t.npy")))
    return ["--config", str(folder / "run.yml"), "--method", "glnn"]


@pytest.mark.parametrize("flag", [["--teacher_logits"], ["--set"]])
def test_ready_logits_beat_a_files_teacher(tmp_path: Path, flag: list[str]) -> None:
    """With its options, which nothing is left to take; what is set for both stages still reaches the student."""
    said = _say(tmp_path, "teacher: {name: gat, heads: 4, width: 16}\ntrain: {epochs: 7, width: 9}\n")
    file = str(tmp_path / "t.npy")
    config = parse([*said, *flag, f"teacher_logits={file}" if flag == ["--set"] else file]).config
    assert config.teacher_model == "logits"
    assert (config.student_train.epochs, config.student["width"]) == (7, 9)


def test_a_teacher_beats_a_files_ready_logits(tmp_path: Path) -> None:
    said = _say(tmp_path, "teacher_logits: FILE\nteacher: {width: 16}\ntrain: {epochs: 7}\n")
    for more in (["--teacher", "sage"], ["--set", "teacher=sage"], ["--set", "teacher_model=sage"]):
        config = parse([*said, *more]).config
        assert (config.teacher_model, config.logits) == ("sage", None)
        assert (config.teacher["width"], config.teacher_train.epochs) == (16, 7)


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("teacher_logits: FILE\nteacher_model: gat\n", [], "--teacher_logits and --teacher_model gat contradict"),
        ("teacher_logits: FILE\nteacher: {width: 3}\n", [], "teacher.width: ready logits need no teacher's training"),
        ("teacher_logits: FILE\n", ["--set", "teacher.width=3"], "teacher.width: ready logits need no teacher's"),
        ("seed: 1\n", ["--set", "teacher=gat", "teacher_logits=t.npy"], "contradict each other"),
    ],
)
def test_one_source_may_not_say_both(tmp_path: Path, text: str, more: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse([*_say(tmp_path, text), *more])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--mode", "tea"], "--mode tea trains a teacher, and --teacher_logits stands for one"),
        (["--teacher", "gcn"], "--teacher_logits and --teacher_model gcn contradict"),
        (["--set", "teacher.width=3"], "teacher.width: ready logits need no teacher's training; leave it out"),
        (["--method", "dgd"], "dgd learns from generators.*with ready logits use the method glnn, or train a teacher"),
        (["--method", "dgd", "--student", "gcn"], "use the method kd"),
        (["--method", "krd"], "krd asks its teacher about other features, and ready logits cannot answer; use glnn"),
        (["--method", "fitnet"], "fitnet reads a teacher's features, and ready logits have none; use glnn"),
        (["--set", "train.widht=3"], "did you mean 'train.width'"),
        (["--mode", "stu", "--set", "student.lrr=3"], "did you mean 'student.lr'"),
    ],
)
def test_contradictions_end_in_one_line(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    import re

    assert re.search(said, _fails(capsys, command, *more))
    assert not (tmp_path / "runs").exists()


# -- what an array must be ---------------------------------------------------------------------------------------


def _bad_files(folder: Path) -> dict[str, str]:
    """Files that hold no logits, and what is said about them."""
    np.save(folder / "whole.npy", _logits())
    content = (folder / "whole.npy").read_bytes()
    (folder / "text.npy").write_text("0.1,0.2,0.7\n")
    (folder / "empty.npy").write_bytes(b"")
    (folder / "cut.npy").write_bytes(content[: len(content) // 2])
    (folder / "head.npy").write_bytes(content[:8])
    (folder / "folder.npy").mkdir()
    np.savez(folder / "many.npz", a=_logits())
    # Written with pickled objects, so that reading can be seen to refuse them.
    np.save(folder / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "classes.npy", np.arange(N) % C)
    np.save(folder / "whole_numbers.npy", _logits().astype(int))
    np.save(folder / "nan.npy", np.where(np.arange(N)[:, None] == 5, np.nan, _logits()))
    np.save(folder / "huge.npy", 1e300 * _logits())
    np.save(folder / "short.npy", _logits()[:-9])
    np.save(folder / "wide.npy", np.pad(_logits(), ((0, 0), (0, 1))))
    np.save(folder / "mixed.npy", _logits()[np.random.default_rng(3).permutation(N)])
    return {
        "nowhere.npy": "nowhere.npy cannot be read (No such file",
        "text.npy": "is not an .npy file; write the array alone, with numpy.save",
        "empty.npy": "is not an .npy file",
        "cut.npy": "is damaged; it must hold one array",
        "head.npy": "is damaged; it must hold one array",
        "folder.npy": "cannot be read (Is a directory)",
        "many.npz": "is not an .npy file",
        "pickled.npy": "holds pickled objects",
        "classes.npy": "has shape [180]; it must be logits [N, C]",
        "whole_numbers.npy": "is of type int64; logits must be floating point",
        "nan.npy": "nan.npy[5, 0] is nan; logits must be finite",
        "huge.npy": "logits must be finite",
        "short.npy": "has 171 rows; the data has 180 nodes",
        "wide.npy": "has 4 columns; the data has 3 classes",
        "mixed.npy": "of the training labels, as chance would: are its rows in the node order of the data, and do its "
        "columns ascend by class?",
    }


def test_files_that_are_no_logits_end_in_one_line(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for file, said in _bad_files(tmp_path).items():
        assert said in _fails(capsys, command, file=file), file
    assert not (tmp_path / "runs" / "toy").exists()


def _task(train: int, share: float = 1 / C) -> Any:
    """A task of two or three classes with `train` training nodes, a share of which is of the first class."""
    arrays = _arrays()
    y = np.where(np.arange(N) < round(share * train), 0, 1) if share != 1 / C else np.arange(N) % C
    masks = {"train_mask": np.arange(N) < train, "val_mask": np.arange(N) == N - 1, "test_mask": np.arange(N) == N - 2}
    return y, task(gnnkd.data.graphs.from_arrays({**arrays, "y": y, **masks}), seed=0)


def test_only_training_labels_tell_the_order() -> None:
    """A teacher that is wrong on every other node is taken; labels outside training are not looked at."""
    y, data = _task(60)
    array = np.eye(C)[np.where(np.arange(N) < 60, y, (y + 1) % C)] + 0.0
    assert torch.equal(logits.of(array).on(data), torch.from_numpy(array).float())
    with pytest.raises(UserError, match="agrees with only 0% of the training labels"):
        logits.of(np.eye(C)[np.where(np.arange(N) < 60, (y + 1) % C, y)]).on(data)


def test_chance_is_the_share_of_the_largest_class() -> None:
    """Always the largest class is right for 80 % here and knows nothing; 95 % is not chance."""
    y, data = _task(100, share=0.8)
    with pytest.raises(UserError, match="agrees with only 80%"):
        logits.of(np.eye(2)[np.zeros(N, dtype=int)]).on(data)
    mostly = np.where(np.arange(N) % 20 == 0, 1 - y, y)
    logits.of(np.eye(2)[mostly]).on(data)


def test_where_chance_cannot_be_excluded_nothing_is_said() -> None:
    y, data = _task(4)
    logits.of(np.eye(C)[(y + 1) % C]).on(data)


def test_probabilities_are_taken_with_a_note() -> None:
    found = logits.of(np.full((4, 2), 0.5))
    assert "log(p)" in found.notes[0]
    assert logits.of(_logits()).notes == ()


@pytest.mark.parametrize("wrong", [0, 15, 30])
def test_a_note_tells_the_agreement_with_the_training_labels(wrong: int) -> None:
    """Of them alone: elsewhere these logits are always wrong."""
    y, data = _task(60)
    array = np.eye(C)[np.where((np.arange(N) >= wrong) & (np.arange(N) < 60), y, (y + 1) % C)]
    told = f"teacher agrees with {100 - 100 * wrong // 60}% of the training labels"
    assert logits.of(5 * array).notes_on(data) == (told,)
    assert logits.of(array).notes_on(data)[0] == told
    assert "log(p)" in logits.of(array).notes_on(data)[1]
    done = gnnkd.distill(_data(), teacher=_logits(), method="glnn", device="cpu", quiet=True)
    known = _arrays()["train_mask"]
    share = (_logits().argmax(1) == np.arange(N) % C)[known].mean()
    assert f"teacher agrees with {share:.0%} of the training labels" in done.notes


# -- the library -------------------------------------------------------------------------------------------------


def _data() -> Any:
    from torch_geometric.data import Data

    return Data(**{name: torch.from_numpy(array) for name, array in _arrays().items()})


@pytest.mark.parametrize("form", ["array", "single", "tensor", "half", "gradient"])
def test_the_library_takes_any_array(form: str) -> None:
    array = _logits()
    tensor = torch.from_numpy(array)
    forms: dict[str, Any] = {"array": array, "single": array.astype(np.float32), "tensor": tensor}
    forms |= {"half": tensor.to(torch.bfloat16), "gradient": tensor.clone().requires_grad_()}
    done = gnnkd.distill(_data(), teacher=forms[form], method="glnn", device="cpu", quiet=True)
    assert done.teacher is None
    assert done.test_acc > 0.6
    assert done.teacher_test_acc > 0.6
    assert (tensor.numpy() == _logits()).all()


def test_the_library_learns_what_the_command_does(tmp_path: Path, command: Callable[..., int]) -> None:
    assert command("--setting", "ind") == 0
    options = {"train": {"epochs": 4}, "student": {"width": 8}}
    named: dict[str, Any] = {"method": "kd", "setting": "ind", "options": options, "device": "cpu", "quiet": True}
    done = gnnkd.distill(_data(), teacher=_logits(), **named)
    result = json.loads((_place(tmp_path, "given-ind") / "result.json").read_text())
    assert done.scores == {name: result[name] for name in done.scores}


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (np.zeros((3, 3)), "teacher has 3 rows; the data has 180 nodes"),
        (np.zeros(N), r"teacher has shape \[180\]"),
        (np.zeros((N, C), dtype=int), "teacher is of type int64"),
        (torch.zeros(N, C, dtype=torch.long), r"teacher is of type torch.int64"),
        (_logits()[::-1], "agrees with only"),
    ],
)
def test_mistakes_are_answered_in_a_line(teacher: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        gnnkd.distill(_data(), teacher=teacher, method="glnn", device="cpu", quiet=True)
