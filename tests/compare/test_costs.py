"""Multiply-adds counted by hand, and neighbourhoods that answer as the whole graph does; no test looks at a clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gnnkd import nn
from gnnkd.compare import costs, fetch, latency, macs
from gnnkd.compare.latency import Service
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import ask
from gnnkd.nn.blocks import Blocks

N, D, C, WIDTH = 400, 12, 3, 8
NAMES = tuple(nn.MODELS)
LAYERED = ("gcn", "sage", "gat", "mlp")


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, Graph]:
    """Sparse rows and a random graph of small degree with a hub, isolated nodes and self loops."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=g) * (torch.rand(N, D, generator=g) < 0.3)
    a = torch.randint(N - 5, (2, 450), generator=g)
    hub = torch.stack([torch.arange(0, 60), torch.full((60,), 7)])
    loops = torch.tensor([[3, 9], [3, 9]])
    edges = torch.unique(torch.cat([a, a.flip(0), hub, hub.flip(0), loops], 1), dim=1)
    return x, Graph.from_edge_index(edges, N)


def _network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {} if name == "sgc" else {"layers": 2, "width": WIDTH}
    options |= {"k": 3} if name == "appnp" else {}
    return nn.MODELS[name](D, C, **options).eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@torch.no_grad()
def test_a_neighbourhood_gives_the_logits_of_the_whole_graph(
    data: tuple[torch.Tensor, Graph], name: str, sparse: bool
) -> None:
    x, graph = data
    rows = CSR.from_dense(x) if sparse else x
    network = _network(name)
    hops = macs.hops(network, D)
    want = network(rows, graph).logits
    blocks = Blocks.of(network, rows)
    assert (blocks is not None) == (name in LAYERED)
    for how in [None, *([blocks] if blocks else [])]:
        # GMMConv reads degrees from the edges, so its outermost nodes need theirs.
        service = Service(network, rows, graph, torch.arange(N), (hops, name == "monet"), how)
        for nodes in (torch.tensor([7]), torch.tensor([N - 1, 3, 3, 0]), torch.randperm(N)[:50]):
            found, _ = service.answer(nodes)
            assert torch.allclose(found, want[nodes], rtol=1e-4, atol=1e-5)
        found, _ = service.everything()
        assert torch.allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "appnp", "gcnii"])
