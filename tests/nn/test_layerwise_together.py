"""Two processes that infer together come to what one does, and each does its share."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from gnnkd import processes
from gnnkd.graph.structure import Graph
from gnnkd.nn import gat, gcn, mlp, sage
from gnnkd.nn.layerwise import Layerwise

N, D, C = 83, 6, 3
SMALL = {"nodes": 10, "entries": 60}


def _graph() -> Graph:
    draws = torch.Generator().manual_seed(0)
    return Graph.from_edge_index(torch.randint(N, (2, 400), generator=draws), N)


def _networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made = {
        "gcn": gcn(D, C, layers=3, width=8, norm="batch"),
        "sage": sage(D, C, layers=3, width=8),
        "gat": gat(D, C, layers=2, width=8),
        "mlp": mlp(D, C, layers=2, width=8),
    }
    for network in made.values():
        network.eval()
    return made


def _asked(name: str) -> torch.Tensor | None:
    """All nodes, or a number of them that is no multiple of anything."""
    return None if name != "sage" else torch.arange(1, N, 2)


def _process(rank: int, folder: str, port: int) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    with processes.joined("cpu"):
        for name, network in _networks().items():
            rows = 0

            def heard(_: object, __: object, output: torch.Tensor) -> None:
                nonlocal rows
                rows += output.shape[0]

            if name == "mlp":
                network.layers[-1].register_forward_hook(heard)
            parts = Layerwise(**SMALL, memory=0, folder=Path(folder)).parts(
                network, x, _graph(), ids=_asked(name), together=True
            )
            ids, logits = zip(*((part, found.clone()) for part, found in parts), strict=True)
            assert not any(one.requires_grad for one in logits)
            assert torch.is_grad_enabled()
            torch.save((torch.cat(ids), torch.cat(logits), rows), Path(folder) / f"{name}{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have found."""
    found = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, args=(str(found), port), nprocs=2)
    return found


@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "mlp"])
def test_both_have_the_logits_of_one(folder: Path, name: str) -> None:
    x, ids = torch.randn(N, D, generator=torch.Generator().manual_seed(1)), _asked(name)
    alone = Layerwise(**SMALL).logits(_networks()[name], x, _graph(), ids=ids)
    shares = []
    for rank in range(2):
        who, logits, rows = torch.load(folder / f"{name}{rank}.pt", weights_only=True)
        assert torch.equal(who, torch.arange(N) if ids is None else ids)
        torch.testing.assert_close(logits, alone)
        shares.append(rows)
    if name == "mlp":
        assert shares == [42, 41]  # fourteen stretches of six, but for the last one, in turns


def test_parts_are_divided_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five parts among three: the second one does two, hears three, and yields all in order."""
    sent: list[int] = []
    monkeypatch.setattr(processes, "world", lambda: 3)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    monkeypatch.setattr(processes.dist, "broadcast", lambda _, rank: sent.append(rank))
    worked: list[int] = []

    def work(part: int) -> list[torch.Tensor]:
        worked.append(part)
        return [torch.tensor(part), torch.tensor(-part)]

    found = list(processes.divided(iter(range(5)), work, lambda _: [torch.tensor(9), torch.tensor(9)]))
    assert [part for part, _ in found] == [0, 1, 2, 3, 4]
    assert worked == [1, 4]
    assert sent == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]
    assert [[int(t) for t in one] for _, one in found] == [[9, 9], [1, -1], [9, 9], [9, 9], [4, -4]]


def test_alone_parts_need_no_group() -> None:
    found = list(processes.divided(range(3), lambda part: [torch.tensor(part)], lambda _: []))
    assert [(part, int(one)) for part, (one,) in found] == [(0, 0), (1, 1), (2, 2)]
