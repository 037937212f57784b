"""`python -m gnnkd.together`: places, files, resume, weights, and mistakes in one line."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import gnnkd
from gnnkd import report
from gnnkd.errors import UserError
from gnnkd.ktg import places, presets, stages
from gnnkd.ktg.plans import planned
from gnnkd.ktg.spec import Spec
from gnnkd.main import main as run_main
from gnnkd.together import main, overruled
from gnnkd.train import checkpoint
from gnnkd.train.progress import Silent

SMALL = {"model": "cnn_small", "options": {"width": 4}}
THREE: dict[str, Any] = {
    "dataset": "digits",
    "nodes": [SMALL, {"model": "cnn", "options": {"width": 4}}, SMALL],
    "gates": [["through", "positive", "through"], ["cutoff"] * 3, ["negative", "correct", "through"]],
    "edges": {"0<-1": {"method": "gkd"}},
    "train": {"epochs": 2, "batch_size": 256},
}
FAST = ["--set", "train.epochs=2", "train.batch_size=256"]
PLACE = Path("digits/random-tran/together/three/seed0")


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gnnkd.images.results.draw", "gnnkd.results.draw", "gnnkd.ktg.history.draw"):
        monkeypatch.setattr(module, lambda *_, **__: None)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return _written(tmp_path / "three.yaml", THREE)


def _written(file: Path, tree: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(tree))
    return file


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _fails(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("gnnkd: error: ")
    assert error.count("\n") == 1
    return error


def test_a_graph_of_images_leaves_its_files_and_is_reused(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(three), "--out", str(out)]) == 0
    there = out / PLACE
    files = {
        "config.json",
        "graph.png",
        "graph.svg",
        "metrics.jsonl",
        "result.json",
        *(f"node{i}.safetensors" for i in range(3)),
    }
    assert {file.name for file in there.iterdir()} == files
    result = _json(there / "result.json")
    assert (result["method"], result["student_model"], result["teacher_model"]) == (
        "together",
        "cnn_small",
        "cnn+cnn_small",
    )
    assert [one["frozen"] for one in result["nodes"]] == [False, True, False]
    assert result["test_acc"] == result["nodes"][0]["test_acc"]
    assert Spec.of(result["graph"]) == Spec.of(THREE)
    teacher = out / "digits/random-tran/cnn/teacher/seed0"
    assert torch.equal(
        gnnkd.load(there / "node1.safetensors").network.state_dict()["fc.weight"],
        gnnkd.load(teacher).network.state_dict()["fc.weight"],
    ), "what was trained alone stays as it is"
    assert result["nodes"][1]["test_acc"] == _json(teacher / "result.json")["test_acc"]
    assert _json(there.parent / "summary.json")["mean"] == result["test_acc"]
    before = (there / "result.json").read_bytes()
    assert main([str(three), "--out", str(out)]) == 0
    assert "is finished, with the same configuration: reused" in capsys.readouterr().out
    assert (there / "result.json").read_bytes() == before
    error = _fails(capsys, [str(three), "--out", str(out), "--set", "gates.0.1=negative"])
    assert 'edges.0<-1.gate is "positive" there and "negative" here; choose a --tag' in error
    assert report.main([str(out)]) == 0
    assert "together: three" in capsys.readouterr().out


def test_an_interrupted_graph_continues_to_the_same_bits(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the first epoch is what is left; the second run goes on from there."""
    from gnnkd.train.fit import Fit

    flags = [str(three), "--set", "train.checkpoint_every=1"]
    assert main([*flags, "--out", str(tmp_path / "whole")]) == 0
    save = Fit.save

    def stopped(fit: Fit) -> None:
        save(fit)
        if "together" in str(fit.file):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "save", stopped)
        assert main([*flags, "--out", str(tmp_path / "broken")]) == 130
    error = _fails(capsys, [*flags, "--out", str(tmp_path / "broken")])
    assert "continue it with --resume" in error
    assert main([*flags, "--out", str(tmp_path / "broken"), "--resume"]) == 0
    for name in ("node0.safetensors", "node1.safetensors", "node2.safetensors", "metrics.jsonl", "graph.svg"):
        assert (tmp_path / "whole" / PLACE / name).read_bytes() == (tmp_path / "broken" / PLACE / name).read_bytes()


