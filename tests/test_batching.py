"""Both stages on batches: what all nodes at once give where a batch holds them all, and the files of the contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gnnkd
import gnnkd.data.graphs
import gnnkd.distillers.base
from gnnkd import batching, distillers, learning, scores
from gnnkd.data import mapped, synthetic
from gnnkd.data.dataset import from_arrays
from gnnkd.data.plan import Plan
from gnnkd.data.row_arrays import shared
from gnnkd.data.task import NodeTask, task
from gnnkd.distillers.dgd import Dgd, _Guesses
from gnnkd.errors import UserError
from gnnkd.main import main
from gnnkd.nn.layerwise import Layerwise
from gnnkd.predictor import Predictor
from gnnkd.results import mapped_outputs, stored_bank
from gnnkd.run import Config, resolve
from gnnkd.stages import Taught, train_student, train_teacher
from gnnkd.train import checkpoint
from gnnkd.train import rows as row_steps
from gnnkd.train import sampled as sampled_steps
from gnnkd.train.progress import Silent
from gnnkd.train.seeding import seeded
from gnnkd.types import Step

N, C, PART = 120, 3, 30
SMALL: dict[str, Any] = {"epochs": 4, "width": 8, "dropout": 0.0}
ALL: dict[str, Any] = {"batch_size": 1000, "fanouts": [None, None]}
"""One batch with all neighbours."""
METHODS = sorted(distillers.graph_methods())


def _arrays(*, shuffled: Any = None, sparse: bool = False) -> dict[str, Any]:
    """A planted partition with masks; `shuffled` permutes the labels of a part."""
    rng, y = np.random.default_rng(0), np.arange(N) % C
    a, b = rng.integers(0, N, (2, 8 * N))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    words = rng.random((N, 30)) < np.where(np.arange(30) % C == y[:, None], 0.4, 0.05)
    x = words if sparse else words + 0.1 * rng.random((N, 30))
    if shuffled is not None:
        y[shuffled] = np.random.default_rng(1).permutation(y[shuffled])
    masks = {
        f"{part}_mask": np.minimum(np.arange(N) // PART, 2) == i for i, part in enumerate(("train", "val", "test"))
    }
    return {"edge_index": np.stack([a, b])[:, near], "x": x.astype(np.float32), "y": y, **masks}


def _task(*, setting: str = "tran", **given: Any) -> NodeTask:
    return task(from_arrays(_arrays(**given)), seed=0, setting=setting)


def _config(
    method: str = "glnn",
    student: str = "mlp",
    *,
    teacher: Any = None,
    learner: Any = None,
    model: str = "sage",
    options: Any = None,
    data: Any = None,
) -> Config:
    groups = {"train": SMALL, "teacher": teacher or {}, "student": learner or {}, "method": options or {}}
    groups["data"] = data or {}
    return resolve("data", teacher_model=model, student_model=student, method=method, levels=(groups,))


def _same(one: Any, other: Any, *, exact: bool = False) -> None:
    one, other = (t.predictor.network.state_dict() for t in (one, other))
    assert one.keys() == other.keys()
    for name, t in one.items():
        torch.testing.assert_close(
            t, other[name], **({"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-5})
        )


# -- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["tran", "ind"])
@pytest.mark.parametrize(("model", "hops"), [("sage", 2), ("gcn", 2)])
def test_a_teacher_on_one_sample_of_all_is_that_of_all_nodes(model: str, hops: int, setting: str) -> None:
    data, given = _task(setting=setting), {"layers": 2}
    one, other = (
        train_teacher(data, _config(model=model, teacher=given | more, method="supervised"), Silent())
        for more in ({}, ALL | {"fanouts": [None] * hops})
    )
    _same(one, other)
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-5, atol=1e-5)
    assert one.reached.best_score == other.reached.best_score
    found = scores.of_network(other.predictor.network, data, layerwise=Layerwise(nodes=7))
    assert found == pytest.approx(scores.of_network(one.predictor.network, data))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("method", "student"), [("glnn", "mlp"), ("kd", "mlp"), ("supervised", "mlp"), ("kd", "sage")])
def test_a_student_on_one_batch_of_all_is_that_of_all_nodes(method: str, student: str, sparse: bool) -> None:
    data, logits = _task(sparse=sparse), torch.randn(N, C, generator=torch.Generator().manual_seed(1))
    more = {"batch_size": 1000} if student == "mlp" else ALL
    one, other = (
        train_student(data, _config(method, student, learner={"layers": 2} | how), logits, None, Silent())
        for how in ({}, more)
    )
    _same(one, other)


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_dgd_on_one_batch_of_all_is_that_of_all_nodes(setting: str) -> None:
    """Rows come in another order, and their states are those of the same nodes."""
    data, config = _task(setting=setting), _config("dgd", student="mlp")
    taught = train_teacher(data, config, Silent())
    learner = {"batch_size": 1000, "layers": 2}
    one, other = (
        train_student(data, _config("dgd", learner=how), taught.logits, taught.bank, Silent())
        for how in ({"layers": 2}, learner)
    )
    _same(one, other)


def _taught(data: NodeTask, config: Config) -> Taught:
    return train_teacher(data, config, Silent())


SAMPLED = {"batch_size": 8, "fanouts": [3, 3]}
SKETCHED = {"buckets": 16}
OPEN = {"fanouts": [None, None]}


def _guessed(
    monkeypatch: pytest.MonkeyPatch, data: NodeTask, config: Config, taught: Taught
) -> tuple[set[int], dict[str, list[Tensor]]]:
    """The ids of the first batch, and what the generators guess for each weight at it."""
    seen: dict[str, list[Tensor]] = {}
    rows: list[Tensor] = []
    real, gradients = _Guesses.of, Dgd.gradients

    def of(self: Any, name: str, *given: Any) -> list[Tensor]:
        found = real(self, name, *given)
        seen.setdefault(name, found)
        return found

    def noted(self: Any, terms: Any, params: Any, batch: Any, *given: Any) -> Any:
        rows.append(batch.index)
        return gradients(self, terms, params, batch, *given)

    with monkeypatch.context() as patch:
        patch.setattr(_Guesses, "of", of)
        patch.setattr(Dgd, "gradients", noted)
        train_student(data, config, taught.logits, taught.bank, Silent())
    return set(rows[0].tolist()), seen


@pytest.mark.parametrize(
    ("student", "setting", "preset", "options"),
    [
        ("mlp", "tran", "tuned", SKETCHED),
        ("mlp", "ind", "paper", {}),
        ("sage", "tran", "tuned", {}),
        ("sage", "tran", "paper", SKETCHED),
    ],
)
def test_the_guesses_of_a_student_are_those_of_the_probe_whatever_the_batch(
    monkeypatch: pytest.MonkeyPatch, student: str, setting: str, preset: str, options: dict[str, Any]
) -> None:
    """Two batches and all nodes at once guess the same at the same weights; dropout has no say in it."""
    data, options = _task(setting=setting), options | {"preset": preset}
    taught = _taught(data, _config("dgd", teacher=SAMPLED, options=options))
    assert taught.bank is not None
    assert taught.bank.probe is not None
    assert torch.equal(taught.bank.probe, data.index[data.split.train])
    more = OPEN if student == "sage" else {}
    found = []
    for how in ({"batch_size": 30} | more, {"batch_size": 50} | more, {}):
        learner = {"epochs": 1, "dropout": 0.5} | how
        found.append(_guessed(monkeypatch, data, _config("dgd", student, learner=learner, options=options), taught))
    (a, one), (b, other), (_, whole) = found
    assert a != b
    assert list(one) == list(other) == list(whole)
    for name in one:
        assert all(bool(g.any()) for g in one[name])
        assert all(torch.equal(g, h) for g, h in zip(one[name], other[name], strict=True))
        torch.testing.assert_close(one[name], whole[name])


@pytest.mark.parametrize(
    ("student", "setting", "options"), [("mlp", "tran", SKETCHED), ("mlp", "ind", {}), ("sage", "tran", SKETCHED)]
)
def test_a_probe_of_all_nodes_guesses_as_all_nodes_at_once_do(
    monkeypatch: pytest.MonkeyPatch, student: str, setting: str, options: dict[str, Any]
) -> None:
    """As that of a small graph is, whose teacher saw all of them."""
    data = _task(setting=setting)
    taught = _taught(data, _config("dgd", options=options))
    assert taught.bank is not None
    assert taught.bank.probe is None
    more = {"batch_size": 40} | (OPEN if student == "sage" else {})
    one, other = (
        _guessed(monkeypatch, data, _config("dgd", student, learner={"epochs": 1} | how, options=options), taught)[1]
        for how in (more, {})
    )
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name])


@pytest.mark.parametrize("options", [SKETCHED, {}])
def test_generators_beside_samples_change_no_weight_of_the_teacher(options: dict[str, Any]) -> None:
    given = SAMPLED | {"dropout": 0.5, "norm": "batch"}
    both = [
        _taught(_task(), _config("dgd", teacher=given, options=options | {"generators": wanted}))
        for wanted in (True, False)
    ]
    _same(*both, exact=True)
    bank = both[0].bank
    assert bank is not None
    assert bank.copies
    assert bank.layers.m == (16 if options else N)
    assert any(key.startswith("imitation/") for key in both[0].reached.history[-1])


@pytest.mark.parametrize(("method", "student"), [("dgd", "mlp"), ("dgd", "sage"), ("kd", "sage"), ("krd", "mlp")])
def test_labels_outside_training_and_validation_touch_no_weight(method: str, student: str) -> None:
    test = np.arange(N) >= 2 * PART
    learner = {"batch_size": 40} | ({} if (method, student) == ("dgd", "mlp") else {"fanouts": [3, 3]})
    config = _config(method, student, teacher=SAMPLED, learner=learner)
    found = []
    for data in (_task(), _task(shuffled=test)):
        taught = _taught(data, config)
        asked = taught.predictor.network
        found.append((taught, train_student(data, config, taught.logits, taught.bank, Silent(), asked=asked)))
    for one, other in zip(*found, strict=True):
        _same(one, other, exact=True)


def test_a_sampled_student_of_generators_continues_bit_for_bit() -> None:
    data, config = (
        _task(),
        _config("dgd", "sage", teacher=SAMPLED, learner=SAMPLED | {"batch_size": 40, "dropout": 0.5}),
    )
    taught = _taught(data, config)

    def course() -> Any:
        with seeded(data):
            distiller = learning.made(config, taught.bank, data.seed)
            return learning.course(data, config, distiller, taught.logits, None)[0]

    one, other = course(), course()
    with seeded(data):
        for epoch in range(2):
            one.epoch(Step(epoch, 4))
        other.model.load_state_dict(one.model.state_dict())
        other.load_optimizer_state({name: t.clone() for name, t in one.optimizer_state().items()})
        other.load_state(one.state())
        random = torch.get_rng_state()
        for going in (one, other):
            torch.set_rng_state(random)
            for epoch in (2, 3):
                going.epoch(Step(epoch, 4))
    for name, t in one.model.state_dict().items():
        assert torch.equal(t, other.model.state_dict()[name]), name


def test_epochs_without_validation_are_not_kept() -> None:
    config = _config(teacher=SAMPLED | {"validate_every": 3}, method="supervised")
    reached = _taught(_task(), config).reached
    assert ["val_acc" in row for row in reached.history] == [False, False, True, True]
    assert reached.best_epoch in (2, 3)


# -- methods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_on_the_batches_that_it_declares_and_on_no_others(method: str) -> None:
    data, kind = _task(), distillers.graph_methods()[method]
    batches = kind.batches if not kind.wraps else distillers.base.ANY
    taught = _taught(data, _config("dgd" if kind.wraps else "supervised"))
    students = {"rows": ("mlp", {"batch_size": 40}), "sampled": ("sage", {"batch_size": 40, "fanouts": [4, 4]})}
    if kind.on_rows and "sampled" in batches and "rows" not in batches:
        students["sampled"] = ("mlp", {"batch_size": 40, "fanouts": [4]})
    for name, (student, how) in students.items():
        if not (kind.on_rows if student == "mlp" else kind.on_graphs):
            continue
        if name not in batches:
            with pytest.raises(UserError, match=r"all nodes at once|how many neighbours"):
                _config(method, student, learner=how)
            continue
        config = _config(method, student, learner=how)
        assert batching.of_student(config) == name
        asked = taught.predictor.network
        learnt = train_student(data, config, taught.logits, taught.bank, Silent(), asked=asked)
        assert learnt.reached.epoch == SMALL["epochs"]
        assert all(bool(t.isfinite().all()) for t in learnt.predictor.network.state_dict().values())


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"teacher": {"batch_size": 8}}, "teacher.fanouts is not given, and sage has 2 layers"),
        ({"teacher": {"batch_size": 8, "fanouts": [3]}}, r"teacher.fanouts is \[3\]"),
        ({"teacher": {"batch_size": 8, "fanouts": [3, 3, 3]}}, r"fanouts is \[3, 3, 3\], and sage has 2 layers"),
        ({"teacher": {"fanouts": [3, 3]}}, "give a batch_size"),
        ({"teacher": {"batch_size": 8, "fanouts": [3, 0]}}, "at least 1, or null"),
        ({"teacher": {"batch_size": 0, "fanouts": [3, 3]}}, "batch_size is 0"),
        ({"teacher": SAMPLED, "model": "appnp"}, "appnp cannot be asked .* choose gat, gcn, mlp or sage"),
        ({"learner": {"batch_size": 8, "fanouts": [3]}}, "mlp looks at rows alone"),
        ({"learner": {"validate_every": 0}}, "validate_every is 0"),
        ({"learner": SAMPLED, "student": "gcnii", "method": "kd"}, "gcnii cannot be asked"),
    ],
)
def test_batches_that_do_not_fit_are_refused(said: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        _config(**said)


def test_a_module_learns_on_all_nodes() -> None:
    module = torch.nn.Linear(30, 3)
    with pytest.raises(UserError, match="Linear cannot be asked"):
        resolve("data", teacher_model=module, method="glnn", levels=({"teacher": {"batch_size": 8}},))


def test_a_description_names_batches_where_there_are_some_alone() -> None:
    """Runs of before are the same runs."""
    data = _task()
    plain, other = _config().describe_teacher(data), _config(teacher=SAMPLED).describe_teacher(data)
    assert not {"batch_size", "fanouts", "validate_every", "storage"} & {*plain["teacher"], *plain["data"]}
    assert (other["teacher"]["batch_size"], other["teacher"]["fanouts"]) == (8, [3, 3])
    words = _config(teacher=SAMPLED).teacher_arguments()
    assert "teacher.fanouts=[3, 3]" in words


# -- files ---------------------------------------------------------------------------------------------------------

FLAGS = ["--quiet", "--device", "cpu", "--teacher", "sage", "--set", "train.epochs=4", "train.width=8"]
FLAGS += ["teacher.batch_size=8", "teacher.fanouts=[3,3]", "student.batch_size=40"]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says how much of a file is in memory")
@pytest.mark.parametrize("half", [False, True])
def test_features_on_disk_do_not_stay_in_memory(tmp_path: Path, half: bool) -> None:
    synthetic.make(Plan(nodes=40_000, edges=80_000, features=64, classes=3, communities=9, half=half), tmp_path / "big")
    data = task(mapped.read(tmp_path / "big"), seed=0)
    config = _config(learner={"batch_size": 1000, "norm": "batch"})
    course, _ = learning.course(data, config, learning.made(config, None, 0), torch.randn(40_000, 3), None)
    course.epoch(Step(0, 1))
    lines = Path("/proc/self/smaps").read_text().splitlines()
    mapped_ones = [i for i, line in enumerate(lines) if line.endswith(str(tmp_path / "big/x.npy"))]
    assert mapped_ones, "the features are read from their file"
    there = [int(next(line for line in lines[i:] if line.startswith("Rss:")).split()[1]) for i in mapped_ones]
    assert sum(there) < 2000, "of 10 or 5 MB"


PLACES = {"tea": "toy/given-tran/sage/teacher/seed0", "stu": "toy/given-tran/sage/mlp/dgd/seed0"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, and both stages run on batches."""
    folder = tmp_path_factory.mktemp("batches")
    np.savez(folder / "toy.npz", **_arrays())
    assert main(["--dataset", str(folder / "toy.npz"), "--out", str(folder / "runs"), *FLAGS]) == 0
    return folder


