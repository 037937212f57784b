"""The command: exit codes, what is trained and what is not, failures beside results, typos."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnkd import distillers, logits
from gnnkd.compare import comparison, training
from gnnkd.compare.__main__ import main
from gnnkd.compare.pool import Pool
from gnnkd.compare.workers import Outcome, Work, _done
from gnnkd.main import main as main_command
from gnnkd.places import Place

ROOT = Path(__file__).parents[2]
COSTS = {"n_parameters": 1, "hops": 0, "macs": 2.0, "latency_ms": {"1": {"p50": 1.0, "p95": 2.0, "n": 3}}}
TINY = ["--device", "cpu", "--set", "train.epochs=2", "teacher.width=8", "student.width=8"]


class Here:
    """A pool of this process alone; `stop_at` interrupts it before that work."""

    stop_at: str | None = None
    did: list[str] = []  # noqa: RUF012

    def __init__(self, jobs: int, shown: Any = None) -> None:
        self.kept: dict[Any, Any] = {}

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def run(self, works: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
        failed: dict[str, str] = {}
        for work in works:
            if work.key == self.stop_at:
                raise KeyboardInterrupt
            self.did.append(work.key)
            reason = failed.get(work.after or "")
            outcome = Outcome(reason=f"its teacher: {reason}") if reason else _done(work, self.kept)
            if outcome.reason is not None:
                failed[work.key] = outcome.reason
            yield work, outcome


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    """Cells are trained in this process; nothing is timed and nothing drawn."""
    monkeypatch.setattr("gnnkd.compare.course.Pool", Here)
    monkeypatch.setattr("gnnkd.compare.pricing.costs.of", lambda *_: COSTS)
    monkeypatch.setattr("gnnkd.compare.writing.page.write", lambda *_, **__: None)
    monkeypatch.setattr(Here, "stop_at", None)
    monkeypatch.setattr(Here, "did", [])
    return Here


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """A command on a small graph with masks, writing below the test's folder."""
    rng, n = np.random.default_rng(0), 60
    y = np.arange(n) % 2
    ring = np.stack([np.arange(n), (np.arange(n) + 2) % n])
    masks = {f"{part}_mask": np.arange(n) // 20 == i for i, part in enumerate(("train", "val", "test"))}
    file = tmp_path / "toy.npz"
    np.savez(file, edge_index=ring, x=rng.normal(size=(n, 4)) + y[:, None], y=y, **masks)
    return ["--dataset", str(file), "--out", str(tmp_path / "runs"), "--report", str(tmp_path / "report"), *TINY]


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "report" / "results.jsonl").read_text().splitlines()]


def _fails(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gnnkd: error: ")
    return line


def _times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("result.json")}


METHODS = ["--methods", "mlp,glnn,dgd,gkdfd", "--seeds", "2"]


def test_all_cells_are_trained_once_and_read_by_the_report(
    tmp_path: Path, base: list[str], here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*base, *METHODS]) == 0
    assert len(here.did) == len(set(here.did)) == 2 * (1 + 4)
    found = _rows(tmp_path)
    assert [row["status"] for row in found] == ["finished"] * 10
    assert [row["label"] for row in found if row["seed"] == 0] == ["teacher", "mlp", "glnn", "dgd", "gkdfd"]
    for row in found:
        place = Place(Path(row["folder"]))
        result = json.loads(place.result.read_text())
        assert all(row[name] == result[name] for name in ("test_acc", "val_acc", "n_parameters", "base", "method"))
        assert row["measures"] == json.loads((place.folder / "measures.json").read_text())
        assert "edges" in row["needs"] if row["student_model"] is None else row["needs"] == ["features"]
        assert row["costs"] == COSTS
    assert {"table.md", "table.csv", "table.tex", "results.jsonl", "costs.json"} == {
        file.name for file in (tmp_path / "report").iterdir()
    }
    assert "10 finished" in capsys.readouterr().out
    before = _times(tmp_path)
    assert main([*base, *METHODS, "--quiet"]) == 0
    assert _times(tmp_path) == before, "finished cells are left alone"
    assert _rows(tmp_path) == found
    assert main_command([*base[:4], *base[6:], "--method", "dgd", "--quiet"]) == 0
    assert _times(tmp_path) == before, "the main command finds its teacher and student there"
    assert main([*base, *METHODS, "--no-train"]) == 0
    assert (_times(tmp_path), _rows(tmp_path)) == (before, found)
    assert main([*base, "--methods", "glnn", "--overwrite", "--quiet"]) == 0
    again = {file.parts[-3] for file, then in _times(tmp_path).items() if then != before[file]}
    assert again == {"teacher", "glnn"}


