"""Laws of sampling: every set of neighbours as often, never one twice, and the exact answer where all are drawn."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from gnnkd.graph.sampling import Sampler, batches, drawn_rows, subsets
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.gat import gat
from gnnkd.nn.gcn import gcn
from gnnkd.nn.sage import sage


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_graph(n: int = 60, edges: int = 400, seed: int = 0, weights: bool = False) -> Graph:
    """Directed, with hubs and with nodes that nobody points at."""
    rng = np.random.default_rng(seed)
    source, target = rng.integers(0, n, edges), (n * rng.random(edges) ** 2).astype(np.int64)
    keys = np.unique(source * n + target)
    index = torch.from_numpy(np.stack([keys // n, keys % n]))
    weight = torch.from_numpy(rng.random(keys.size).astype(np.float32)) if weights else None
    return Graph.from_edge_index(index, n, weight)


def reached(graph: Graph, seeds: torch.Tensor, hops: int) -> list[set[int]]:
    """Nodes first met at each hop against the edges, by a plain search."""
    into: dict[int, set[int]] = {}
    for s, t in graph.edge_index.T.tolist():
        into.setdefault(t, set()).add(s)
    found, seen = [set(seeds.tolist())], set(seeds.tolist())
    for _ in range(hops):
        found.append({s for t in found[-1] for s in into.get(t, ())} - seen)
        seen |= found[-1]
    return found


def unlikely(counts: np.ndarray, expected: np.ndarray | float) -> float:
    """The p-value of Pearson's chi-square test."""
    from scipy.stats import chisquare

    return float(chisquare(counts, np.broadcast_to(expected, counts.shape)).pvalue)


# Sets of places


@pytest.mark.parametrize(("size", "k"), [(6, 1), (6, 3), (7, 6), (5, 5)])
def test_every_set_is_equally_likely(size: int, k: int) -> None:
    draws = 20_000
    seen = subsets(torch.full((draws,), size), k, generator(1))
    sets = {s: i for i, s in enumerate(combinations(range(size), k))}
    counts = np.bincount([sets[tuple(row)] for row in seen.tolist()], minlength=len(sets))
    assert len(sets) == 1 or unlikely(counts, draws / len(sets)) > 0.01


def test_sets_of_many_sizes_at_once_are_distinct_ascending_and_in_range() -> None:
    sizes = torch.tensor([8, 9, 1000, 2**40])
    drawn = subsets(sizes.repeat(500), 8, generator())
    assert bool((drawn.diff(dim=1) > 0).all())
    assert int(drawn.min()) >= 0
    assert bool((drawn[:, -1] < sizes.repeat(500)).all())


def test_luck_that_is_rounded_up_stays_in_range(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 1 - 2.0**-53
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, most, dtype=torch.float64))
    assert subsets(torch.tensor([3, 7]), 3, generator()).tolist() == [[0, 1, 2], [4, 5, 6]]


# Rows


def test_each_neighbour_is_drawn_equally_often_and_never_twice() -> None:
    graph, draws, k = random_graph(), 3000, 4
    a = graph.adjacency
    rows = torch.arange(60).repeat(draws)
    drawn = drawn_rows(a, rows, k, generator(2))
    degree = a.rowptr.diff()
    assert torch.equal(drawn.rowptr.diff(), degree.clamp(max=k).repeat(draws))
    within = drawn.row[1:] == drawn.row[:-1]
    assert bool((drawn.col[1:] > drawn.col[:-1])[within].all())
    counts = (
        CSR.from_coo(drawn.row % 60, drawn.col, torch.ones(drawn.n_entries), (60, 60))
        .dense()
        .numpy()
        .astype(np.float64)
    )
    assert ((counts > 0) == (a.dense().numpy() > 0)).all()
    p = []
    for row, d in enumerate(degree.tolist()):
        times = counts[row][counts[row] > 0]
        if d <= k:
            assert (times == draws).all()
        else:  # counts of one row are exchangeable, their sum is fixed: this scaling makes their sum of squares chi^2
            p.append(unlikely(draws * k / d + (times - draws * k / d) * np.sqrt((d - 1) / (d - k)), draws * k / d))
    assert len(p) > 20
    assert min(p) > 0.01 / len(p)
    assert 0.3 < float(np.mean(p)) < 0.7


@pytest.mark.parametrize("k", [None, 60])
def test_all_neighbours_are_the_rows_themselves(k: int | None) -> None:
    a, rows = random_graph(weights=True).adjacency, torch.tensor([5, 0, 5, 59])
    drawn, exact = drawn_rows(a, rows, k, generator()), a.select_rows(rows)
    assert torch.equal(drawn.rowptr, exact.rowptr)
    assert torch.equal(drawn.col, exact.col)
    assert torch.equal(drawn.values(), exact.values())


def test_a_drawn_edge_keeps_its_weight() -> None:
    graph = random_graph(weights=True)
    drawn = drawn_rows(graph.adjacency, torch.arange(60), 2, generator())
    assert torch.equal(drawn.values(), graph.adjacency.dense()[drawn.row.long(), drawn.col.long()])


