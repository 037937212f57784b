"""Two processes, each with its share of a batch, take the step that one takes on the whole."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from gnnkd import distillers, processes
from gnnkd.distillers.base import Lesson
from gnnkd.distillers.crd import share
from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError
from gnnkd.graph.split import Split
from gnnkd.train.fit import Fit
from gnnkd.train.lessons import Live
from gnnkd.train.minibatches import Minibatches
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.train.update import update
from gnnkd.types import Batch, Output, Step

ROWS = torch.arange(7)
SHARES = (ROWS[:5], ROWS[5:])


class Line(nn.Module):
    """A linear map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, graph: object = None) -> Output:
        return Output(self.map(x.flatten(1)))


def _stepped(rows: torch.Tensor) -> dict[str, torch.Tensor]:
    model = Line()
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batch = Batch.of(x[rows], rows % 2, None, torch.ones(rows.numel(), dtype=torch.bool))
    for epoch in range(3):
        update(model, optimizer, Supervised(), batch, None, Step(epoch, 3))
    return model.state_dict()


class Pictures:
    """Seven training images and two for validation; of several processes each gets every other one."""

    def __init__(self) -> None:
        ids = torch.arange(9)
        self.y = ids % 2
        self.x = torch.randn(9, 3, 1, 1, generator=torch.Generator().manual_seed(2))
        self.split = Split(ids < 7, ids >= 7, ids >= 9)

    def epoch(
        self, epoch: int, batch_size: int, *, per_class: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        for ids in torch.arange(7).split(batch_size):
            mine = ids[rank::world]
            yield Batch.of(self.x[mine], self.y[mine], None, torch.ones_like(mine, dtype=torch.bool), mine)

    def scan(self, mask: torch.Tensor, batch_size: int) -> Iterator[Batch]:
        for ids in mask.nonzero().flatten().split(batch_size):
            yield Batch.of(self.x[ids], self.y[ids], None, torch.zeros_like(ids, dtype=torch.bool), ids)


def _trained(method: str) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    settings = ImageTrainSettings(epochs=3, batch_size=4, lr=0.1)
    model, pictures, distiller = Line(), Pictures(), distillers.build(method)
    shown = Output(torch.zeros(1, 2))
    distiller.prepare(Lesson(shown, shown, (), pictures.y, 0.9, 5e-4, 0))
    teacher = Live(Line(), settings, maps=False)
    with torch.no_grad():
        teacher.network.map.weight.neg_()
    reached = Fit(Minibatches(model, pictures, distiller, teacher, settings), settings).run()
    return reached.last, reached.history


METHODS = ("kd", "dkd", "dot")


def _process(rank: int, folder: str, port: int) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    with processes.joined("cpu") as device:
        assert device == "cpu"
        assert (processes.rank(), processes.world()) == (rank, 2)
        assert processes.any_of(rank == 1)
        assert not processes.any_of(False)
        held = torch.full((2,), float(rank))
        processes.same([held])
        assert held.tolist() == [0.0, 0.0]
        torch.save(_stepped(SHARES[rank]), Path(folder) / f"{rank}.pt")
        for method in METHODS:
            torch.save(_trained(method), Path(folder) / f"{method}{rank}.pt")
    assert not dist.is_initialized()


def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, args=(str(tmp_path), port), nprocs=2)
    whole = _stepped(ROWS)
    for rank in range(2):
        for name, t in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            torch.testing.assert_close(t, whole[name])
    for method in METHODS:  # whole trainings: uneven shares, and histories that are of all images
        weights, history = _trained(method)
        for rank in range(2):
            found, rows = torch.load(tmp_path / f"{method}{rank}.pt", weights_only=True)
            for name, t in found.items():
                torch.testing.assert_close(t, weights[name], rtol=1e-4, atol=1e-6)
            for row, other in zip(rows, history, strict=True):
                assert row == pytest.approx(other, rel=1e-4)


def test_a_process_waits_while_another_infers_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default, ten minutes on a GPU, would end it."""
    names = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    patience: list[timedelta] = []
    monkeypatch.setattr(dist, "init_process_group", lambda _, *, timeout: patience.append(timeout))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with processes.joined("cpu"):
        assert patience[0] >= timedelta(days=1)


def test_alone_nothing_is_sent() -> None:
    gradients = {"w": torch.ones(2)}
    assert processes.summed(gradients)["w"] is gradients["w"]
    assert float(processes.parts({"rows": torch.tensor(3)})["rows"]) == 1
    assert (processes.rank(), processes.world()) == (0, 1)
    with processes.joined("cpu") as device:
        assert device == "cpu"
        assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("said", "match"), [("two", "WORLD_SIZE is 'two'"), ("2", "start the processes with torchrun")]
)
def test_half_an_environment_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch, said: str, match: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", said)
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match=match):
        processes.launched()


@pytest.mark.parametrize("heard", [0, 1])
def test_banks_of_several_processes_say_in_a_line_that_one_is_gone(monkeypatch: pytest.MonkeyPatch, heard: int) -> None:
    """Whichever message it is that breaks."""

    def sent(*_: object, **__: object) -> None:
        nonlocal heard
        heard -= 1
        if heard < 0:
            raise RuntimeError("Connection closed by peer [host]:1. And more.")

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    for name in ("all_reduce", "all_gather"):
        monkeypatch.setattr(dist, name, sent)
    with pytest.raises(processes.LostError, match=r"process 1 has lost another process .*closed by peer"):
        share.rows_of_all(torch.arange(2), torch.ones(2, 3))
    heard = 0
    with pytest.raises(processes.LostError, match="lost another"):
        share.mean_of_all(torch.ones(()))