@torch.no_grad()
def test_one_hop_less_is_not_enough(data: tuple[torch.Tensor, Graph], name: str) -> None:
    """Else the hops would be too many, and the fetch slower than it must be."""
    x, graph = data
    network = _network(name)
    want = network(x, graph).logits
    near = Service(network, x, graph, torch.arange(N), (macs.hops(network, D) - 1, 0))
    found = torch.cat([near.answer(node[None])[0] for node in torch.arange(100, 120)])
    assert not torch.allclose(found, want[100:120], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_degrees_of_the_piece_alone_would_be_wrong(data: tuple[torch.Tensor, Graph]) -> None:
    """The weights of the whole graph are what makes a small piece enough."""
    x, graph = data
    network, node = _network("gcn"), torch.tensor([100])
    want = network(x, graph).logits
    piece = fetch.cut(graph, node, 2)
    right = network(x[piece.nodes], piece.graph).logits[piece.rows]
    bare = network(x[piece.nodes], Graph(piece.graph.adjacency)).logits[piece.rows]
    assert torch.allclose(right, want[node], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(bare, want[node], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_a_piece_holds_the_nodes_within_reach(data: tuple[torch.Tensor, Graph], hops: int) -> None:
    _, graph = data
    start = torch.tensor([100, 5, 100, N - 1])
    dense = graph.adjacency.dense() > 0
    reached = torch.zeros(N, dtype=torch.bool)
    reached[start] = True
    for _ in range(hops):
        inner = reached.clone()
        reached = reached | dense[inner].any(0)
    piece = fetch.cut(graph, start, hops)
    assert piece.nodes.tolist() == reached.nonzero().flatten().tolist()
    assert piece.nodes[piece.rows].tolist() == start.tolist()
    if hops:
        kept = dense & inner[:, None]
        assert torch.equal(piece.graph.adjacency.dense() > 0, kept[piece.nodes][:, piece.nodes])
    else:
        assert piece.graph.n_edges == 0


def test_multiply_adds_of_a_perceptron() -> None:
    network = _network("mlp")
    assert macs.per_node(network, torch.randn(50, D), None, edges=False) == D * WIDTH + WIDTH * C


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_multiply_adds_of_convolutions(data: tuple[torch.Tensor, Graph], sparse: bool) -> None:
    x, graph = data
    rows = CSR.from_dense(x) if sparse else x
    maps = D * WIDTH + WIDTH * C
    loops = int((graph.adjacency.row == graph.adjacency.col).sum())
    looped = graph.n_edges - loops + N
    assert macs.per_node(_network("gcn"), rows, graph) == pytest.approx(maps + looped * (WIDTH + C) / N)
    assert macs.per_node(_network("appnp"), rows, graph) == pytest.approx(maps + 3 * looped * C / N)
    assert macs.per_node(_network("sage"), rows, graph) == pytest.approx(2 * maps + graph.n_edges * (WIDTH + C) / N)
    # Eight heads, side by side in the hidden layer and averaged in the last one.
    gat = D * WIDTH + WIDTH * 8 * C + looped * (WIDTH + 8 * C) / N
    assert macs.per_node(_network("gat"), rows, graph) == pytest.approx(gat)


@torch.no_grad()
def test_as_many_features_as_nodes_are_no_edges() -> None:
    """A product with sparse features has the shape of a sum along edges then."""
    g = torch.Generator().manual_seed(0)
    n = 40
    x = (torch.rand(n, n, generator=g) < 0.1).float()
    graph = Graph.from_edge_index(torch.randint(n, (2, 60), generator=g), n)
    network = nn.gcn(n, C, layers=2, width=WIDTH).eval()
    sparse = macs.per_node(network, CSR.from_dense(x), graph)
    assert sparse == pytest.approx(macs.per_node(network, x, graph))


@pytest.mark.parametrize(
    ("name", "hops"),
    [("mlp", 0), ("gcn", 2), ("sage", 2), ("gat", 2), ("monet", 2), ("appnp", 3), ("gcnii", 2), ("sgc", 2), ("tag", 6)],
)
def test_hops_are_the_longest_chain_of_sums(name: str, hops: int) -> None:
    assert macs.hops(_network(name), D) == hops


def test_side_by_side_is_no_chain() -> None:
    """An ensemble looks no further than one of its networks."""

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.networks = torch.nn.ModuleList([_network("gcn"), _network("gcn")])

        def forward(self, x: torch.Tensor, graph: Graph) -> object:
            first, second = (network(x, graph) for network in self.networks)
            return type(first)(first.logits + second.logits)

    assert macs.hops(Both(), D) == 2


@torch.no_grad()
def test_rows_alone_will_do_where_no_edge_counts(data: tuple[torch.Tensor, Graph]) -> None:
    x, graph = data
    network = _network("mlp")
    nodes = torch.tensor([5, 1])
    found, (fetched, forward) = Service(network, x, graph, torch.arange(N), None).answer(nodes)
    assert torch.equal(found, ask(network, x, None).logits[nodes])
    assert fetched == 0
    assert forward > 0


def test_percentiles_and_repeats() -> None:
    found = latency.percentiles([0.001 * k for k in range(1, 101)])
    assert found == {"p50": 50.5, "p95": 95.05, "n": 100}
    calls = []
    times, spent = latency.repeated(lambda: calls.append(0) or (0.5, 0.5), 7.0, warmup=2, least=3, most=9)
    assert (len(calls), len(times), spent) == (2 + 5, 5, 7.0)
    assert len(latency.repeated(lambda: (0.0, 0.0), 7.0, warmup=0, least=3, most=9)[0]) == 9


def test_a_network_has_so_much_time_and_what_is_slow_is_timed_a_few_times() -> None:
    calls: list[str] = []

    def taking(name: str, seconds: float) -> Callable[[], tuple[float, float]]:
        return lambda: calls.append(name) or (0.0, seconds)

    found = latency.shared({"quick": taking("quick", 0.001), "slow": taking("slow", 60.0)}, 5.0)
    assert {name: len(times) for name, times in found.items()} == {"quick": latency.MOST, "slow": latency.LEAST}
    assert calls.count("slow") == 1 + latency.LEAST, "one call warms up"
    # 103 quick ones leave 4.897 seconds to the last, which would have 2.5 otherwise.
    some = latency.shared({"quick": taking("quick", 0.001), "even": taking("even", 0.1)}, 5.0)
    assert latency.WARMUP + len(some["even"]) == 49


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with latency.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("setting", ["tran", "ind"])
@pytest.mark.parametrize("name", ["mlp", "gcn", "monet"])
def test_costs_of_a_network(monkeypatch: pytest.MonkeyPatch, setting: str, name: str) -> None:
    from gnnkd.data.graphs import load
    from gnnkd.data.task import task
    from gnnkd.predictor import Predictor

    monkeypatch.setattr(latency, "repeated", lambda call, _: ([call()], 0.0))
    data = task(load("digits"), seed=0, setting=setting)
    network = nn.MODELS[name](data.n_features, data.n_classes, layers=2, width=8)
    found = costs.of(Predictor(network, name, {}, data.classes, data.features, data.n_features), data)
    sizes = ["1", "10", "1000", "all"]
    assert list(found["latency_ms"]) == sizes
    assert found["n_parameters"] == sum(p.numel() for p in network.parameters())
    assert found["n_stored"] == 0
    assert found["hops"] == (0 if name == "mlp" else 2)
    assert found.get("fetched") == {"mlp": None, "gcn": "blocks", "monet": "piece"}[name]
    assert not costs.outdated(found)
    assert set(found) - set(costs.untimed(found)) == {"latency_ms", *(["fetch_ms"] if name != "mlp" else [])}
    assert ("fetch_ms" in found) == (name != "mlp")
    if name != "mlp":
        assert list(found["fetch_ms"]) == sizes[:-1]
    else:
        assert found["macs"] == data.n_features * 8 + 8 * data.n_classes


@pytest.mark.parametrize(
    ("found", "due"),
    [
        ({"hops": 2, "fetch_ms": {}}, True),
        ({"hops": 2}, True),
        ({"hops": 2, "fetched": "piece"}, False),
        ({"hops": 0, "latency_ms": {}}, False),
        ({}, False),
    ],
)
def test_stored_milliseconds_that_do_not_say_of_what_are_outdated(found: dict[str, object], due: bool) -> None:
    assert costs.outdated(found) == due


def test_a_network_that_no_piece_satisfies_is_refused(data: tuple[torch.Tensor, Graph]) -> None:
    from gnnkd.data.graphs import load
    from gnnkd.data.task import task
    from gnnkd.predictor import Predictor
    from gnnkd.types import Output

    class Far(torch.nn.Module):
        def forward(self, x: torch.Tensor, graph: Graph | None = None) -> Output:
            return Output(x - x.mean(0))

    digits = task(load("digits"), seed=0)
    predictor = Predictor(Far(), "mlp", {}, digits.classes, digits.features, digits.n_features)
    with pytest.raises(ValueError, match="answers otherwise"):
        costs.served(predictor, digits)
