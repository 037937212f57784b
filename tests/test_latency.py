"""What is timed is exact, what was read is counted right, what cannot run says why; no test looks at a clock."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnkd import export, nn
from gnnkd.compare.progress import Nothing
from gnnkd.data.dataset import from_arrays
from gnnkd.data.task import NodeTask
from gnnkd.data.task import task as make_task
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.latency import engines, measuring, writing
from gnnkd.latency.__main__ import main
from gnnkd.latency.answers import Answer, Clock, Data, Way, reached
from gnnkd.latency.command import parse
from gnnkd.latency.contenders import Contender
from gnnkd.latency.measuring import Effort, measure
from gnnkd.latency.neighbourhoods import LayerByLayer, Messenger, Neighbourhood, OnePass, Piece
from gnnkd.latency.picture import picture
from gnnkd.latency.room import Room
from gnnkd.nn.layerwise import Layerwise
from gnnkd.predictor import Predictor

ROOT = Path(__file__).parents[1]
N, D, C = 300, 12, 3
LAYERED = ("gcn", "sage", "gat")
NAMES = tuple(sorted(set(nn.MODELS) - {"mlp"}))
ROOM = Room(1 << 40)
FEW = Effort(sizes=(1, 20, None, 10_000), repeats=4, engines=("eager",))


def _arrays(*, sparse: bool = False) -> dict[str, Any]:
    """A ring with random chords, a hub and three nodes without edges; the features are sparse or not."""
    rng = np.random.default_rng(0)
    ring = np.stack([np.arange(N - 3), (np.arange(N - 3) + 1) % (N - 3)])
    chords, hub = rng.integers(0, N - 3, (2, 60)), np.stack([np.full(40, 7), rng.integers(0, N - 3, 40)])
    y = np.arange(N) % C
    x = rng.random((N, D)).astype(np.float32) * (rng.random((N, D)) < (0.1 if sparse else 1.1))
    masks = {f"{part}_mask": np.arange(N) // (N // 3) == i for i, part in enumerate(("train", "val", "test"))}
    return {"x": x, "y": y, "edge_index": np.concatenate([ring, chords, hub], 1), **masks}


@pytest.fixture(scope="module")
def task() -> NodeTask:
    """Dense features."""
    return make_task(from_arrays(_arrays(), name="toy"), seed=0)


@pytest.fixture(scope="module")
def thin() -> NodeTask:
    """Sparse features."""
    found = make_task(from_arrays(_arrays(sparse=True), name="thin"), seed=0)
    assert isinstance(found.x, CSR)
    return found


def _predictor(name: str, **options: Any) -> Predictor:
    torch.manual_seed(0)
    options = {**({} if name == "sgc" else {"layers": 2, "width": 8}), **options}
    return Predictor(nn.MODELS[name](D, C, **options).eval(), name, options, tuple(range(C)), "raw", D)


def _whole(predictor: Predictor, task: NodeTask) -> torch.Tensor:
    with torch.no_grad():
        return predictor.network(task.x, task.graph).logits


def _same(found: torch.Tensor, want: torch.Tensor) -> None:
    assert torch.allclose(found, want, rtol=1e-5, atol=1e-5)


QUESTIONS = (torch.tensor([7]), torch.tensor([N - 1, 3, 0]), torch.randperm(N)[:50])


# -- ways ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", ["task", "thin"])
def test_every_way_gives_the_logits_of_the_whole_graph(name: str, which: str, request: pytest.FixtureRequest) -> None:
    data: NodeTask = request.getfixturevalue(which)
    predictor = _predictor(name)
    want = _whole(predictor, data)
    there = Messenger(predictor, Data.of(data), data, ROOM)
    assert isinstance(there.piece, Neighbourhood if name in LAYERED else Piece)
    assert (there.layers is not None) == (name in LAYERED)
    for way in (there.piece, there.whole, *([there.layers] if there.layers else [])):
        for nodes in QUESTIONS:
            _same(way.answer(nodes).logits, want[nodes])
        _same(way.answer(None).logits, want)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_what_is_read_is_what_is_within_reach(hops: int, task: NodeTask) -> None:
    """Nodes within so many edges, edges into those that are nearer: against powers of the dense adjacency."""
    a = task.graph.adjacency.dense() > 0
    start = torch.tensor([5, 100])
    near = torch.zeros(N, dtype=torch.bool)
    near[start] = True
    for _ in range(hops):
        inner, near = near, near | a[near].any(0)
    seen = reached(task.graph, start, hops)
    assert seen.nodes.tolist() == near.nonzero().flatten().tolist()
    assert seen.edges == int(a[inner].sum())
    predictor = _predictor("sage", layers=hops)
    there = Messenger(predictor, Data.of(task), task, ROOM)
    assert there.layers is not None
    for way in (there.piece, there.layers):
        found = way.answer(start)
        assert found.nodes == int(near.sum())
        assert found.size == 4 * D * int(near.sum())
    assert there.layers.answer(start).edges == seen.edges
    found = there.piece.answer(start)
    assert found.fetch is not None
    assert 0 <= found.fetch <= found.total


def test_bytes_of_sparse_rows_are_those_of_their_entries(thin: NodeTask) -> None:
    assert isinstance(thin.x, CSR)
    data, nodes = Data.of(thin), torch.tensor([3, 250])
    entries = int((thin.x.dense()[nodes] != 0).sum())
    assert data.size(nodes) == 8 * entries + 4 * 2
    assert torch.equal(data.rows(nodes, dense=True), thin.x.dense()[nodes])


def test_under_ind_all_nodes_are_asked_about(task: NodeTask) -> None:
    unseen = make_task(from_arrays(_arrays(), name="toy"), seed=0, setting="ind")
    assert unseen.n_nodes < N
    assert Data.of(unseen).n == N


def test_a_gpu_is_waited_for_and_a_processor_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    Clock("cpu").now()
    assert not waits
    Clock("cuda").now()
    assert waits == [1]


# -- memory --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_left_out_with_its_estimate(task: NodeTask) -> None:
    there = Messenger(_predictor("sage"), Data.of(task), task, Room(1))
    ways, lacks = there.ways([torch.arange(20)])
    assert [type(way) for way in ways] == [LayerByLayer]
    assert len(lacks) == 1
    assert "MiB" in lacks[0]
    ways, lacks = there.ways(None)
    assert [type(way) for way in ways] == [LayerByLayer]
    assert "one pass takes up to" in lacks[0]
    roomy, none = Messenger(_predictor("sage"), Data.of(task), task, ROOM).ways(None)
    assert {type(way) for way in roomy} == {LayerByLayer, OnePass}
    assert none == []


@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_no_matrix_of_the_whole_graph_is_derived_without_room_for_it(task: NodeTask, name: str) -> None:
    data = Data.of(replace(task, graph=Graph(task.graph.adjacency)))
    edges = data.graph.n_edges
    there = Messenger(_predictor(name), data, task, Room(56 * edges - 1))
    assert not data.graph._derived
    for nodes in ([torch.arange(20)], None):
        ways, lacks = there.ways(nodes)
        assert [type(way) for way in ways] == [LayerByLayer]
        assert all("takes up to" in lack for lack in lacks)
    Messenger(_predictor(name), data, task, Room(56 * edges))
    assert data.graph._derived


def test_layer_by_layer_is_left_out_where_the_disk_is_full(task: NodeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnnkd.latency.neighbourhoods.Layerwise", lambda **_: Layerwise(memory=0))
    monkeypatch.setattr("gnnkd.data.room.disk", lambda _: 100)
    ways, lacks = Messenger(_predictor("sage"), Data.of(task), task, ROOM).ways(None)
    assert [type(way) for way in ways] == [OnePass]
    assert len(lacks) == 1
    assert lacks[0].startswith("layer by layer keeps 0.0 GB between two layers, and ")


def test_a_network_that_cannot_be_taken_apart_and_does_not_fit_is_refused(task: NodeTask) -> None:
    with pytest.raises(UserError, match=r"one pass of appnp over the whole graph takes up to \d+ MiB"):
        Messenger(_predictor("appnp"), Data.of(task), task, Room(1))


# -- engines -------------------------------------------------------------------------------------------------------


def test_engines_that_are_not_there_are_skipped_with_the_reason(
    task: NodeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    monkeypatch.setattr(engines.shutil, "which", lambda _: None)
    effort = Effort(sizes=(1,), repeats=1)
    rows = {row["engine"]: row for row in measure(_predictor("gcn"), _predictor("mlp"), task, effort=effort)[1:]}
    assert rows["eager"]["status"] == "measured"
    assert "pip install 'gnnkd[export]'" in rows["onnx"]["reason"]
    assert "no C++ compiler" in rows["compiled"]["reason"]
    assert {rows[name]["status"] for name in ("compiled", "onnx")} == {"skipped"}


def test_a_compiler_that_fails_or_errs_is_a_reason(task: NodeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_no_compiler", lambda _: None)

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no\nheader")

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(UserError, match="it fails here: RuntimeError: no header"):
        engines.made("compiled", _predictor("mlp"), Data.of(task))
    monkeypatch.setattr(torch, "compile", lambda network, **_: lambda x: network(x) + 0.1)
    with pytest.raises(UserError, match="off; it is not timed"):
        engines.made("compiled", _predictor("mlp"), Data.of(task))
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    way, want = engines.made("compiled", _predictor("mlp"), Data.of(task)), _whole(_predictor("mlp"), task)
    _same(way.answer(QUESTIONS[1]).logits, want[QUESTIONS[1]])


@pytest.mark.skipif(bool(export.missing()), reason=f"{', '.join(export.missing())} not installed")
@pytest.mark.parametrize("which", ["task", "thin"])
def test_onnx_gives_the_same_logits(which: str, request: pytest.FixtureRequest) -> None:
    data: NodeTask = request.getfixturevalue(which)
    predictor = _predictor("mlp")
    way = engines.made("onnx", predictor, Data.of(data))
    for nodes in QUESTIONS:
        _same(way.answer(nodes).logits, _whole(predictor, data)[nodes])
    _same(way.answer(None).logits, _whole(predictor, data))


def test_all_rows_some_at_a_time_are_all_rows(task: NodeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_AT_ONCE", 70)
    found = engines.made("eager", _predictor("mlp"), Data.of(task)).answer(None)
    _same(found.logits, _whole(_predictor("mlp"), task))
    assert (found.nodes, found.edges, found.size) == (N, 0, 4 * N * D)


def test_a_student_that_passes_messages_has_a_neighbourhood_and_one_engine(task: NodeTask) -> None:
    rows = measure(_predictor("sage"), _predictor("gcn"), task, effort=Effort(sizes=(5,), repeats=2))
    eager, compiled, onnx = rows[1:]
    assert eager["way"] in ("neighbourhood", "layer by layer", "one pass")
    assert compiled["reason"] == onnx["reason"] == "gcn passes messages along edges"


# -- measuring -----------------------------------------------------------------------------------------------------


def test_rows_have_what_is_promised(task: NodeTask) -> None:
    rows = measure(_predictor("sage"), _predictor("mlp"), task, effort=FEW, room=ROOM)
    assert [(row["size"], row["side"]) for row in rows] == [
        (size, side) for size in (1, 20, "all", 10_000) for side in ("teacher", "student")
    ]
    for row in rows[:6]:
        assert row["status"] == "measured"
        assert row["n"] == 4
        assert 0 < row["total_ms"]["p50"] <= row["total_ms"]["p95"]
        assert (row["fetch_ms"] is None) == (row["compute_ms"] is None)
    for row in rows[6:]:
        assert (row["status"], row["reason"]) == ("skipped", f"the graph has {N} nodes")
    assert rows[1]["nodes"] == 1
    assert (rows[4]["nodes"], rows[4]["edges"]) == (N, task.graph.n_edges)
    assert set(rows[0]["tried"]) >= {"neighbourhood", "layer by layer"}
    assert json.loads(json.dumps(rows)) == rows


class _Scripted(Way):
    """A way whose answers take what they are told to; it notes what it was asked."""

    def __init__(self, name: str, seconds: float, heard: list[tuple[str, Any]]) -> None:
        self.name, self.seconds, self.heard = name, seconds, heard  # type: ignore[misc]

    def answer(self, nodes: torch.Tensor | None) -> Answer:
        self.heard.append((self.name, None if nodes is None else tuple(nodes.tolist())))
        return Answer(torch.zeros(1, C), self.seconds / 2, self.seconds, 1, 1, 1)


def _sized(ways: Sequence[Sequence[_Scripted]], effort: Effort, task: NodeTask) -> list[dict[str, Any]]:
    there = [Contender("teacher", str(i), lambda _, w=w: (list(w), [])) for i, w in enumerate(ways)]
    draws, board = torch.Generator().manual_seed(0), Nothing()
    return list(measuring._sized(10, there, Data.of(task), draws, effort, board))


def test_networks_take_turns_with_nodes_of_their_own(task: NodeTask) -> None:
    calls: list[tuple[str, Any]] = []
    _sized([[_Scripted("a", 0.001, calls)], [_Scripted("b", 0.001, calls)]], Effort(repeats=4), task)
    assert "".join(name for name, _ in calls) == "aaabbb" + "abbaabba"
    asked = [nodes for _, nodes in calls]
    assert len(set(asked)) == len(asked)
    assert all(len(set(nodes)) == 10 for nodes in asked)


def test_the_faster_way_is_measured_and_the_other_one_named(task: NodeTask) -> None:
    calls: list[tuple[str, Any]] = []
    (row,) = _sized([[_Scripted("slow", 0.02, calls), _Scripted("quick", 0.004, calls)]], Effort(repeats=5), task)
    assert (row["way"], row["n"]) == ("quick", 5)
    assert row["tried"] == {
        "slow": {"total_ms": 20.0, "fetch_ms": 10.0},
        "quick": {"total_ms": 4.0, "fetch_ms": 2.0},
    }
    assert row["total_ms"] == {"p50": 4.0, "p95": 4.0}


def test_slow_answers_are_repeated_less_often(task: NodeTask) -> None:
    calls: list[tuple[str, Any]] = []
    (row,) = _sized([[_Scripted("slow", 50.0, calls)]], Effort(repeats=9, seconds=60.0), task)
    assert row["n"] == measuring.LEAST
    assert len(calls) == 1 + measuring.LEAST
    (row,) = _sized([[_Scripted("even", 10.0, calls)]], Effort(repeats=9, seconds=60.0), task)
    assert row["n"] == 5


def test_the_same_seed_asks_about_the_same_nodes(task: NodeTask) -> None:
    runs = [measure(_predictor("gcn"), _predictor("mlp"), task, effort=Effort(sizes=(3,), repeats=2, engines=()))
            for _ in range(2)]  # fmt: skip
    assert runs[0][0]["nodes"] == runs[1][0]["nodes"]


def test_threads_are_put_back(task: NodeTask) -> None:
    before = torch.get_num_threads()
    measure(_predictor("gcn"), _predictor("mlp"), task, effort=Effort(sizes=(1,), repeats=1, threads=2, engines=()))
    assert torch.get_num_threads() == before


# -- tables --------------------------------------------------------------------------------------------------------


def _report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    network = {"model": "sage", "n_parameters": 10, "method": "glnn"}
    return {
        "rows": rows, "teacher": network, "student": {**network, "model": "mlp"}, "trained": True, "dataset": "toy",
        "protocol": "given", "setting": "tran", "seed": 0, "nodes": 900, "edges": 5, "features": 3, "device": "cpu",
        "threads": 1, "machine": {"processor": "some", "load": [1.0, 2.0]}, "repeats": 4, "sizes": [1, "all"],
        "command": "python -m gnnkd.latency",
    }  # fmt: skip


def _row(size: int | str, side: str, p50: float, **more: Any) -> dict[str, Any]:
    split = {"fetch_ms": {"p50": 0.1, "p95": 0.2}, "compute_ms": {"p50": 0.2, "p95": 0.3}}
    counts: dict[str, Any] = {"n": 4, "nodes": 7, "edges": 3, "bytes": 4096, "tried": {}, "notes": []}
    named = {"size": size, "side": side, "engine": "eager", "status": "measured", "way": "rows"}
    return {**named, "total_ms": {"p50": p50, "p95": 2 * p50}, **split, **counts, **more}


def test_a_ratio_stands_beside_both_milliseconds_only() -> None:
    rows = [_row(1, "teacher", 20.0), _row(1, "student", 0.5)]
    skipped = {"size": "all", "side": "teacher", "engine": "eager", "status": "skipped", "reason": "no | room"}
    rows += [skipped, _row("all", "student", 3.0)]
    body = writing.body(_report(rows))
    assert [line[-1] for line in body] == ["", "20 / 0.5 = 40", "", ""]
    text = writing.markdown(_report(rows))
    assert "skipped: no / room" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_a_picture_of_one_row_and_of_none_can_be_drawn() -> None:
    for rows in ([_row(1, "teacher", 20.0)], [_row("all", "student", 20.0)], []):
        picture(_report(rows)).canvas.draw()


@pytest.mark.parametrize("sizes", [[1, 10**30, "all"], [10**30]])
def test_a_size_beyond_the_graph_is_not_in_the_picture(sizes: list[int | str]) -> None:
    found = picture({**_report([_row(1, "teacher", 20.0)] if 1 in sizes else []), "sizes": sizes})
    found.canvas.draw()
    assert found.axes[0].get_xlim()[1] < 1e6


@pytest.mark.parametrize(
    ("value", "said"), [(1234.5, "1,234"), (99.99, "100"), (12.34, "12.3"), (0.0123, "0.0123"), (0.00012, "0.0001")]
)
def test_milliseconds_have_three_digits(value: float, said: str) -> None:
    assert writing.ms(value) == said


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """A command on a small graph, writing below the test's folder."""
    np.savez(tmp_path / "toy.npz", **_arrays())
    return ["--dataset", str(tmp_path / "toy.npz"), "--out", str(tmp_path / "runs"), "--teacher", "sage", "--quiet"]


