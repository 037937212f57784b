"""Layer by layer and piece by piece the logits are those of one pass over all nodes."""

from __future__ import annotations

import errno
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gnnkd import nn
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.gcn import GCNConv
from gnnkd.nn.layerwise import Layerwise
from gnnkd.nn.network import Network
from gnnkd.nn.tables import Tables

N, D, C = 90, 10, 4
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "gcn": ("gcn", {}),
    "sage": ("sage", {}),
    "sage with gcn's sum": ("sage", {"aggregator": "gcn"}),
    "gat": ("gat", {"layers": 3, "heads": 2}),
    "mlp": ("mlp", {}),
}
SMALL = Layerwise(nodes=13, entries=40, memory=0)


def graph(*, weighted: bool = False) -> Graph:
    """Directed, with a hub, loops, equal edges and nodes without any."""
    g = torch.Generator().manual_seed(0)
    index = torch.randint(N - 3, (2, 400), generator=g)
    hub = torch.stack([torch.arange(60), torch.full((60,), 7)])
    index = torch.cat([index, hub, index[:, :9]], 1)
    return Graph.from_edge_index(index, N, torch.rand(index.shape[1], generator=g) + 0.1 if weighted else None)


def features() -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1)) * (torch.arange(N * D).view(N, D) % 3 > 0)


def network(kind: str, **given: Any) -> Network:
    """With running statistics that are not those of a new network."""
    name, options = NETWORKS[kind]
    torch.manual_seed(2)
    made = nn.MODELS[name](D, C, **{"width": 16, **options, **given})
    assert isinstance(made, Network)
    made.train()(features(), graph())
    return made.eval()


def whole(made: torch.nn.Module, x: torch.Tensor | CSR, g: Graph | None) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = made.eval()(x, g).logits
    return logits


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("width", [4, 16])  # narrower and wider than the features: both orders of map and sum
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_logits_are_those_of_the_whole_pass(kind: str, weighted: bool, width: int, norm: str) -> None:
    made, x, g = network(kind, norm=norm, width=width), features(), graph(weighted=weighted)
    want = whole(made, x, g)
    made.train()
    found = SMALL.logits(made, x, None if kind == "mlp" else g)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(SMALL.logits(made, CSR.from_dense(x), g), want, rtol=1e-5, atol=1e-5)
    assert not made.training
    assert not found.requires_grad


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("kind", NETWORKS)
def test_of_some_nodes_only_what_they_need_is_computed(kind: str, layers: int) -> None:
    made, x, g = network(kind, layers=layers), features(), graph()
    ids = torch.tensor([1, 7, 8, 9, 88])
    want = whole(made, x, g)[ids]
    torch.testing.assert_close(SMALL.logits(made, x, g, ids=ids), want, rtol=1e-5, atol=1e-5)
    near = {88}  # a node without edges: nothing but itself
    far = torch.tensor([node for node in range(N) if node not in near])
    lost = x.index_fill(0, far, float("nan"))
    alone = SMALL.logits(made, lost, g, ids=torch.tensor([88]))
    torch.testing.assert_close(alone, want[-1:], rtol=1e-5, atol=1e-5)
    assert SMALL.logits(made, x, g, ids=ids[:0]).shape == (0, C)


@pytest.mark.parametrize("kind", NETWORKS)
def test_pieces_and_places_change_nothing(kind: str, tmp_path: Path) -> None:
    made, x, g = network(kind, norm="batch"), features(), graph()
    want = Layerwise().logits(made, x, g)
    for nodes, entries in ((N, 1), (29, 100)):
        for memory in (0, 4 * N * 20):
            some = Layerwise(nodes=nodes, entries=entries, memory=memory, folder=tmp_path)
            torch.testing.assert_close(some.logits(made, x, g), want, rtol=1e-5, atol=1e-5)
    assert list(tmp_path.iterdir()) == [], "what was kept between the layers is gone"


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("half", [False, True])
def test_features_and_logits_may_be_on_disk(kind: str, half: bool, tmp_path: Path) -> None:
    made, g = network(kind), graph()
    x = features().half() if half else features()
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="r+"))
    into = np.lib.format.open_memmap(tmp_path / "logits.npy", "w+", np.float32, (N, C))
    SMALL.logits(made, mapped, g, into=torch.from_numpy(into))
    into.flush()
    found = torch.from_numpy(np.load(tmp_path / "logits.npy"))
    torch.testing.assert_close(found, whole(made, x.float(), g), rtol=1e-5, atol=1e-5)


