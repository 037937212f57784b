"""Two processes on graphs: the steps of one, equal weights, one line where one of them has a mistake or is killed."""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from gnnkd import nn, processes
from gnnkd.data.row_store import RowStore
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd import Dgd
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.glnn import Glnn
from gnnkd.errors import UserError
from gnnkd.graph.structure import Graph
from gnnkd.main import ended
from gnnkd.nn.layerwise import Layerwise
from gnnkd.train.course import Course
from gnnkd.train.fit import Fit
from gnnkd.train.fit import Progress as Reached
from gnnkd.train.rows import Rows
from gnnkd.train.sampled import Sampled
from gnnkd.train.settings import TrainSettings
from gnnkd.types import Batch, Output, Step

N, D, C = 120, 6, 3
IDS = torch.arange(N)
Y = IDS % C
LABELLED, VAL = IDS % 5 < 2, IDS % 5 == 4
CASES = [("rows", "mlp"), ("sampled", "mlp"), ("sampled", "sage")]
METHODS = ["glnn", "dgd", "dgd uniform", "dgd flat"]
ENOUGH = TrainSettings(epochs=3)


def _arrays() -> tuple[Tensor, Tensor, Graph]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=g) + torch.nn.functional.one_hot(Y, D)
    logits = 4 * torch.nn.functional.one_hot(Y, C) + torch.randn(N, C, generator=g)
    return x, logits, Graph.from_edge_index(torch.randint(N, (2, 600), generator=g), N)


def _method(name: str) -> Distiller:
    """GLNN reads the labels of some rows, of which processes have unequal numbers."""
    base = Glnn(label_weight=0.5)
    if name == "glnn":
        return base
    layers = Layers(("a", "b", "c"), (8, 8, C), (1, 1, 1), 50, N)
    bank = Bank(layers, GeneratorSettings().resolved(), probe=IDS[::3])
    for epoch in range(3):
        bank.offer(0.5, epoch, bank.untrained(seed=epoch))
    control = name.partition(" ")[2] or "none"
    method = Dgd(base, bank, beta=100.0, limit=0.9, control=control)  # type: ignore[arg-type]
    nothing = Output(torch.zeros(0, C))
    method.prepare(Lesson(nothing, nothing, (), Y, 0, 0, 0, index=IDS))
    return method


def _course(kind: str, model: str, method: str, *, labelled: Tensor = LABELLED, val: Tensor = VAL, **given: Any) -> Any:
    x, logits, graph = _arrays()
    torch.manual_seed(0)
    network = nn.MODELS[model](D, C, **{"layers": 2, "width": 8, "dropout": 0.0, **given})
    course: Course
    if kind == "rows":
        store = RowStore(
            x=x.numpy(), y=Y.numpy(), learn=np.ones(N, bool), labelled=labelled.numpy(), logits=logits.numpy(), seed=0
        )
        course = Rows(network, store, _method(method), val.numpy(), ENOUGH, batch_size=25)
    else:
        fanouts = [None, None] if model == "sage" else []
        batch = Batch.of(x, Y, graph, labelled)
        course = Sampled(
            network, batch, _method(method), Output(logits), (Y, val), ENOUGH,
            fanouts=fanouts, batch_size=25, inference=Layerwise(nodes=50, entries=300),
        )  # fmt: skip
    course.optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return course


