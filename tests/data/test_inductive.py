"""Laws of the inductive setting: training sees the observed nodes, and nothing of the others."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from gnnkd.data import task as words
from gnnkd.data.dataset import NodeDataset, from_arrays
from gnnkd.data.task import NodeTask, task
from gnnkd.errors import UserError
from gnnkd.graph.build import Neighbourhood
from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import UNKNOWN

N, PART = 330, 300
"""Nodes, and those of them in the largest component."""
PROTOCOLS = ("public", "ogb", "given", "cpf", "random")


def make(protocol: str = "given", sparse: bool = False) -> NodeDataset:
    """A random graph with a ring beside it, masks that leave some nodes out, and a node of unknown class."""
    rng = np.random.RandomState(0)
    ids = np.arange(N)
    y = ids % 3
    y[5] = UNKNOWN
    wide = np.where(rng.rand(N, 60) < 0.05, 2.0, 0.0).astype(np.float32)
    ring = np.stack([ids[PART:], np.roll(ids[PART:], -1)])
    line = np.stack([ids[: PART - 1], ids[1:PART]])
    arrays = {
        "x": wide if sparse else rng.rand(N, 6).astype(np.float32),
        "y": y,
        "edge_index": np.concatenate([line, rng.randint(PART, size=(2, 900)), ring], 1),
        "train_mask": (ids > 5) & (ids < 40),
        "val_mask": (ids > 50) & (ids < 90),
        "test_mask": ids > 117,
    }
    return from_arrays(arrays, protocol=protocol)


def both(protocol: str, seed: int = 3, sparse: bool = False) -> tuple[NodeTask, NodeTask]:
    """The transductive and the inductive task of a seed."""
    data = make(protocol if protocol in ("public", "ogb") else "given", sparse)
    tran, ind = (task(data, protocol=protocol, seed=seed, setting=setting) for setting in ("tran", "ind"))
    return tran, ind


def dense(x):
    return x.dense() if isinstance(x, CSR) else x


def ids(t: NodeTask, mask: torch.Tensor) -> list[int]:
    return t.index[mask].tolist()


def edges(graph: Graph, index: torch.Tensor) -> set[tuple[int, int]]:
    """The edges by the ids of the full data."""
    return set(map(tuple, index[graph.edge_index].T.tolist()))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_whole_is_the_transductive_task_and_the_task_its_observed_rows(protocol, sparse):
    tran, ind = both(protocol, sparse=sparse)
    whole, observed = ind.whole, ind.whole.observed
    assert tran.whole is None
    assert torch.equal(dense(whole.x), dense(tran.x))
    assert torch.equal(whole.y, tran.y)
    assert torch.equal(whole.index, tran.index)
    assert torch.equal(whole.graph.edge_index, tran.graph.edge_index)
    assert torch.equal(dense(ind.x), dense(whole.x)[observed])
    assert type(ind.x) is type(tran.x)
    assert torch.equal(ind.y, whole.y[observed])
    assert torch.equal(ind.index, tran.index[observed])
    assert ind.n_nodes == int(observed.sum()) == ind.graph.n_nodes
    assert (ind.n_classes, ind.features) == (tran.n_classes, tran.features)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_fifth_of_the_test_nodes_is_unseen_and_training_and_validation_are_those_of_tran(protocol):
    tran, ind = both(protocol)
    assert ids(ind, ind.split.train) == ids(tran, tran.split.train)
    assert ids(ind, ind.split.val) == ids(tran, tran.split.val)
    unseen, tested = ids(tran, ind.whole.unseen), ids(tran, tran.split.test)
    assert len(unseen) == round(0.2 * len(tested))
    assert sorted([*ids(ind, ind.split.test), *unseen]) == tested
    assert f"{len(unseen)} of {len(tested)} test nodes and their edges are unseen in training" in ind.notes


def test_the_unseen_are_drawn_anew_for_each_seed_and_repeat_for_the_same():
    drawn = [both("given", seed)[1].whole.unseen for seed in (0, 1, 1)]
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[1], drawn[2])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exactly_the_edges_among_observed_nodes_are_seen(protocol):
    tran, ind = both(protocol)
    unseen = set(ids(tran, ind.whole.unseen))
    wanted = {edge for edge in edges(tran.graph, tran.index) if not unseen & set(edge)}
    assert 0 < len(wanted) < tran.graph.n_edges
    assert edges(ind.graph, ind.index) == wanted
    assert edges(ind.whole.cold, tran.index) == wanted
    assert ind.whole.cold.n_nodes == tran.n_nodes
    assert ind.whole.cold is ind.whole.cold


def test_edge_weights_stay_with_their_edges():
    data = make()
    weight = torch.arange(data.graph.n_edges, dtype=torch.float32)
    weighted = Graph.from_edge_index(data.graph.edge_index, N, weight)
    ind = task(replace(data, graph=weighted), seed=0, setting="ind")
    cold, whole = ind.whole.cold.adjacency.dense(), ind.whole.graph.adjacency.dense()
    assert torch.equal(cold, whole * (ind.whole.observed[:, None] & ind.whole.observed))


@pytest.mark.parametrize("protocol", ["public", "ogb", "given"])
@pytest.mark.parametrize("sparse", [True, False])
def test_nothing_of_the_unseen_is_in_the_task(protocol, sparse):
    data = make(protocol, sparse)
    before = task(data, seed=1, setting="ind")
    unseen = before.index.new_ones(N, dtype=torch.bool).index_fill(0, before.index, False)
    x, y = dense(data.x).clone(), data.y.clone()
    x[unseen] = x[unseen].flip(0) * 3
    y[unseen] = (y[unseen] + 1) % 3
    source, target = data.graph.edge_index
    kept = ~(unseen[source] | unseen[target])
    more = torch.stack([unseen.nonzero().flatten(), torch.arange(int(unseen.sum()))])
    changed = replace(
        data,
        x=CSR.from_dense(x) if sparse else x,
        y=y,
        graph=Graph.from_edge_index(torch.cat([data.graph.edge_index[:, kept], more, more.flip(0)], 1), N),
    )
    after = task(changed, seed=1, setting="ind")
    assert after.fingerprint == before.fingerprint
    assert torch.equal(dense(after.x), dense(before.x))
    for name in ("y", "index"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    assert torch.equal(after.graph.edge_index, before.graph.edge_index)
    for field in fields(before.split):
        assert torch.equal(getattr(after.split, field.name), getattr(before.split, field.name))
    assert torch.equal(after.whole.cold.edge_index, before.whole.cold.edge_index)
    assert after.content != before.content


def test_the_fingerprint_knows_the_setting_and_the_content_the_unseen():
    tran, ind = both("given")
    assert ind.fingerprint != tran.fingerprint
    whole, first = ind.whole, int(ind.whole.unseen.nonzero()[0])
    x, y = whole.x.clone(), whole.y.clone()
    x[first] += 1
    y[first] = (y[first] + 1) % 3
    others = [
        replace(whole, x=x),
        replace(whole, y=y),
        replace(whole, graph=whole.cold),
        replace(whole, observed=whole.observed.roll(1)),
    ]
    tasks = [replace(ind, whole=other) for other in others]
    assert {t.fingerprint for t in tasks} == {ind.fingerprint}
    assert len({ind.content, tran.content, *(t.content for t in tasks)}) == 2 + len(tasks)


def test_one_test_node_is_too_few_and_of_two_one_is_unseen():
    arrays = {
        "x": np.eye(6, dtype=np.float32),
        "y": np.array([0, 1, 0, 1, 0, 1]),
        "edge_index": np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]),
        "train_mask": np.arange(6) < 2,
        "val_mask": np.arange(6) == 2,
        "test_mask": np.arange(6) == 3,
    }
    with pytest.raises(UserError, match=r"'ind' needs at least 2 test nodes.* has 1; use --setting tran"):
        task(from_arrays(arrays), seed=0, setting="ind")
    arrays["test_mask"] = np.arange(6) > 3
    ind = task(from_arrays(arrays), seed=0, setting="ind")
    assert (ind.n_nodes, ind.split.sizes, int(ind.whole.unseen.sum())) == (5, (2, 1, 1), 1)


def test_the_whole_goes_to_a_device_with_the_task():
    ind = both("given")[1]
    there = ind.to("meta").whole
    assert {a.device.type for a in (there.x, there.y, there.observed, there.index, there.graph.adjacency)} == {"meta"}
    assert ind.to("cpu").content == ind.content


def test_every_protocol_of_the_word_list_is_tested_here():
    assert words.PROTOCOLS == PROTOCOLS


def test_unseen_features_do_not_choose_how_observed_ones_are_kept():
    """Crossing the density below which features are sparse, by features of unseen nodes alone, changes nothing seen."""
    data = make(sparse=True)
    plain = task(data, seed=3, setting="ind")
    full = dense(data.x).clone()
    full[plain.whole.index[plain.whole.unseen]] = 1.0
    filled = task(replace(data, x=full), seed=3, setting="ind")
    assert isinstance(filled.x, CSR)
    assert torch.equal(filled.x.dense(), plain.x.dense())


@pytest.mark.parametrize(("graph", "k"), [("knn", None), ("uem", None), ("knn", 2), ("uem", 2)])
def test_edges_made_of_features_are_made_without_the_unseen(graph: str, k: int | None):
    """Pixels of unseen digits change no edge between observed ones, no weight of one, and not which nodes there are.

    Two neighbours leave the digits in several components, which `cpf` would tell apart in a graph that was given.
    """
    from gnnkd.data.graphs import load

    data = load("digits", graph=graph, k=k)
    plain = task(data, seed=0, setting="ind")
    unseen = plain.whole.index[plain.whole.unseen]
    x = data.x.clone()
    x[unseen] = x[unseen].flip(0)
    moved = task(replace(data, x=x, graph=data.made.graph(x)), seed=0, setting="ind")
    assert moved.fingerprint == plain.fingerprint
    assert torch.equal(moved.graph.edge_index, plain.graph.edge_index)
    assert (graph == "uem") is (plain.graph.adjacency.value is not None)
    assert torch.equal(moved.graph.adjacency.values(), plain.graph.adjacency.values())
    assert not torch.equal(moved.whole.graph.adjacency.dense(), plain.whole.graph.adjacency.dense())
    target = plain.whole.graph.edge_index[1]
    assert int(target.bincount()[plain.whole.unseen].min()) >= data.made.k


def test_weights_of_edges_do_not_depend_on_the_form_of_unseen_features():
    """Features of unseen nodes can make the whole dense or sparse; what is made of the others rounds as it did."""
    sparse = make(sparse=True)
    for kind in ("knn", "uem"):
        made = Neighbourhood(kind, 3)
        data = replace(sparse, made=made, graph=made.graph(sparse.x))
        plain = task(data, seed=3, setting="ind")
        full = dense(data.x).clone()
        full[plain.whole.index[plain.whole.unseen]] = 1.0
        filled = task(replace(data, x=full), seed=3, setting="ind")
        assert isinstance(data.x, CSR)
        assert torch.equal(filled.graph.edge_index, plain.graph.edge_index)
        assert torch.equal(filled.graph.adjacency.values(), plain.graph.adjacency.values())