def test_a_failing_cell_is_a_row_with_its_reason_and_the_others_go_on(
    tmp_path: Path, base: list[str], here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*base, "--methods", "glnn,kd:student.lr=1e30,mlp"]
    assert main(argv) == 1
    status = {row["label"]: (row["status"], row.get("reason")) for row in _rows(tmp_path)}
    assert status["kd:student.lr=1e30"][0] == "failed"
    assert "the loss is not finite" in status["kd:student.lr=1e30"][1]
    assert [status[label][0] for label in ("teacher", "glnn", "mlp")] == ["finished"] * 3
    assert "failed: the loss is not finite" in capsys.readouterr().out
    here.did.clear()
    assert main(argv) == 1, "it is tried again, and fails again"
    assert here.did[-1].endswith("mlp/0")
    assert main([*base, "--methods", "glnn,mlp"]) == 0


def test_a_damaged_result_is_a_failed_cell_and_tables_are_written(
    tmp_path: Path, base: list[str], here: type[Here]
) -> None:
    mine = [*base, "--methods", "mlp,glnn", "--seeds", "2", "--quiet"]
    assert main(mine) == 0
    place = next(Path(row["folder"]) for row in _rows(tmp_path) if row["label"] == "glnn" and row["seed"] == 1)
    (place / "result.json").write_text('{"dataset": "to')
    for more in ([], ["--no-train"]):  # the reason stays where nothing is tried
        assert main([*mine, *more]) == 1
        failed = [row for row in _rows(tmp_path) if row["status"] != "finished"]
        assert [(row["label"], row["seed"], row["status"]) for row in failed] == [("glnn", 1, "failed")]
        assert "result.json" in failed[0]["reason"]


def test_a_failing_teacher_fails_its_students(tmp_path: Path, base: list[str], here: type[Here]) -> None:
    assert main([*base, "--methods", "glnn,mlp", "--set", "teacher.lr=1e30", "--seeds", "1"]) == 1
    assert [row["status"] for row in _rows(tmp_path)] == ["failed"] * 3
    assert all("the loss is not finite" in row["reason"] for row in _rows(tmp_path))


