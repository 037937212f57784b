"""Edges made of features: on the digits, on published graphs, on a user's file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnkd.data import npz
from gnnkd.data.dataset import NodeDataset, from_arrays, to_arrays
from gnnkd.data.graphs import load
from gnnkd.data.task import task
from gnnkd.errors import UserError
from gnnkd.graph.build import Neighbourhood, knn
from gnnkd.graph.structure import Graph

ROOT = Path(__file__).parents[3] / "shared" / "data"
N = 60


def arrays(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.random((N, 5)).astype(np.float32)
    found = {"x": x, "y": np.arange(N) % 3, "edge_index": np.stack([np.arange(N), np.roll(np.arange(N), 1)])} | changes
    return {name: value for name, value in found.items() if value is not None}


def weighted(data: NodeDataset) -> bool:
    return data.graph.adjacency.value is not None


def test_the_digits_are_joined_by_their_nearest_unless_told_otherwise() -> None:
    plain, same, alike = (load("digits-graph", graph=graph) for graph in (None, "knn", "uem"))
    assert plain.made == same.made == Neighbourhood("knn", 8)
    assert torch.equal(plain.graph.edge_index, knn(plain.x, 8))
    assert torch.equal(plain.graph.edge_index, same.graph.edge_index)
    assert not weighted(plain)
    assert (alike.made, weighted(alike), alike.notes) == (Neighbourhood("uem", 8), True, ())
    assert load("digits", graph="uem", k=3).made == Neighbourhood("uem", 3)
    with pytest.raises(UserError, match=r"digits has no edges of its own; use data\.graph=knn"):
        load("digits", graph="given")


@pytest.mark.parametrize("graph", [None, "knn"])
def test_a_file_without_edges_gets_them_and_says_so(tmp_path: Path, graph: str | None) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(edge_index=None))
    data = load(str(tmp_path / "mine.npz"), graph=graph)
    said = "there are no edges given: each node is joined to the 8 nearest by its features (data.graph=knn)"
    assert data.notes == (said,)
    assert torch.equal(data.graph.edge_index, knn(data.x, 8))
    assert load(str(tmp_path / "mine.npz"), graph=graph, k=3).made == Neighbourhood("knn", 3)
    with pytest.raises(UserError, match=r"mine\.npz has no edges of its own"):
        load(str(tmp_path / "mine.npz"), graph="given")


@pytest.mark.parametrize("graph", ["knn", "uem"])
def test_given_edges_give_way_to_a_rule(tmp_path: Path, graph: str) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    given, made = (load(str(tmp_path / "mine.npz"), graph=g, k=k) for g, k in ((None, None), (graph, 4)))
    assert given.made is None
    assert made.made == Neighbourhood(graph, 4)
    assert made.notes[0].startswith("the edges given are not used: each node is joined to the 4 ")
    assert torch.equal(made.graph.adjacency.dense(), Neighbourhood(graph, 4).graph(given.x).adjacency.dense())
    with pytest.raises(UserError, match=r"data\.k is 4, but the edges of .*mine\.npz are given"):
        load(str(tmp_path / "mine.npz"), k=4)
    with pytest.raises(UserError, match=r"unknown value of data\.graph 'unn'"):
        load(str(tmp_path / "mine.npz"), graph="unn")


def test_cora_with_edges_of_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not (ROOT / "planetoid" / "Cora").exists():
        pytest.skip("the raw files of cora are not in ../shared/data")
    monkeypatch.setenv("GNNKD_CACHE", str(tmp_path))
    data = load("cora", root=ROOT, graph="uem", k=10)
    assert data.made == Neighbourhood("uem", 10)
    assert data.split is not None
    assert task(data, seed=0).protocol == "public"
    alone = int((data.graph.adjacency.rowptr.diff() == 0).sum())
    assert f"{alone} of 2708 nodes are like no other and have no edge" in data.notes
    assert torch.equal(data.graph.edge_index, Neighbourhood("uem", 10).graph(data.x).edge_index)
    assert load("cora", root=ROOT).made is None


def test_features_that_make_no_graph_are_refused() -> None:
    with pytest.raises(UserError, match="graph: no two nodes are alike enough for an edge of uem"):
        from_arrays(arrays(x=np.eye(N, dtype=np.float32)), graph="uem")
    with pytest.raises(UserError, match=r"graph: k is 60; the 60 nodes allow 1 to 59 .*; change data\.k"):
        from_arrays(arrays(), graph="knn", k=60)


def test_weights_are_not_written_without_being_missed(tmp_path: Path) -> None:
    made = from_arrays(arrays(), graph="uem")
    with pytest.raises(ValueError, match="has edge weights"):
        npz.write(tmp_path / "made.npz", made)
    assert "edge_index" in to_arrays(from_arrays(arrays(), graph="knn"))


# -- tasks ---------------------------------------------------------------------------------------------------------


def test_another_weight_is_another_content_and_the_same_rows() -> None:
    data = from_arrays(arrays(), graph="uem")
    a = data.graph.adjacency
    assert a.value is not None
    other = replace(data, graph=Graph(a.with_value(a.value * 0.5)))
    plain = replace(data, graph=Graph(a.with_value(None)))
    for setting in ("tran", "ind"):
        # Under `ind` the graph is made again, from the same features.
        tasks = [task(replace(d, made=None), seed=0, setting=setting, protocol="random") for d in (data, other, plain)]
        assert len({t.fingerprint for t in tasks}) == 1
        assert len({t.content for t in tasks}) == 3


def test_the_hash_of_a_graph_without_weights_is_what_it_was() -> None:
    """Finished runs stay what they are."""
    found = task(from_arrays(arrays()), seed=0, protocol="random", setting="ind")
    assert found.content == "f6c12290f91a9196f7bff04f3dd50bf2c16f6e7a7971fed88c3703237cf8bc96"


def test_cpf_keeps_all_nodes_of_a_graph_that_is_made() -> None:
    """Two heaps far apart: which nodes hang together is a matter of features, of test nodes' too."""
    x = np.random.default_rng(0).random((330, 4)).astype(np.float32)
    x[300:] += 100
    data = from_arrays({"x": x, "y": np.arange(330) % 3}, k=3)
    made = task(data, protocol="cpf", seed=0)
    given = task(replace(data, made=None), protocol="cpf", seed=0)
    assert (made.n_nodes, given.n_nodes) == (330, 300)
    assert made.made == data.made
    assert re.search("largest component: 300 of 330", " ".join(given.notes))
