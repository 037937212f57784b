"""Measures against slow versions and known cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnkd import nn, scores
from gnnkd.compare import measures
from gnnkd.data.dataset import NodeDataset
from gnnkd.data.graphs import load
from gnnkd.data.task import NodeTask, task
from gnnkd.graph.structure import CSR, Graph

EVEN = torch.full((6,), 1 / 6, dtype=torch.float64)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> NodeDataset:
    """A planted partition with sparse features."""
    rng, y = np.random.default_rng(0), np.arange(120) % 3
    words = rng.random((120, 30)) < np.where(np.arange(30) % 3 == y[:, None], 0.25, 0.02)
    a, b = rng.integers(0, 120, (2, 900))
    near = (y[a] == y[b]) | (rng.random(a.size) < 0.1)
    masks = {
        f"{part}_mask": np.minimum(np.arange(120) // 30, 2) == i for i, part in enumerate(("train", "val", "test"))
    }
    file = tmp_path_factory.mktemp("graph") / "toy.npz"
    np.savez(file, edge_index=np.stack([a, b])[:, near], x=words.astype(np.float32), y=y, **masks)
    return load(file)


def _task(dataset: NodeDataset, setting: str) -> NodeTask:
    return task(dataset, seed=1, setting=setting)


def _network(name: str, data: NodeTask) -> torch.nn.Module:
    torch.manual_seed(0)
    return nn.MODELS[name](data.n_features, data.n_classes, layers=2, width=8).eval()


def _slow_ece(logits: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bins: int) -> float:
    total, p = 0.0, logits.softmax(1)
    for b in range(bins):
        rows = [i for i in range(len(y)) if b / bins < float(p[i].max()) <= (b + 1) / bins]
        mass = sum(float(weight[i]) for i in rows)
        if mass:
            hit = sum(float(weight[i]) * (int(p[i].argmax()) == int(y[i])) for i in rows) / mass
            sure = sum(float(weight[i]) * float(p[i].max()) for i in rows) / mass
            total += mass * abs(hit - sure)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_ece_is_the_slow_one(bins: int) -> None:
    g = torch.Generator().manual_seed(bins)
    logits, y = 3 * torch.randn(200, 4, generator=g, dtype=torch.float64), torch.randint(4, (200,), generator=g)
    weight = torch.rand(200, generator=g, dtype=torch.float64)
    weight /= weight.sum()
    assert measures.ece(logits, y, weight, bins) == pytest.approx(_slow_ece(logits, y, weight, bins))


def test_known_cases_of_calibration() -> None:
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    sure = 1e3 * torch.nn.functional.one_hot(y, 2).double()
    assert measures.ece(sure, y, EVEN) == pytest.approx(0)
    assert measures.ece(sure, 1 - y, EVEN) == pytest.approx(1)
    # A coin's probabilities, and half of the labels as said: right as often as it is sure.
    assert measures.ece(torch.zeros(6, 2).double(), y, EVEN) == pytest.approx(0)
    assert measures.nll(torch.zeros(6, 2).double(), y, EVEN) == pytest.approx(np.log(2))
    assert measures.nll(sure, y, EVEN) == 0


def test_kl_is_that_of_distributions() -> None:
    g = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 6, 3, generator=g, dtype=torch.float64)
    p, q = teacher.softmax(1), student.softmax(1)
    assert measures.kl(teacher, student, EVEN) == pytest.approx(float((p * (p / q).log()).sum(1).mean()))
    assert measures.kl(teacher, teacher + 5, EVEN) == pytest.approx(0, abs=1e-12)
    certain = torch.tensor([[0.0, -torch.inf]]).double()
    one = torch.ones(1, dtype=torch.float64)
    assert measures.kl(certain, torch.zeros(1, 2).double(), one) == pytest.approx(np.log(2))


def test_agreement_is_the_weighted_share_of_equal_answers() -> None:
    a = torch.eye(3).double()[[0, 1, 2, 0, 1, 2]]
    b = torch.eye(3).double()[[0, 1, 2, 1, 2, 0]]
    assert measures.agreement(a, a, EVEN) == pytest.approx(1)
    assert measures.agreement(a, b, EVEN) == pytest.approx(0.5)
    weight = torch.tensor([1.0, 0, 0, 0, 0, 0]).double()
    assert measures.agreement(a, b, weight) == 1


@pytest.mark.parametrize("setting", ["tran", "ind"])
@pytest.mark.parametrize("name", ["mlp", "gcn"])
def test_nothing_added_and_nothing_lost_is_the_reported_accuracy(dataset: NodeDataset, setting: str, name: str) -> None:
    data = _task(dataset, setting)
    network = _network(name, data)
    plain = scores.of_network(network, data)["test_acc"]
    assert measures.with_noise(network, data, 0.0, measures.deviation(data.x)) == pytest.approx(plain)
    assert measures.with_fewer_edges(network, data, 0.0) == pytest.approx(plain)


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_a_network_agrees_with_itself(dataset: NodeDataset, setting: str) -> None:
    data = _task(dataset, setting)
    network = _network("gcn", data)
    answers = measures.answers(network, data)
    tested = int(data.split.test.sum()) + (0 if data.whole is None else int(data.whole.unseen.sum()))
    assert answers.shape == (tested, 3)
    found = measures.of(network, data, answers)
    assert found["agreement"] == pytest.approx(1)
    assert found["kl_teacher"] == pytest.approx(0, abs=1e-9)
    names = ["robust_noise_0.1", "robust_noise_0.5", "robust_noise_1"]
    names += ["robust_edges_0.1", "robust_edges_0.3", "robust_edges_0.5"]
    assert list(found) == ["agreement", "kl_teacher", "ece", "nll", *names]
    assert list(measures.of(network, data, None)) == ["ece", "nll", *names]
    assert measures.of(network, data, answers) == found, "the draws are fixed"


def test_rows_weigh_as_in_production(dataset: NodeDataset) -> None:
    data = _task(dataset, "ind")
    assert data.whole is not None
    weight = measures.weights(measures.parts(data))
    seen = int(data.split.test.sum())
    assert float(weight[:seen].sum()) == pytest.approx(0.8)
    assert float(weight[seen:].sum()) == pytest.approx(0.2)


def test_lost_edges_touch_no_network_of_rows(dataset: NodeDataset) -> None:
    data = _task(dataset, "tran")
    network = _network("mlp", data)
    assert measures.with_fewer_edges(network, data, 1.0) == pytest.approx(scores.of_network(network, data)["test_acc"])


def test_a_share_of_the_pairs_is_gone_in_both_directions(dataset: NodeDataset) -> None:
    graph = dataset.graph
    before = {tuple(edge) for edge in graph.edge_index.t().tolist()}
    lost: set[tuple[int, ...]] = set()
    for p in (0.0, 0.3, 0.5, 1.0):
        after = {tuple(edge) for edge in measures.thinned(graph, p, 3).edge_index.t().tolist()}
        assert after <= before
        assert after == {(b, a) for a, b in after}
        gone = {(min(a, b), max(a, b)) for a, b in before - after}
        pairs = {(min(a, b), max(a, b)) for a, b in before}
        assert len(gone) == round(p * len(pairs))
        assert lost <= gone, "more are gone, not others"
        lost = gone
    other = measures.thinned(graph, 0.5, 4).edge_index
    assert not torch.equal(other, measures.thinned(graph, 0.5, 3).edge_index)


def test_weights_of_edges_stay_with_them() -> None:
    edges = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
    weight = (edges[0] * 3 + edges[1] + (edges[1] * 3 + edges[0])).float()
    a = measures.thinned(Graph.from_edge_index(edges, 3, weight), 0.34, 0).adjacency
    assert a.n_entries == 4
    assert a.values().tolist() == [4.0 * (r + c) for r, c in zip(a.row.tolist(), a.col.tolist(), strict=True)]


def test_noise_is_as_wide_as_asked_and_the_same_for_sparse_and_dense() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(4000, 3, generator=g) * (torch.rand(4000, 3, generator=g) < 0.1)
    wide = measures.deviation(x)
    assert torch.allclose(wide, x.std(0, correction=0), atol=1e-6)
    assert torch.allclose(measures.deviation(CSR.from_dense(x)), wide, atol=1e-6)
    found = measures.noisy(x, 0.5 * wide, 0)
    assert torch.allclose((found - x).std(0), 0.5 * wide, rtol=0.05)
    assert torch.equal(measures.noisy(CSR.from_dense(x), 0.5 * wide, 0), found)
    assert not torch.equal(measures.noisy(x, 0.5 * wide, 1), found)