def test_an_interrupt_leaves_tables_of_what_is_finished_and_the_same_command_goes_on(
    tmp_path: Path, base: list[str], here: type[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*base, "--methods", "glnn,mlp", "--seeds", "2"]
    monkeypatch.setattr(here, "stop_at", f"{base[1]}/tran/gcn/mlp/glnn/1")
    assert main(argv) == 130
    status = {(row["label"], row["seed"]): row["status"] for row in _rows(tmp_path)}
    assert [label for label, what in status.items() if what == "missing"] == [("glnn", 1), ("mlp", 1)]
    assert (tmp_path / "report" / "table.md").is_file()
    before = _times(tmp_path)
    monkeypatch.setattr(here, "stop_at", None)
    assert main([*argv, "--resume"]) == 0
    assert {row["status"] for row in _rows(tmp_path)} == {"finished"}
    assert before.items() <= _times(tmp_path).items()


def test_a_teacher_with_generators_serves_all_and_one_without_does_not_serve_dgd(
    tmp_path: Path, base: list[str], here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    main_argv = [*base[:4], *base[6:], "--mode", "tea"]
    assert main_command(main_argv) == 0
    before = _times(tmp_path)
    assert main([*base, "--methods", "glnn"]) == 0
    assert before.items() <= _times(tmp_path).items()
    assert main_command([*main_argv, "--set", "method.generators=false", "--overwrite"]) == 0
    line = _fails(capsys, [*base, "--methods", "kd,dgd"])
    assert "has no generators, and dgd learns from them" in line
    assert "--mode tea --overwrite" in line
    assert main_command([*main_argv, "--overwrite"]) == 0
    before = _times(tmp_path)
    assert main([*base, "--methods", "glnn,dgd"]) == 0
    assert before.items() <= _times(tmp_path).items()  # generators change no student that hears nothing of them


def test_what_cannot_be_run_is_a_row_and_the_rest_goes_on(
    tmp_path: Path,
    base: list[str],
    here: type[Here],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distillers.graph_methods()["glnn"], "on_rows", False)
    assert main([*base, "--methods", "glnn,kd"]) == 0
    found = {row["label"]: row for row in _rows(tmp_path)}
    assert found["glnn"]["status"] == "impossible"
    assert "glnn teaches students that pass messages" in found["glnn"]["reason"]
    assert found["kd"]["status"] == "finished"
    assert "cannot run: glnn teaches" in capsys.readouterr().out
    assert "nothing can be run" in _fails(capsys, [*base, "--methods", "glnn"])
    assert "has no split 'public'" in _fails(capsys, [*base, "--methods", "kd", "--split", "public"])


def test_what_cannot_go_together_is_found_before_anything_is_trained(
    tmp_path: Path, base: list[str], here: type[Here]
) -> None:
    argv = [word for word in base if word != "student.width=8"]
    assert main([*argv, "--students", "sgc", "--methods", "fitnet,kd"]) == 0
    assert [row["status"] for row in _rows(tmp_path)] == ["finished", "impossible", "finished"]
    assert main([*base, "student.batch_size=20", "--methods", "nosmog,glnn", "--seeds", "2"]) == 0
    assert {row["label"]: row["status"] for row in _rows(tmp_path)} == {
        "teacher": "finished",
        "nosmog": "impossible",
        "glnn": "finished",
    }
    batches = ["teacher.batch_size=20", "teacher.fanouts=[5, 5]"]
    assert main([*argv, *batches, "--teachers", "sage,tag", "--methods", "glnn"]) == 0
    found = [(row["teacher_model"], row["label"], row["status"]) for row in _rows(tmp_path)]
    assert found == [
        (teacher, label, status)
        for teacher, status in (("sage", "finished"), ("tag", "impossible"))
        for label in ("teacher", "glnn")
    ]
    assert not any("fitnet" in key or "nosmog" in key or "tag" in key for key in here.did)


def test_files_of_one_name_are_refused(
    tmp_path: Path, base: list[str], here: type[Here], capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other" / "toy.npz"
    other.parent.mkdir()
    other.write_bytes(Path(base[1]).read_bytes())
    assert "have one folder, 'toy'" in _fails(capsys, [*base, "--dataset", str(other), "--methods", "glnn"])
    assert here.did == []


def test_cells_are_made_and_logits_read_few_times(
    tmp_path: Path, base: list[str], here: type[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    read: list[str] = []
    cells, of = comparison.cells, logits.of
    monkeypatch.setattr(comparison, "cells", lambda asked: made.append(1) or cells(asked))
    monkeypatch.setattr(logits, "of", lambda array, where: read.append(where) or of(array, where))
    file = tmp_path / "logits.npy"
    np.save(file, np.eye(2, dtype=np.float32)[np.arange(60) % 2] * 4)
    argv = [word for word in base if word != "teacher.width=8"]
    assert main([*argv, "--methods", "glnn,kd", "--seeds", "3", "--teacher_logits", str(file)]) == 0
    assert len(made) <= 2
    assert len(read) == 1
    np.save(file, np.eye(2, dtype=np.float32)[np.arange(60) % 2] * 5)
    assert float(logits.read(file).values.max()) == 5, "a file that changed is another"


def test_tables_alone_look_at_no_data(
    tmp_path: Path, base: list[str], here: type[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*base, "--methods", "glnn", "--no-costs"]
    assert main(argv) == 0
    (tmp_path / "runs" / "toy" / "given-tran" / "gcn" / "teacher" / "seed0" / "measures.json").unlink()
    asked: list[str] = []
    task = training.Desk.task

    def counted(self: Any, config: Any, seed: int) -> Any:
        asked.append(config.method)
        return task(self, config, seed)

    monkeypatch.setattr(training.Desk, "task", counted)
    assert main([*argv, "--no-train", "--seeds", "2"]) == 0
    assert [row["status"] for row in _rows(tmp_path)] == ["finished", "missing", "finished", "missing"]
    assert asked == ["supervised"], "to measure the teacher anew"
    assert "nll" in _rows(tmp_path)[0]["measures"]


def test_ready_logits_stand_for_a_teacher(tmp_path: Path, base: list[str], here: type[Here]) -> None:
    file = tmp_path / "logits.npy"
    np.save(file, np.eye(2, dtype=np.float32)[np.arange(60) % 2] * 4)
    argv = [*base[:-1], base[-1], "--methods", "glnn,dgd", "--teacher_logits", str(file)]
    argv = [word for word in argv if word != "teacher.width=8"]
    assert main(argv) == 0
    found = {row["label"]: row for row in _rows(tmp_path)}
    assert found.keys() == {"glnn", "dgd"}
    assert (found["glnn"]["status"], found["glnn"]["teacher_model"]) == ("finished", "logits")
    assert 0 <= found["glnn"]["measures"]["agreement"] <= 1
    assert found["dgd"]["status"] == "impossible"


def test_results_of_another_configuration_are_not_taken_for_these(
    tmp_path: Path, base: list[str], here: type[Here]
) -> None:
    assert main([*base, "--methods", "glnn"]) == 0
    other = [*base, "--methods", "glnn", "--set", "student.lr=0.5", "--no-costs"]
    assert main([*other, "--no_train"]) == 0
    assert [row["status"] for row in _rows(tmp_path)] == ["finished", "missing"]
    assert "student.lr is 0.01 there and 0.5 here" in _rows(tmp_path)[1]["reason"]
    before = _times(tmp_path)
    assert main(other) == 1
    assert [row["status"] for row in _rows(tmp_path)] == ["finished", "failed"]
    assert _rows(tmp_path)[1]["reason"].endswith("choose another --out, or --overwrite it")
    assert _times(tmp_path) == before
    assert [row["costs"] for row in _rows(tmp_path) if row["status"] == "finished"] == [COSTS]
    assert main([*other, "--overwrite"]) == 0
    assert [row["costs"] for row in _rows(tmp_path)] == [COSTS, {}], "those of the weights before are not shown"
    assert main(other[:-1]) == 0
    assert [row["costs"] for row in _rows(tmp_path)] == [COSTS, COSTS]


def test_milliseconds_of_an_older_way_are_dropped_and_measured_anew(
    tmp_path: Path, base: list[str], here: type[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {**COSTS, "hops": 2, "fetched": "blocks"}
    argv = [*base, "--methods", "glnn"]
    monkeypatch.setattr("gnnkd.compare.pricing.costs.of", lambda *_: COSTS)
    assert main(argv) == 0
    file = tmp_path / "report" / "costs.json"
    there = json.loads(file.read_text())
    teacher = next(iter(there))
    there[teacher]["hops"] = 2
    file.write_text(json.dumps(there))
    assert main([*argv, "--no_train"]) == 0
    untimed = {"n_parameters": 1, "hops": 2, "macs": 2.0}
    assert [row["costs"] for row in _rows(tmp_path)] == [untimed, COSTS], "those of a network of rows stay"
    measured: list[str] = []
    monkeypatch.setattr("gnnkd.compare.pricing.costs.of", lambda predictor, _: measured.append(predictor.name) or new)
    assert main(argv) == 0
    assert [row["costs"] for row in _rows(tmp_path)] == [new, COSTS]
    assert main(argv) == 0
    assert len(measured) == 1


def test_costs_can_be_left_out(
    tmp_path: Path, base: list[str], here: type[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr("gnnkd.compare.pricing.costs.of", never)
    assert main([*base, "--methods", "glnn", "--no-costs"]) == 0
    assert [(row["status"], row["costs"]) for row in _rows(tmp_path)] == [("finished", {})] * 2
    assert not (tmp_path / "report" / "costs.json").exists()


def test_a_file_says_what_flags_say(tmp_path: Path, base: list[str], here: type[Here]) -> None:
    file = tmp_path / "compare.yml"
    file.write_text("methods: [glnn, kd]\nseeds: 2\nstudent: {lr: 0.5}\nmethod: {temperature: 2.0}\nagainst: kd\n")
    assert main([*base, "--config", str(file), "--seeds", "1"]) == 0
    found = {row["label"]: row for row in _rows(tmp_path) if row["student_model"]}
    assert found.keys() == {"glnn", "kd"}
    config = json.loads((Path(found["kd"]["folder"]) / "config.json").read_text())
    assert (config["student"]["lr"], config["options"]["temperature"]) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["--methods", "glnnn"], "did you mean 'glnn'"),
        (
            ["--methods", "glnn:label_wait=1"],
            "of glnn: 'label_wait'; allowed: label_weight (did you mean 'label_weight'?)",
        ),
        (["--methods", "glnn:label_weight=7"], "label_weight"),
        (["--methods", "gcn"], "add it to --students"),
        (["--methods", ","], "--methods is empty"),
        (["--students", "mlp,gcnn"], "unknown student model 'gcnn'"),
        (["--students", "mlp,gcn", "--methods", "mlp"], "--students gcn: no method teaches it"),
        (["--teacher", "gcnn"], "did you mean 'gcn'"),
        (["--teacher", "gnc"], "did you mean 'gcn'"),
        (["--setting", "tran,int"], "did you mean 'ind'"),
        (["--split", "plubic"], "did you mean 'public'"),
        (["--dataset", "coar"], "did you mean 'cora'"),
        (["--dataset", "cifar10"], "is of images"),
        (["--dataset", "nowhere.npz"], "nowhere.npz"),
        (["--against", "gln"], "did you mean 'glnn'"),
        (["--jobs", "none"], "--jobs is 'none'"),
        (["--tune", "x"], "whole number"),
        (["--tune_seeds", "4", "--seeds", "2"], "there are 2 seeds"),
        (["--seeds", "x"], "seeds is 'x'"),
        (["--set", "studnt.lr=1"], "with a group of"),
        (["--set", "student.lrr=1"], "did you mean 'student.lr'"),
        (["--set", "method.base=kd"], "say the base in the method's word"),
        (["--mehtods", "kd"], "did you mean 'methods'"),
        (["--no_train", "--overwrite"], "--no_train trains nothing"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--teacher_logits", "nowhere.npy"], "nowhere.npy"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_trained(
    tmp_path: Path, base: list[str], here: type[Here], capsys: pytest.CaptureFixture[str], argv: list[str], match: str
) -> None:
    said = [word for word in base if word != "teacher.width=8"] if "--teacher_logits" in argv else base
    if argv[0] == "--dataset":
        said = said[2:]
    assert match in _fails(capsys, [*said, *argv])
    assert here.did == []
    assert not (tmp_path / "report").exists()


def test_help_loads_no_torch() -> None:
    program = (
        "import sys; from gnnkd.compare.__main__ import main; code = main(['--help']); "
        "assert not {'torch', 'torch_geometric', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--tune_seeds" in done.stdout


def test_two_processes_come_to_what_this_one_does_bit_for_bit(
    tmp_path: Path, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnnkd.compare.pricing.costs.of", lambda *_: {})
    heads: list[dict[str, str]] = []
    monkeypatch.setattr("gnnkd.compare.writing.page.write", lambda *_, about, **__: heads.append(about))
    found = []
    for jobs in ("2", "1"):
        out = tmp_path / jobs
        argv = [*base, "--out", str(out), "--report", str(out / "report"), "--methods", "glnn,dgd", "--seeds", "2"]
        assert main([*argv, "--jobs", jobs, "--quiet"]) == 0
        found.append({f.relative_to(out): f.read_bytes() for f in out.rglob("*.safetensors")})
        monkeypatch.setattr("gnnkd.compare.course.Pool", Here)
        assert heads[-1]["Command"].startswith("python -m gnnkd.compare --dataset")
        assert heads[-1]["Command"].endswith(f"--jobs {jobs} --quiet")
    assert len(found[0]) == 2 * (3 + 2)
    assert found[0] == found[1]


@dataclass(frozen=True)
class Slow:
    """A work of a process whose epochs take a while, and which says that it is in them."""

    inner: Work
    file: Path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":  # asked while it is made of what was sent
            raise AttributeError(name)
        return getattr(self.inner, name)

    def do(self, kept: dict[Any, Any]) -> Any:
        def update(*_: object) -> None:
            self.file.touch()
            time.sleep(0.3)

        training.Silent.update = update  # type: ignore[method-assign]
        return self.inner.do(kept)


def test_a_real_interrupt_saves_and_the_same_command_comes_to_the_same_weights(
    tmp_path: Path, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnnkd.compare.writing.page.write", lambda *_, **__: None)
    argv = [*base, "train.epochs=60", "train.patience=0", "train.checkpoint_every=1000000"]
    argv += ["--methods", "mlp", "--jobs", "1", "--quiet", "--no-costs"]
    teacher = tmp_path / "runs" / "toy" / "given-tran" / "gcn" / "teacher" / "seed0"
    at_work, main_thread, run = tmp_path / "at work", threading.get_ident(), Pool.run

    def slowly(self: Pool, works: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
        mine: list[Any] = [Slow(work, at_work) for work in works]
        for work, outcome in run(self, mine):
            assert isinstance(work, Slow)
            yield work.inner, outcome

    def interrupt() -> None:
        deadline = time.monotonic() + 240
        while not at_work.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        signal.pthread_kill(main_thread, signal.SIGINT)

    monkeypatch.setattr(Pool, "run", slowly)
    waiting = threading.Thread(target=interrupt)
    waiting.start()
    assert main(argv) == 130
    waiting.join()
    assert at_work.exists()
    assert (teacher / "checkpoint.safetensors").exists(), "the process has saved what it had"
    assert not (teacher / "result.json").exists()
    assert [row["status"] for row in _rows(tmp_path)] == ["missing", "missing"]
    monkeypatch.setattr("gnnkd.compare.course.Pool", Here)
    assert main(argv) == 0
    assert main([*argv, "--out", str(tmp_path / "at once")]) == 0
    found = [
        {f.relative_to(out): f.read_bytes() for f in out.rglob("model.safetensors")}
        for out in (tmp_path / "runs", tmp_path / "at once")
    ]
    assert len(found[0]) == 2
    assert found[0] == found[1]