def test_the_generator_decides() -> None:
    a = random_graph().adjacency
    one, same, other = (drawn_rows(a, torch.arange(60), 2, generator(s)).col for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# Hops


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_all_neighbours_are_the_exact_neighbourhood(hops: int) -> None:
    graph, seeds = random_graph(edges=120), torch.tensor([7, 0, 33])
    sample = Sampler(graph, [None] * hops).sample(seeds, generator())
    exact = reached(graph, seeds, hops)
    assert sample.sizes == tuple(len(hop) for hop in exact)
    assert sample.ids[:3].tolist() == [7, 0, 33]
    for ids, hop in zip(sample.ids[3:].split(sample.sizes[1:]), exact[1:], strict=True):
        assert ids.tolist() == sorted(hop)
    inner = set().union(*exact[:-1])
    edges = {(s, t) for s, t in graph.edge_index.T.tolist() if t in inner}
    assert {(s, t) for s, t in sample.ids[sample.graph.edge_index].T.tolist()} == edges
    assert sample.graph.n_edges == len(edges)


def test_a_sample_is_a_graph_in_order_with_the_weights_of_the_edges() -> None:
    graph = random_graph(weights=True)
    sample = Sampler(graph, [3, 2]).sample(torch.tensor([4, 50, 2]), generator())
    a = sample.graph.adjacency
    within = a.row[1:] == a.row[:-1]
    assert bool((a.col[1:] > a.col[:-1])[within].all())
    assert torch.equal(a.values(), graph.adjacency.dense()[sample.ids[a.row], sample.ids[a.col]])
    assert sample.ids.unique().numel() == sample.ids.numel() == sum(sample.sizes)
    degree, full = a.rowptr.diff(), graph.adjacency.rowptr.diff()[sample.ids]
    ends = np.cumsum(sample.sizes)
    for (start, end), k in zip(((0, ends[0]), (ends[0], ends[1])), (3, 2), strict=True):
        assert torch.equal(degree[start:end], full[start:end].clamp(max=k))
    assert int(degree[ends[1] :].sum()) == 0


def test_calls_leave_nothing_behind() -> None:
    graph = random_graph()
    sampler = Sampler(graph, [2, 2])
    sampler.sample(torch.arange(20), generator(3))
    with pytest.raises(ValueError, match="a seed is there twice"):
        sampler.sample(torch.tensor([1, 2, 1]), generator())
    used, fresh = (
        sampler.sample(torch.arange(9), generator(5)),
        Sampler(graph, [2, 2]).sample(torch.arange(9), generator(5)),
    )
    assert torch.equal(used.ids, fresh.ids)
    assert torch.equal(used.graph.edge_index, fresh.graph.edge_index)


@pytest.mark.parametrize("k", [0, -1])
def test_a_fanout_is_at_least_one(k: int) -> None:
    with pytest.raises(ValueError, match="fanouts are"):
        Sampler(random_graph(), [5, k])


# Networks


@pytest.mark.parametrize(("make", "more"), [(sage, 0), (gat, 0), (gcn, 1)])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_with_all_neighbours_the_seeds_get_the_logits_of_the_full_graph(make, more: int, layers: int) -> None:
    """GCN's weights know the source's degree, so it needs one hop more."""
    torch.manual_seed(0)
    graph, x = random_graph(edges=150), torch.randn(60, 5)
    network = make(5, 3, layers=layers, width=8).eval()
    seeds = torch.tensor([3, 40, 11, 0])
    sample = Sampler(graph, [None] * (layers + more)).sample(seeds, generator())
    full = network(x, graph).logits[seeds]
    got = network(x[sample.ids], sample.graph).logits[: sample.seeds]
    torch.testing.assert_close(got, full, atol=1e-5, rtol=1e-5)


def test_a_sampled_mean_is_right_on_average() -> None:
    """One layer of SAGE is linear in its neighbours' mean, so draws of it scatter about the full one."""
    torch.manual_seed(0)
    graph, x = random_graph(), torch.randn(60, 5)
    network = sage(5, 3, layers=1).eval()
    sampler, g = Sampler(graph, [3]), generator(1)
    seeds = torch.arange(60)

    def drawn() -> torch.Tensor:
        sample = sampler.sample(seeds, g)
        return network(x[sample.ids], sample.graph).logits[:60]

    with torch.no_grad():
        draws = torch.stack([drawn() for _ in range(1500)])
        off = draws.mean(0) - network(x, graph).logits
    error = draws.std(0) / 1500**0.5
    assert float((off.abs() / error.clamp(min=1e-6)).max()) < 4.5
    assert float(error.max()) > 0.005


# Batches


def test_batches_hold_each_id_once() -> None:
    ids = torch.arange(100, 123)
    seen = list(batches(ids, 5, generator()))
    assert [b.numel() for b in seen] == [5, 5, 5, 5, 3]
    assert torch.cat(seen).sort().values.equal(ids)
    assert not torch.cat(seen).equal(ids)
    assert torch.cat(list(batches(ids, 5, None))).equal(ids)


def test_batches_are_drawn_anew_each_time() -> None:
    g = generator()
    first, second = (torch.cat(list(batches(torch.arange(50), 8, g))) for _ in range(2))
    again = torch.cat(list(batches(torch.arange(50), 8, generator())))
    assert not first.equal(second)
    assert first.equal(again)
    with pytest.raises(ValueError, match="batch_size is 0"):
        batches(torch.arange(5), 0, g)
