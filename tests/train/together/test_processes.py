"""Two processes, each with its share of a batch, move networks that teach each other as one process does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from gnnkd import distillers, processes
from gnnkd.graph.split import Split
from gnnkd.train.fit import Fit, Progress
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.train.together.gates import gate
from gnnkd.train.together.minibatches import TogetherMinibatches
from gnnkd.train.together.node import Edge, Node
from gnnkd.types import Batch, Output


def _from(source: int, gated: str) -> Edge:
    return Edge(source, distillers.build("kd", ce_weight=0.0, kd_weight=1.0), gate(gated))


class Line(torch.nn.Module):
    """A linear map."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.map = torch.nn.Linear(3, 2)

    def forward(self, x: Tensor, graph: object = None) -> Output:
        return Output(self.map(x.flatten(1)))


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

    def scan(self, mask: Tensor, batch_size: int) -> Iterator[Batch]:
        for ids in mask.nonzero().flatten().split(batch_size):
            yield Batch.of(self.x[ids], self.y[ids], None, torch.zeros_like(ids, dtype=torch.bool), ids)


def _lines(start: int = 0) -> tuple[TogetherMinibatches, Progress]:
    """Node 1 hears through the gate of correct rows alone, which lets none pass for some shares."""
    settings = ImageTrainSettings(epochs=3, batch_size=4, lr=0.1)
    own = Edge(None, distillers.build("supervised"), gate("through"))
    given = [
        Node("line", Line(start), settings, (own, _from(1, "positive"))),
        Node("line", Line(start + 1), settings, (_from(0, "correct"),)),
        Node("line", Line(start + 2), settings, (), follows=(0, 0.5)),
    ]
    course = TogetherMinibatches(given, Pictures())
    return course, Fit(course, settings).run()


def _process(rank: int, folder: str, port: int) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    with processes.joined("cpu"):
        course, found = _lines(10 * rank)
        assert [best.score is not None for best in course.bests] == [node.follows is None for node in course.nodes]
        torch.save((found.last, found.history), Path(folder) / f"{rank}.pt")


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, args=(str(tmp_path), port), nprocs=2)
    _, whole = _lines()
    assert max(row["node1/from0/kd"] for row in whole.history) > 0
    for rank in range(2):
        weights, history = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, t in weights.items():
            torch.testing.assert_close(t, whole.last[name], rtol=1e-4, atol=1e-6)
        for row, other in zip(history, whole.history, strict=True):
            assert row == pytest.approx(other, rel=1e-4)