def test_a_network_that_was_interrupted_alone_continues_in_its_place(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a tag has room for another one."""
    from gnnkd.train.fit import Fit

    flags = [str(three), "--set", "train.checkpoint_every=1", "--out", str(tmp_path), "--tag", "x"]
    save = Fit.save

    def stopped(fit: Fit) -> None:
        save(fit)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "save", stopped)
        assert main(flags) == 130
    folder = tmp_path / "digits/random-tran/cnn"
    assert [file.parent.parent.name for file in folder.rglob("checkpoint.safetensors")] == ["teacher"]
    assert "teacher/seed0 holds an unfinished run" in _fails(capsys, flags)
    assert main([*flags, "--resume"]) == 0
    assert [file.parent.parent.name for file in folder.rglob("result.json")] == ["teacher"]


@pytest.mark.parametrize(
    ("dataset", "teacher", "student", "flags"),
    [("digits", "cnn", "cnn_small", FAST), ("digits-graph", "gcn", "mlp", ["--set", "train.epochs=3"])],
)
def test_a_student_and_its_teacher_are_the_method_kd(
    tmp_path: Path, dataset: str, teacher: str, student: str, flags: list[str]
) -> None:
    """Bit for bit; the teacher that the graph trains is the one that the other command finds."""
    common = ["--dataset", dataset, "--out", str(tmp_path), *flags]
    assert main(["--preset", "kd", "--models", f"{student},{teacher}", *common]) == 0
    assert run_main(["--teacher", teacher, "--student", student, "--method", "kd", "--mode", "stu", *common]) == 0
    (node,), (plain,) = (
        tmp_path.rglob("together/kd/seed0/node0.safetensors"),
        tmp_path.rglob("kd/seed0/model.safetensors"),
    )
    for name, t in checkpoint.load(plain)[0].items():
        torch.testing.assert_close(checkpoint.load(node)[0][name], t, rtol=0, atol=0)


def test_gcn_sage_and_mlp_teach_each_other(tmp_path: Path) -> None:
    flags = ["--dataset", "digits", "--setting", "ind", "--set", "train.epochs=3", "--out", str(tmp_path)]
    assert main(["--preset", "dml", "--models", "mlp,gcn,sage", *flags, "--tag", "few"]) == 0
    (file,) = tmp_path.rglob("result.json")
    assert file.relative_to(tmp_path).as_posix() == "digits/cpf-ind/together/dml@few/seed0/result.json"
    result = _json(file)
    assert [one["model"] for one in result["nodes"]] == ["mlp", "gcn", "sage"]
    assert all({"test_acc_tran", "test_acc_ind", "test_acc_cold"} <= one.keys() for one in result["nodes"])
    row = json.loads((file.parent / "metrics.jsonl").read_text().splitlines()[0])
    assert {"node0/ce", "node0/from1/kd", "node2/from0/kd", "val_acc", "val_acc_1", "val_acc_2"} <= row.keys()


def test_weights_are_of_the_seed_the_network_and_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path), *FAST]
    assert (
        run_main(["--dataset", "digits", "--teacher", "cnn", "--mode", "tea", "--seeds", "2", *out, "teacher.width=4"])
        == 0
    )
    trained = f"{tmp_path}/digits/random-tran/cnn/teacher/seed"
    tree = THREE | {"nodes": [SMALL, {"model": "cnn", "weights": trained + "{seed}"}, SMALL]}
    file = _written(tmp_path / "weighed.yaml", tree)
    assert main([str(file), "--seeds", "2", *out]) == 0
    folder = tmp_path / "digits/random-tran/together/weighed"
    assert _json(folder / "summary.json")["n"] == 2
    assert _json(folder / "seed1/config.json")["nodes"]["1"]["weights"]["run"]["seed"] == 1
    error = _fails(capsys, [str(file), *out, f"nodes.1.weights={trained}1", "--tag", "x"])
    assert "node 1: " in error
    assert "another split than that of seed 0" in error
    error = _fails(capsys, [str(file), *out, f"nodes.1.weights={folder}/seed0/node0.safetensors", "--tag", "x"])
    assert "are of the network cnn_small, and the node is a cnn" in error
    assert "width is 8, and 4 in its weights" in _fails(
        capsys, [str(file), *out, "nodes.1.options.width=8", "--tag", "x"]
    )
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(f"{trained}1/model.safetensors").read_bytes())
    assert main([str(file), *out, f"nodes.1.weights={copy}", "--tag", "copy"]) == 0
    assert "may have been trained on what validates or tests here" in capsys.readouterr().out
    for seed in (0, 1):
        (tmp_path / f"copy{seed}.safetensors").write_bytes(Path(f"{trained}{seed}/model.safetensors").read_bytes())
    of_seeds = ["--seeds", "2", f"nodes.1.weights={tmp_path}/copy{{seed}}.safetensors", "--tag", "copies"]
    assert main([str(file), *of_seeds[:2], *out, *of_seeds[2:]]) == 0
    copies = tmp_path / "digits/random-tran/together/weighed@copies"
    assert _json(copies / "summary.json")["n"] == 2, "seeds of one configuration"
    assert [len(row.results) for row in report.rows(copies)] == [2]
    gnnkd.load(copies / "seed0")
    assert main([str(file), *out, f"nodes.0.weights={copies}/seed0", "nodes.0.options={}", "--tag", "on"]) == 0
    assert _json(copies.parent / "weighed@on/seed0/config.json")["nodes"]["0"]["weights"]["file"] == "node0.safetensors"


def test_mistakes_are_said_before_anything_is_written(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for argv, words in (
        ([], "no graph is named"),
        ([str(three), "--preset", "dml"], "a file and --preset are two graphs"),
        (["--preset", "dlm", "--models", "cnn,cnn"], "did you mean 'dml'"),
        (["--preset", "dml"], "the models are none"),
        ([str(three), "--models", "cnn"], "--models is of a preset"),
        ([str(three), "--resume", "--overwrite"], "give one of them"),
        ([str(three), "--tags", "a"], "did you mean 'tag'"),
        ([str(tmp_path / "no.yaml")], "cannot be read"),
        ([str(three), "--set", "gates.3.0=through"], "3 is none of the 3 there"),
        ([str(three), "--set", "nodes.1.train.epochs=3", "nodes.1.train.lr=0"], "node 1: "),
        ([str(three), "--set", "train.patience=-1"], "patience is -1"),
        ([str(three), "--set", "edges.0<-1.method=fitnet", "edges.0<-1.hint=9"], "hint is 9"),
        (
            [str(three), "--set", "train.cache_teacher=true", "edges.0<-1={method: at}"],
            "of node 1 features are read too",
        ),
    ):
        assert words in _fails(capsys, [*argv, *out]), argv
    assert not (tmp_path / "out").exists()


def test_what_is_set_beats_the_file() -> None:
    tree = {"nodes": ["a", {"model": "b", "train": {"lr": 1, "epochs": 2}}], "train": {"lr": 3}}
    found = overruled(overruled(tree, "train.lr=0.5"), "nodes.0.model=c")
    assert found["train"] == {"lr": 0.5}
    assert found["nodes"] == [{"model": "c"}, {"model": "b", "train": {"epochs": 2}}]
    assert overruled(tree, "edges.0<-1.factor=2")["edges"] == {"0<-1": {"factor": 2}}
    assert tree["train"] == {"lr": 3}, "and leaves it as it is"


# -- without files -------------------------------------------------------------------------------------------------


def _task(spec: Spec) -> Any:
    plan = planned(spec, 0).first
    return plan.task(plan.load(None), 0)


def test_scores_are_reported_and_a_report_may_end_the_training() -> None:
    spec = Spec.of(THREE)
    told: list[tuple[int, float]] = []
    reached = stages.run(_task(spec), spec, Silent(), report=lambda epoch, score: told.append((epoch, score)))
    assert [epoch for epoch, _ in told] == [0, 1]
    assert reached.score == max(score for _, score in told)

    def enough(*_: object) -> None:
        raise RuntimeError("pruned")

    with pytest.raises(RuntimeError, match="pruned"):
        stages.run(_task(spec), spec, Silent(), report=enough)


def test_validation_rows_train_where_nothing_is_left_to_choose() -> None:
    spec = Spec.of(presets.dml(["mlp", "gcn"]) | {"train": {"epochs": 3}})
    task = _task(spec)
    reached = stages.run(task, spec, Silent(), retrain=True)
    assert reached.score is None
    assert [best.epoch for best in reached.bests] == [2, 2], "the last epoch"
    assert int(reached.task.split.train.sum()) == int((task.split.train | task.split.val).sum())
    assert not bool((reached.task.split.train & task.split.test).any())


@pytest.mark.parametrize("retrain", [False, True])
def test_labels_of_test_rows_change_nothing(retrain: bool) -> None:
    spec = Spec.of(
        presets.dml(["mlp", "gcn"])
        | {"gates": [["through", "correct"], ["positive", "through"]], "train": {"epochs": 3}}
    )
    task = _task(spec)
    y = task.y.clone()
    y[task.split.test] = (y[task.split.test] + 1) % task.n_classes
    one, other = (stages.run(t, spec, Silent(), retrain=retrain) for t in (task, replace(task, y=y)))
    for a, b in zip(one.bests, other.bests, strict=True):
        assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


# -- TensorBoard ---------------------------------------------------------------------------------------------------

THERE = importlib.util.find_spec("tensorboard") is not None


@pytest.mark.skipif(THERE, reason="tensorboard is installed")
def test_without_tensorboard_the_extra_is_named(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "pip install 'gnnkd[log]'" in _fails(capsys, [str(three), "--tensorboard"])


@pytest.mark.skipif(not THERE, reason="tensorboard is not installed (extra log)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_every_scalar_of_every_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = ["--dataset", "digits", "--set", "train.epochs=3", "--out", str(tmp_path), "--tensorboard"]
    assert main(["--preset", "dml", "--models", "mlp,gcn", *flags]) == 0
    (folder,) = tmp_path.rglob("tensorboard")
    read = EventAccumulator(str(folder)).Reload()
    rows = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    for name in rows[0].keys() - {"epoch"}:
        assert [e.value for e in read.Scalars(name)] == pytest.approx([row[name] for row in rows])


def test_a_wrong_file_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="a name that no folder can have"):
        places.named(Path("....yaml"))
    assert places.named(Path("a/my graph (2).yaml")) == "my_graph_2"