def _command(folder: Path, out: Path) -> Callable[..., int]:
    fixed = ["--dataset", str(folder / "toy.npz"), "--out", str(out), *FLAGS]
    return lambda *more: main([*fixed, *more])


def test_the_files_are_those_of_all_nodes_at_once(finished: Path) -> None:
    place = finished / "runs" / PLACES["tea"]
    data = task(gnnkd.data.graphs.load(finished / "toy.npz"), seed=0)
    tensors, meta = checkpoint.load(place / "outputs.safetensors")
    network = gnnkd.load(place)
    assert isinstance(network, Predictor)
    torch.testing.assert_close(tensors["logits"], network.logits(data.x, data.graph))
    assert torch.equal(shared(mapped_outputs(place / "outputs.safetensors", data)), tensors["logits"])
    assert meta == {"fingerprint": data.fingerprint}
    result = json.loads((place / "result.json").read_text())
    assert result["test_acc"] == pytest.approx(scores.of_network(network.network, data)["test_acc"])
    probe = stored_bank(place / "generators.safetensors").probe
    assert probe is not None
    assert torch.equal(probe, data.index[data.split.train])


@pytest.mark.parametrize("mode", ["tea", "stu"])
def test_a_run_that_ends_within_an_epoch_continues_to_the_same_files(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    out, steps = tmp_path / "runs", []
    command = _command(finished, out)
    module, name = (sampled_steps, "apply") if mode == "tea" else (row_steps, "update")
    if mode == "stu":
        assert command("--mode", "tea") == 0
    real = getattr(module, name)

    def broken(*args: Any) -> Any:
        steps.append(next(arg.epoch for arg in args if isinstance(arg, Step)))
        if steps[-1] == 2 and steps.count(2) == 2:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, broken)
        assert command("--mode", mode, "--set", "train.checkpoint_every=1") == 130
    assert steps.count(0) > 1
    assert command("--mode", mode, "--resume") == 0
    for file in (out / PLACES[mode]).iterdir():
        if file.suffix in (".safetensors", ".jsonl", ".png"):
            assert file.read_bytes() == (finished / "runs" / PLACES[mode] / file.name).read_bytes(), file.name


