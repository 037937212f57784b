"""What a command does: exit codes, places, reuse, and what it says. Only the last tests really train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnkd.main import main
from gnnkd.places import Place
from gnnkd.train.checkpoint import write_json

ROOT = Path(__file__).parents[1]
TINY = ["--set", "train.epochs=3", "teacher.width=8", "student.width=8"]


def _graph(folder: Path, name: str = "toy") -> Path:
    """A graph of two classes on a ring with masks."""
    rng, n = np.random.default_rng(0), 60
    y = np.arange(n) % 2
    ring = np.stack([np.arange(n), (np.arange(n) + 2) % n])
    masks = {f"{part}_mask": np.arange(n) // 20 == i for i, part in enumerate(("train", "val", "test"))}
    file = folder / f"{name}.npz"
    np.savez(file, edge_index=ring, x=rng.normal(size=(n, 4)) + y[:, None], y=y, **masks)
    return file


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stages that write a result instead of training; the list of places they ran in."""
    ran: list[Path] = []

    def stage(task: Any, config: Any, place: Place, *, resume: bool, progress: Any) -> dict[str, Any]:
        ran.append(place.folder)
        named = {"dataset": task.name, "protocol": task.protocol, "setting": task.setting}
        named |= {"teacher_model": config.teacher_model, "base": config.base, "seed": task.seed}
        student = place.teacher is not None
        named |= {"student_model": config.student_model if student else None}
        named |= {"method": config.method if student else "teacher"}
        score = {"test_acc": 0.5 + task.seed / 10, "val_acc": 0.5, "seconds": 1.0, "n_parameters": 7}
        result = named | score | {"config": json.loads(place.config.read_text())}
        write_json(place.result, result)
        return result

    monkeypatch.setattr("gnnkd.api.run_teacher", stage)
    monkeypatch.setattr("gnnkd.api.run_student", stage)
    return ran


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """A command on a small graph, writing below the test's folder."""
    return ["--dataset", str(_graph(tmp_path)), "--out", str(tmp_path / "runs"), "--method", "glnn"]


def _branch(folder: Path) -> Path:
    return folder / "runs" / "toy" / "given-tran" / "gcn"