class _Largest(TorchDispatchMode):
    """The bytes of the largest memory that an operation asked for."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs or {}))}
        for t in _tensors(result):
            if t.layout == torch.strided and t.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, t.untyped_storage().nbytes())
        return result


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [t for part in parts for t in _tensors(part)]


@pytest.mark.parametrize("kind", NETWORKS)
def test_nothing_in_memory_is_as_large_as_the_graph(kind: str) -> None:
    """With a budget of zero: N numbers and a piece's worth of rows and entries, never N rows and never all edges."""
    n, nodes, entries, width = 4000, 50, 400, 64
    index = torch.randint(n, (2, 10 * n), generator=torch.Generator().manual_seed(3))
    g, x = Graph.from_edge_index(index, n), torch.randn(n, D)
    made, degree = network(kind, width=width), int(g.adjacency.rowptr.diff().max())
    into = torch.empty(n, C)
    with _Largest() as seen:
        Layerwise(nodes=nodes, entries=entries, memory=0).logits(made, x, g, into=into)
    bound = max(8 * (n + 1), 8 * nodes * width, 8 * (max(entries, degree) + nodes) * 2)
    assert seen.bytes <= bound < 4 * n * width // 8
    assert bound < 4 * g.n_edges


@pytest.mark.parametrize("name", ["tag", "monet", "appnp", "sgc", "gcnii"])
def test_other_networks_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match="choose") as error:
        SMALL.logits(nn.MODELS[name](D, C), features(), graph())
    assert "\n" not in str(error.value)


def test_a_convolution_without_added_loops_is_known_too() -> None:
    convs = [GCNConv(D, 8, add_self_loops=False), GCNConv(8, C, add_self_loops=False)]
    made, x, g = Network(convs, dropout=0.5, input_dropout=0.0, norm="none"), features(), graph()
    torch.testing.assert_close(SMALL.logits(made, x, g), whole(made, x, g), rtol=1e-5, atol=1e-5)


def test_doubles_stay_doubles() -> None:
    made, x, g = network("sage").double(), features().double(), graph()
    found = SMALL.logits(made, x, g)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, whole(made, x, g), rtol=1e-12, atol=1e-12)


def test_what_cannot_be_asked_is_refused() -> None:
    made, x = network("gcn"), features()
    with pytest.raises(ValueError, match="give it a Graph"):
        SMALL.logits(made, x)
    for ids in ([3, 2], [3, 3]):
        with pytest.raises(ValueError, match="ascending and distinct"):
            SMALL.logits(made, x, graph(), ids=torch.tensor(ids))
    for wrong in ({"nodes": 0}, {"entries": 0}, {"memory": -1}):
        with pytest.raises(ValueError, match="at least"):
            Layerwise(**wrong)


def test_a_full_disk_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1 << 20, 1 << 20, 4 * N * 16))
    made, x, g = network("gcn", width=16), features(), graph()
    with pytest.raises(UserError, match=r"up to .* of disk and .* free; free space, or choose another --out"):
        Layerwise(memory=0, folder=tmp_path).logits(made, x, g)
    Layerwise(folder=tmp_path).logits(made, x, g)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sparse", [False, True])
def test_a_network_of_rows_needs_no_tables(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = network("mlp", norm="batch", layers=3), features()
    want = whole(made, x, graph())
    monkeypatch.setattr(Tables, "make", None)
    given = CSR.from_dense(x) if sparse else x
    torch.testing.assert_close(SMALL.logits(made, given), want)
    ids = torch.tensor([1, 7, 8, 88])
    torch.testing.assert_close(SMALL.logits(made, given, graph(), ids=ids), want[ids])
    into = torch.empty(N, C)
    assert SMALL.logits(made, given, into=into) is into
    torch.testing.assert_close(into, want)


def _maps(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in a file that is mapped."""
    spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    at = [(*(int(edge, 16) for edge in span[0].split("-")), int(span[4])) for span in spans]
    return any(first <= tensor.data_ptr() < last and inode for first, last, inode in at)


@pytest.mark.skipif(sys.platform != "linux", reason="what a process maps is told in /proc")
def test_tables_are_in_memory_as_long_as_the_budget_lasts(tmp_path: Path) -> None:
    tables = Tables(4 * 10 * 3, tmp_path, torch.zeros(1))
    first, second = tables.make(10, 2), tables.make(10, 2)
    assert (_maps(first), _maps(second)) == (False, True), "the second one does not fit"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind, however a process ends"
    second[:] = 1.0
    tables.drop(first)
    tables.drop(second)
    assert bool((second == 1).all()), "what is held stays readable"
    assert not _maps(tables.make(10, 3))


def test_tables_on_a_gpu_are_measured_by_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tables: Any = Tables(1 << 50, None, torch.zeros(1))
    tables.like = SimpleNamespace(device=torch.device("cuda"))
    for name, found in (("mem_get_info", (1000, 2000)), ("memory_reserved", 300), ("memory_allocated", 100)):
        monkeypatch.setattr(torch.cuda, name, lambda _, found=found: found)
    tables.check(1200)
    with pytest.raises(UserError, match=r"and the GPU has 0\.0 GB free; run it on the CPU"):
        tables.check(1201)


def test_a_disk_that_is_full_by_then_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mapped page without room would end the process: the room is taken when the table is made."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"takes up to .* of disk and .* cannot take it \(No space left on device\)"):
        Layerwise(memory=0, folder=tmp_path).logits(network("gcn", width=16), features(), graph())
    assert list(tmp_path.iterdir()) == []