def test_outputs_are_kept_in_half_the_bytes_on_request(finished: Path, tmp_path: Path) -> None:
    command = _command(finished, tmp_path / "runs")
    assert command("--method", "glnn", "--set", "data.storage=float16") == 0
    half, whole = (
        checkpoint.load(runs / PLACES["tea"] / "outputs.safetensors")[0]["logits"]
        for runs in (tmp_path / "runs", finished / "runs")
    )
    assert half.dtype == torch.float16
    assert torch.equal(half, whole.half())
    config = json.loads((tmp_path / "runs" / PLACES["tea"] / "config.json").read_text())
    assert config["data"]["storage"] == "float16"


@pytest.mark.parametrize("batches", [True, False])
def test_a_student_hears_of_what_is_kept(batches: bool) -> None:
    """In memory as from the files, whichever stage is on batches."""
    teacher = SAMPLED if batches else {}
    logits: list[Tensor] = [
        _taught(_task(), _config(teacher=teacher, data={"storage": storage})).logits
        for storage in ("float32", "float16")
    ]
    assert logits[1].dtype == torch.float16
    assert torch.equal(logits[0].half(), logits[1])


def test_truncated_outputs_are_one_line(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = _command(finished, tmp_path / "runs")
    assert command("--mode", "tea") == 0
    file = tmp_path / "runs" / PLACES["tea"] / "outputs.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert command("--mode", "stu") == 2
    assert "outputs.safetensors is not a readable safetensors file" in capsys.readouterr().err