def _fails(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line of a command that must fail with exit code 2."""
    capsys.readouterr()
    assert main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("gnnkd: error: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_both_stages_land_in_the_places_of_the_contract(tmp_path: Path, base: list[str], trained: list[Path]) -> None:
    assert main(base) == 0
    branch = _branch(tmp_path)
    assert trained == [branch / "teacher" / "seed0", branch / "mlp" / "glnn" / "seed0"]
    assert main([*base, "--method", "dgd", "--mode", "stu"]) == 0
    assert main([*base, "--method", "dgd", "--mode", "stu", "--set", "method.base=kd", "--tag", "t"]) == 0
    assert trained[2:] == [branch / "mlp" / "dgd" / "seed0", branch / "mlp" / "dgd+kd@t" / "seed0"]


def test_a_finished_run_is_reused_and_overwrite_runs_it_again(
    base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(base) == 0
    assert main(base) == 0
    assert len(trained) == 2
    assert "reused" in capsys.readouterr().out
    assert main([*base, "--overwrite"]) == 0
    assert len(trained) == 4


def test_settings_without_influence_do_not_count(base: list[str], trained: list[Path]) -> None:
    assert main(base) == 0
    assert main([*base, "--set", "train.checkpoint_every=7", "--quiet", "--device", "cpu"]) == 0
    assert len(trained) == 2


def test_generators_concern_the_students_that_learn_from_them(base: list[str], trained: list[Path]) -> None:
    assert main([*base, "--set", "method.generators=false"]) == 0
    assert main([*base, "--mode", "tea", "--overwrite"]) == 0
    assert len(trained) == 3
    assert main([*base, "--mode", "stu"]) == 0
    assert len(trained) == 3
    assert main([*base[:-1], "dgd", "--mode", "stu"]) == 0
    assert len(trained) == 4
    config = [json.loads((folder / "config.json").read_text()) for folder in trained]
    assert [bool(one.get("teacher", {}).get("generators")) for one in config] == [False, False, False, True]
    # As runs of before say it: the description of a student that hears nothing of generators had them, too.
    config[1]["teacher"]["generators"] = {"lr": 1.0}
    write_json(trained[1] / "config.json", config[1])
    assert main([*base, "--mode", "stu"]) == 0
    assert len(trained) == 4


def test_another_configuration_in_an_occupied_place_is_refused(
    tmp_path: Path, base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(base) == 0
    before = (_branch(tmp_path) / "mlp" / "glnn" / "seed0" / "result.json").read_bytes()
    line = _fails(capsys, [*base, "--set", "student.lr=0.5"])
    assert "student.lr is 0.01 there and 0.5 here" in line
    assert "--tag" in line
    assert "--overwrite" in line
    assert (_branch(tmp_path) / "mlp" / "glnn" / "seed0" / "result.json").read_bytes() == before
    assert main([*base, "--set", "student.lr=0.5", "--tag", "fast"]) == 0
    assert trained[-1] == _branch(tmp_path) / "mlp" / "glnn@fast" / "seed0"
    assert len(trained) == 3, "the plain teacher is of equal configuration, so it is reused"


def test_a_tagged_teacher_serves_its_tag_only(tmp_path: Path, base: list[str], trained: list[Path]) -> None:
    branch = _branch(tmp_path)
    assert main([*base, "--mode", "tea"]) == 0
    assert main([*base, "--mode", "tea", "--tag", "wide", "--set", "teacher.width=300"]) == 0
    assert trained == [branch / "teacher" / "seed0", branch / "teacher@wide" / "seed0"]
    for tag, teacher in (("wide", 300), ("other", 256)):
        assert main([*base, "--mode", "stu", "--tag", tag]) == 0
        config = json.loads((branch / "mlp" / f"glnn@{tag}" / "seed0" / "config.json").read_text())
        assert config["teacher"]["teacher"]["width"] == teacher


def test_a_missing_teacher_is_named_with_the_command_that_makes_it(
    tmp_path: Path, base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    wish = ["--mode", "stu", "--seeds", "3", "--set", "teacher.width=32", "method.preset=paper", "--method", "dgd"]
    line = _fails(capsys, [*base, *wish])
    assert "seeds 0, 1, 2" in line
    command = line.split("python -m gnnkd.main ")[1].split()
    assert main(command) == 0
    assert main([*base, *wish]) == 0
    assert len(trained) == 6


def test_a_student_asking_for_another_teacher_is_refused(
    base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*base, "--mode", "tea"]) == 0
    line = _fails(capsys, [*base, "--mode", "stu", "--set", "teacher.width=32"])
    assert "teacher.width is 256 there and 32 here" in line
    line = _fails(capsys, [*base, "--mode", "stu", "--method", "dgd", "--set", "method.preset=paper"])
    assert "generators.preset" in line


def test_a_teacher_of_another_split_is_refused(
    tmp_path: Path, base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*base, "--mode", "tea"]) == 0
    config = _branch(tmp_path) / "teacher" / "seed0" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"fingerprint": "0" * 64}))
    assert "another split" in _fails(capsys, [*base, "--mode", "stu"])


def test_an_unfinished_run_wants_resume_or_overwrite(
    tmp_path: Path, base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*base, "--mode", "tea"]) == 0
    folder = _branch(tmp_path) / "teacher" / "seed0"
    (folder / "result.json").rename(folder / "checkpoint.safetensors")
    line = _fails(capsys, [*base, "--mode", "tea"])
    assert "--resume" in line
    assert "--overwrite" in line
    assert "--resume" in _fails(capsys, [*base, "--mode", "stu"])
    assert main([*base, "--mode", "tea", "--resume"]) == 0
    assert len(trained) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seed": 0'])
def test_a_damaged_result_is_named(
    tmp_path: Path, base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str], content: str
) -> None:
    assert main([*base, "--mode", "tea"]) == 0
    result = _branch(tmp_path) / "teacher" / "seed0" / "result.json"
    result.write_text(content)
    assert "result.json" in _fails(capsys, [*base, "--mode", "tea"])
    assert "result.json" in _fails(capsys, [*base, "--mode", "stu"])
    assert main([*base, "--mode", "tea", "--overwrite"]) == 0


def test_the_summary_is_over_the_seeds_of_one_configuration(
    tmp_path: Path, base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    summary = _branch(tmp_path) / "mlp" / "glnn" / "summary.json"
    assert main([*base, "--seed", "4"]) == 0
    assert json.loads(summary.read_text())["std"] is None
    assert main([*base, "--seeds", "3"]) == 0
    found = json.loads(summary.read_text())
    assert (found["n"], found["seeds"]) == (4, [0, 1, 2, 4])
    assert found["mean"] == pytest.approx(np.mean([0.5, 0.6, 0.7, 0.9]))
    assert found["std"] == pytest.approx(np.std([0.5, 0.6, 0.7, 0.9], ddof=1))
    assert "given-tran" in capsys.readouterr().out
    assert main([*base, "--seed", "0", "--overwrite", "--set", "student.lr=0.1"]) == 0
    assert json.loads(summary.read_text())["seeds"] == [0]


def test_places_that_cannot_be_written(
    tmp_path: Path, base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "below"):
        assert "is not a folder" in _fails(capsys, [*base, "--out", str(out)])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "toy").write_text("")
    assert "cannot be written" in _fails(capsys, base)
    assert trained == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path, base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    assert "cannot be written" in _fails(capsys, base)


@pytest.mark.parametrize(
    "argv",
    [
        ["--dataset", "coar"],
        ["--dataset", "nowhere.npz"],
        ["--mtehod", "kd"],
        ["--config", "nowhere.yml"],
        ["--split", "public"],
        ["--mode", "stu"],
        ["--set", "data.k=3"],
    ],
)
def test_mistakes_end_in_one_line(
    base: list[str], trained: list[Path], capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    _fails(capsys, [*base, *argv])
    assert trained == []


def test_cuda_that_is_not_there(base: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "use cpu or auto" in _fails(capsys, [*base, "--device", "cuda"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_in_one_line(
    base: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("gnnkd.api.run_teacher", lambda *_, **__: signal.raise_signal(number))
    assert main(base) == code
    assert "--resume" in capsys.readouterr().err.splitlines()[-1]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_load_neither_torch_nor_pyg(flag: str) -> None:
    program = (
        "import sys; from gnnkd.main import main; code = main([sys.argv[1]]); "
        "assert not {'torch', 'torch_geometric', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, flag], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gnnkd" in done.stdout


def test_a_mistake_loads_no_pyg() -> None:
    program = (
        "import sys; from gnnkd.main import main; code = main(['--dataset', 'digits', '--method', 'gln']); "
        "assert not {'torch_geometric', 'sklearn', 'matplotlib'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


# -- with real training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["supervised", "glnn", "kd", "dgd"])
def test_digits_end_to_end(tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--dataset", "digits", "--method", method, "--out", str(tmp_path), *TINY]
    assert main(argv) == 0
    assert "digits cpf-tran" in capsys.readouterr().out
    place = Place(tmp_path / "digits" / "cpf-tran" / "gcn" / "mlp" / method / "seed0")
    result = json.loads(place.result.read_text())
    wanted = "dataset protocol setting teacher_model student_model method base seed test_acc val_acc teacher_test_acc "
    wanted += "epochs seconds n_parameters config versions commit"
    assert set(wanted.split()) <= set(result)
    assert all(0 <= result[name] <= 1 for name in ("test_acc", "val_acc", "teacher_test_acc"))
    files = {path.name for path in place.folder.iterdir()}
    assert files == {"model.safetensors", "config.json", "result.json", "metrics.jsonl", "curves.png"}


def test_the_report_lists_every_method_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gnnkd import report

    for method in ("supervised", "glnn"):
        assert main(["--dataset", "digits", "--method", method, "--out", str(tmp_path), "--seeds", "2", *TINY]) == 0
    capsys.readouterr()
    assert report.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    order = [line.split()[2] for line in shown.splitlines() if line.strip().startswith("digits")]
    assert order == ["teacher", "supervised", "glnn"]
    assert shown.count("+-") == 3
    assert report.main([str(tmp_path / "nowhere")]) == 2
