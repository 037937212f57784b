"""Two processes, each with its share of a batch, take the step that one takes on the whole."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from gnnkd.distillers.supervised import Supervised
from gnnkd.errors import UserError
from gnnkd.train import processes
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
        return Output(self.map(x))


def _stepped(rows: torch.Tensor) -> dict[str, torch.Tensor]:
    model = Line()
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batch = Batch.of(x[rows], rows % 2, None, torch.ones(rows.numel(), dtype=torch.bool))
    for epoch in range(3):
        update(model, optimizer, Supervised(), batch, None, Step(epoch, 3))
    return model.state_dict()


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


def test_alone_nothing_is_sent() -> None:
    gradients = {"w": torch.ones(2)}
    assert processes.average(gradients, 3)["w"] is gradients["w"]
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