SMALL = ["--set", "teacher.width=8", "student.width=8"]


def _fails(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_untrained_networks_are_measured_without_a_run(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*base, "--method=glnn", "--untrained", "--sizes=1,5,all", "--repeats=2", "--engines=eager", *SMALL]
    assert main(argv) == 0
    (folder,) = (tmp_path / "runs" / "latency").iterdir()
    assert folder.name == "toy-given-tran-sage-mlp-untrained-seed0-cpu"
    assert {file.name for file in folder.iterdir()} == {"latency.json", "latency.md", "latency.png"}
    found = json.loads((folder / "latency.json").read_text())
    assert (found["format"], found["trained"], found["sizes"], found["finished"]) == (1, False, [1, 5, "all"], True)
    assert found["teacher"]["options"]["width"] == 8
    assert found["teacher"]["hops"] == found["teacher"]["options"]["layers"]
    assert found["student"]["n_parameters"] == 8 * D + 8 + C * 8 + C + (found["student"]["options"]["layers"] - 2) * 72
    assert len(found["rows"]) == 6
    said = capsys.readouterr().out
    assert "sage teacher against mlp, untrained" in said
    assert str(folder / "latency.md") in said.replace("\n", "")
    assert "Not measured" not in said


def test_sizes_that_were_measured_stay_when_a_later_one_is_interrupted(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sized = measuring._sized

    def ends(size: int | None, *rest: Any) -> Any:
        if size is None:
            raise KeyboardInterrupt
        return sized(size, *rest)

    monkeypatch.setattr(measuring, "_sized", ends)
    argv = [*base, "--method=glnn", "--untrained", "--sizes=1,5,all", "--repeats=1", "--engines=eager", *SMALL]
    assert main(argv) == 130
    (folder,) = (tmp_path / "runs" / "latency").iterdir()
    found = json.loads((folder / "latency.json").read_text())
    assert found["sizes"] == [1, 5, "all"]
    assert [row["size"] for row in found["rows"]] == [1, 1, 5, 5]
    assert not found["finished"]
    text = (folder / "latency.md").read_text()
    assert "| 5 |" in text
    assert "* Not measured yet, of the sizes asked for: all." in text


@pytest.mark.slow
def test_a_compiled_student_is_measured_where_its_logits_are_the_same(base: list[str], tmp_path: Path) -> None:
    """In a process of its own: the checks of shapes in these tests cannot be compiled. It is compared before."""
    argv = [*base, "--method=glnn", "--untrained", "--sizes=1,5", "--repeats=1", "--engines=compiled", *SMALL]
    subprocess.run([sys.executable, "-m", "gnnkd.latency", *argv], check=True, cwd=ROOT, capture_output=True)
    (file,) = (tmp_path / "runs" / "latency").glob("*/latency.json")
    rows = [row for row in json.loads(file.read_text())["rows"] if row["engine"] == "compiled"]
    lack = engines._no_compiler("cpu")
    assert [row["status"] for row in rows] == ["skipped" if lack else "measured"] * 2, rows


def test_finished_networks_are_found_and_missing_ones_listed_with_their_command(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gnnkd.main import main as trained

    monkeypatch.setattr("gnnkd.results.draw", lambda *_, **__: None)
    run = [*base, "--method=glnn"]
    branch = tmp_path / "runs" / "toy" / "given-tran" / "sage"
    line = _fails(capsys, run)
    assert f"{branch / 'teacher' / 'seed0'} and {branch / 'mlp' / 'glnn' / 'seed0'}; make it with:" in line
    assert "--mode=tea/stu" in line
    few = ["--set", "train.epochs=2", *SMALL[1:]]
    assert trained([*run, "--mode=tea", *few]) == 0
    assert "--mode=stu" in _fails(capsys, run)
    assert trained([*run, "--mode=stu", *few]) == 0
    assert main([*run, "--sizes=3", "--repeats=1", "--engines=eager"]) == 0
    found = json.loads((tmp_path / "runs/latency/toy-given-tran-sage-mlp-glnn-seed0-cpu/latency.json").read_text())
    assert found["student"]["folder"] == str(branch / "mlp" / "glnn" / "seed0")
    assert (found["trained"], found["student"]["method"]) == (True, "glnn")
    changed = _arrays()
    changed["x"][0] += 1
    np.savez(tmp_path / "toy.npz", **changed)
    assert "was trained on other features or labels" in _fails(capsys, run)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--repeat=3"], "did you mean 'repeats'"),
        (["--engines=egaer"], "did you mean 'eager'"),
        (["--sizes=1,al"], "--sizes has 'al'; it must be numbers of nodes from 1 on, and the word all (did you mean"),
        (["--sizes=0"], "--sizes has '0'"),
        (["--sizes="], "--sizes is empty"),
        (["--repeats=0"], "'0' is no whole number from 1 on"),
        (["--threads=two"], "'two' is no whole number from 1 on"),
        (["--threads=100000"], "--threads is 100000, and this machine has"),
        (["--teacher=sagee"], "did you mean 'sage'"),
        (["--method=gln"], "did you mean 'glnn'"),
        (["--mode=tea"], "unknown flag 'mode'"),
        (["--untrained=yes"], "--untrained is a switch"),
        (["--set", "teacher.widht=4", "--untrained"], "did you mean 'teacher.width'"),
        (["--set", "teacher.width=4"], "finished networks have the sizes that they were trained with"),
        (["--method=nosmog", "--untrained"], "puts something around its student"),
        (["--dataset=digits", "--teacher=resnet20", "--student=resnet8"], "of images"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_a_mistake_is_one_clear_line(
    base: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in _fails(capsys, [*base, *words])


def test_flags_come_to_what_they_say(base: list[str]) -> None:
    found = parse([*base, "--Sizes", "all,1,all", "--ENGINES=onnx", "--memory=2", "--seconds=5", "--seed=3"])
    assert (found.sizes, found.engines, found.memory, found.seconds) == ((None, 1), ("onnx",), 2 << 20, 5.0)
    assert found.request.seeds == (3,)
    assert "--seed=3" in found.words
    bare = parse(base)
    assert (bare.sizes, bare.repeats, bare.threads, bare.memory) == ((1, 10, 1000, None), 50, 1, None)