def _trained(kind: str, model: str, method: str, **given: Any) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Gradients of the last step and weights, and what was said of each epoch."""
    course = _course(kind, model, method, **given)
    reached = Fit(course, ENOUGH).run()
    grads = {f"grad.{name}": p.grad for name, p in course.model.named_parameters() if p.grad is not None}
    assert grads
    return {**reached.last, **grads}, reached.history


def _interrupted(folder: Path, *, rank: int) -> None:
    """A training whose second process is killed within the third epoch."""
    course = _course("sampled", "sage", "dgd")
    fit = Fit(course, TrainSettings(epochs=5, checkpoint_every=1), file=folder / "checkpoint.safetensors")

    def hear(epoch: int, share: float) -> None:
        if rank == 1 and epoch == 2 and share > 0.4:
            os.kill(os.getpid(), signal.SIGKILL)

    class Ear:
        def update(self, epoch: int, values: Any) -> None:
            pass

        within = staticmethod(hear)

    fit.run(Ear())


def _process(rank: int, folder: Path, port: int) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    with (folder / f"stderr{rank}").open("w") as sys.stderr:
        sys.exit(ended(lambda: _all(rank, folder)))


def _all(rank: int, folder: Path) -> None:
    with processes.joined("cpu"):
        found: dict[str, Any] = {}
        for kind, model in CASES:
            for method in METHODS:
                found[f"{kind} {model} {method}"] = _trained(kind, model, method)
            found[f"{kind} {model} alike"] = _trained(kind, model, "dgd", norm="batch", dropout=0.5)
        one = IDS == 4
        found["one"] = _trained("sampled", "sage", "glnn", val=one)[1]
        for kind in ("rows", "sampled"):
            with pytest.raises(UserError, match="had no labelled") as said:
                _trained(kind, "mlp", "glnn", labelled=one)
            found[f"{kind} blank"] = str(said.value)
        course = _course("sampled", "mlp", "glnn")
        before = torch.get_rng_state()
        with course._noise(0):
            found["noise"] = torch.rand(3)
        found["kept"] = torch.equal(torch.get_rng_state(), before)
        with processes.first_here():
            found["first"] = (folder / "made").exists()
            (folder / "made").touch()
        torch.save(found, folder / f"{rank}.pt")
        _interrupted(folder, rank=rank)


@dataclass(frozen=True)
class Left:
    """What two processes have left: by rank what they found, their exit codes, and what they said."""

    found: list[dict[str, Any]]
    codes: list[int | None]
    said: list[str]
    folder: Path


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("shared")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [mp.get_context("spawn").Process(target=_process, args=(rank, folder, port)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    said = [(folder / f"stderr{rank}").read_text() for rank in range(2)]
    assert (folder / "0.pt").exists(), said
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return Left(found, [process.exitcode for process in started], said, folder)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kind", "model"), CASES)
def test_they_take_the_steps_of_one(left: Left, kind: str, model: str, method: str) -> None:
    """Gradients are those of the whole batch before a method moves them; a fusion of shares is another one."""
    tensors, history = _trained(kind, model, method)
    for found in left.found:
        mine, rows = found[f"{kind} {model} {method}"]
        assert mine.keys() == tensors.keys()
        for name, t in mine.items():
            torch.testing.assert_close(t, tensors[name], rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text)
        for row, other in zip(rows, history, strict=True):
            assert row["val_acc"] == other["val_acc"]
            assert row["kd"] == pytest.approx(other["kd"], rel=1e-4)


@pytest.mark.parametrize(("kind", "model"), CASES)
def test_they_do_not_drift_apart(left: Left, kind: str, model: str) -> None:
    """Running statistics of shares differ, and with them what a method that looks at other rows would see."""
    (mine, rows), (others, other_rows) = (found[f"{kind} {model} alike"] for found in left.found)
    assert rows == other_rows
    for name, t in mine.items():
        assert torch.equal(t, others[name]), name


def test_fewer_validation_nodes_than_processes(left: Left) -> None:
    assert left.found[0]["one"] == left.found[1]["one"]
    assert [row["val_acc"] for row in left.found[0]["one"]] == [
        row["val_acc"] for row in _trained("sampled", "sage", "glnn", val=IDS == 4)[1]
    ]


@pytest.mark.parametrize("kind", ["rows", "sampled"])
def test_a_mistake_of_one_is_said_by_both(left: Left, kind: str) -> None:
    assert left.found[0][f"{kind} blank"] == left.found[1][f"{kind} blank"]


def test_dropout_is_of_each_process_and_the_random_state_of_the_run_stays(left: Left) -> None:
    noise = [found["noise"] for found in left.found]
    assert not torch.equal(*noise)
    course = _course("sampled", "mlp", "glnn")
    with course._noise(0):
        assert torch.equal(torch.rand(3), noise[0]), "the first process has the noise of one alone"
    assert [found["kept"] for found in left.found] == [False, True]


def test_the_first_process_of_a_machine_makes_what_the_others_find(left: Left) -> None:
    assert [found["first"] for found in left.found] == [False, True]


def test_a_killed_process_ends_the_others_in_one_line_and_the_run_continues(left: Left) -> None:
    assert left.codes == [2, -signal.SIGKILL]
    line = left.said[0].strip()
    assert len(line.splitlines()) == 1, line
    assert "lost another process" in line
    assert "--resume" in line
    whole = Fit(_course("sampled", "sage", "dgd"), TrainSettings(epochs=5)).run()
    later = Fit(_course("sampled", "sage", "dgd"), TrainSettings(epochs=5), file=left.folder / "checkpoint.safetensors")
    assert later.restore() == 2
    reached: Reached = later.run()
    for name, t in whole.last.items():
        torch.testing.assert_close(reached.last[name], t, rtol=1e-4, atol=1e-5)


def test_alone_nothing_waits() -> None:
    course = _course("sampled", "mlp", "glnn")
    with processes.first_here():
        processes.wait()
    assert processes.several() == {}
    assert course.epoch(Step(0, 3)).scored
