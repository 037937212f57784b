"""Laws of HGMD: chances between limits, weights and mixed labels pair by pair, and no neighbours is GLNN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.base import Lesson
from gnnkd.distillers.losses import soft_kl
from gnnkd.distillers.nodes import draws
from gnnkd.distillers.nodes.hgmd import Hgmd, keeping, likeness, mixed_divergence, relative_entropy, shared
from gnnkd.distillers.nodes.pairs import entropy, others
from gnnkd.graph.structure import Graph
from gnnkd.types import Batch, Output, Step

N, C, SEED, STEP = 40, 4, 3, Step(2, 20)
MODES = ["weight", "mixup"]


def _random(seed: int) -> Tensor:
    return 2 * torch.randn(N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _batch() -> Batch:
    edges = torch.randint(N - 4, (2, 4 * N), generator=torch.Generator().manual_seed(0))
    return Batch.of(torch.zeros(N, 1), torch.arange(N) % C, Graph.from_edge_index(edges, N), torch.arange(N) < 9)


def _made(batch: Batch, **options: Any) -> Hgmd:
    made = distillers.build("hgmd", on_graphs=True, **({"label_weight": 0.0} | options))
    assert isinstance(made, Hgmd)
    shown = Output(_random(0))
    made.prepare(Lesson(shown, shown, (), batch.y, 0.0, 0.0, SEED, batch))
    return made


def _pairs(batch: Batch) -> list[tuple[int, int]]:
    a = others(batch)
    return list(zip(a.row.tolist(), a.col.tolist(), strict=True))


def _kl(p: Tensor, s: Tensor) -> Tensor:
    return (p * (p.log() - s.log_softmax(0))).sum()


def _chance(batch: Batch, s: Tensor, t: Tensor, a: float) -> Tensor:
    """r of each edge, edge by edge, at temperature 1."""
    p, own, taught = t.softmax(1), entropy(s), entropy(t)
    own, taught = own / own.max(), taught / taught.max()
    rows = []
    for i, j in _pairs(batch):
        near = torch.cosine_similarity(p[i], p[j], dim=0)
        rows.append(1 - torch.exp(-a * near * (taught[i] * own[i]).sqrt() / taught[j]))
    return torch.stack(rows)


def test_a_hard_node_keeps_easy_neighbours() -> None:
    batch, s, t = _batch(), _random(0), _random(1)
    a = others(batch)
    near, own, taught = likeness(a, t), relative_entropy(s), relative_entropy(t)
    found = keeping(a, near, own, taught, 2.0)
    torch.testing.assert_close(found, _chance(batch, s, t, 2.0))
    assert bool(((found >= 0) & (found <= 1)).all())
    assert bool((keeping(a, near, own, taught, 3.0) >= found).all())
    assert not keeping(a, near, own, taught, 0.0).any()


def test_sure_networks_have_chances_too() -> None:
    """Entropies of zero are divided by."""
    a = others(_batch())
    sure = torch.zeros(N, C).index_fill(1, torch.tensor([0]), 1e4)
    for s, t in ((sure, sure), (_random(0).float(), sure), (sure, _random(1).float())):
        chance = keeping(a, likeness(a, t), relative_entropy(s), relative_entropy(t), 5.0)
        assert bool(((chance >= 0) & (chance <= 1)).all())


def test_hardness_falls_by_the_factor_over_the_training() -> None:
    made = _made(_batch(), hardness=4.0, anneal=100.0)
    assert made.at(Step(0, 11)) == 4.0
    assert made.at(Step(5, 11)) == pytest.approx(0.4)
    assert made.at(Step(10, 11)) == pytest.approx(0.04)
    assert made.at(Step(0, 1)) == 4.0


def test_weights_of_a_nodes_neighbours_have_mean_one() -> None:
    batch = _batch()
    a = others(batch)
    kept = torch.rand(a.n_entries) < 0.5
    closeness = torch.rand(a.n_entries, dtype=torch.float64)
    found = shared(a, closeness, kept)
    assert not found[~kept].any()
    for i in range(N):
        here = kept & (a.row == i)
        if here.any():
            expected = closeness[here].log().softmax(0) * here.sum()
            torch.testing.assert_close(found[here], expected)


def test_weights_are_those_of_pairs_one_by_one() -> None:
    batch, s, t, tau = _batch(), _random(0).requires_grad_(), _random(1), 0.9
    a, p = others(batch), (t / tau).softmax(1)
    chance = _chance(batch, s.detach() / tau, t / tau, 5 * 100 ** (-2 / 19))
    kept = draws.bernoulli(chance, "hgmd", SEED, STEP.epoch)
    weight = shared(a, likeness(a, t / tau) * chance, kept)
    assert 0 < int(kept.sum()) < a.n_entries
    rows = [w * _kl(p[j], s[i] / tau) for (i, j), w in zip(_pairs(batch), weight, strict=True)]
    slow = (torch.stack(rows).sum() + sum(_kl(p[i], s[i] / tau) for i in range(N))) / (int(kept.sum()) + N)
    found = _made(batch, mode="weight", tau=tau).loss(batch, Output(s), Output(t), STEP)["hgmd"]
    torch.testing.assert_close(found, slow)
    torch.testing.assert_close(*(torch.autograd.grad(value, s)[0] for value in (found, slow)))


def test_labels_are_mixed_pair_by_pair() -> None:
    batch, s, t, tau = _batch(), _random(0).requires_grad_(), _random(1), 0.9
    p = (t / tau).softmax(1)
    chance = _chance(batch, s.detach() / tau, t / tau, 5 * 100 ** (-2 / 19))
    kept = draws.bernoulli(chance, "hgmd", SEED, STEP.epoch)
    mix = chance * draws.beta(0.4, chance, "hgmd beta", SEED, STEP.epoch)
    places = [(i, j, w) for (i, j), w, here in zip(_pairs(batch), mix, kept, strict=True) if here]
    rows = [_kl((1 - w) * p[i] + w * p[j], s[i] / tau) for i, j, w in places]
    slow = torch.stack([*rows, *(_kl(p[i], s[i] / tau) for i in range(N))]).mean()
    made = _made(batch, mode="mixup", tau=tau, label_weight=0.25)
    found = made.loss(batch, Output(s), Output(t), STEP)["hgmd"]
    torch.testing.assert_close(found, 0.75 * slow)
    torch.testing.assert_close(*(torch.autograd.grad(value, s)[0] for value in (found, 0.75 * slow)))
    assert float(made.diagnostics()["hgmd/pairs"]) == pytest.approx(len(places) / len(_pairs(batch)))


def test_labels_that_are_all_the_neighbours_are_the_teachers_pairs() -> None:
    """A share of 1 is the plain pair, one of 0 is the node's own teacher."""
    batch, s, t = _batch(), _random(0), _random(1)
    a = others(batch)
    kept, one = torch.ones(a.n_entries, dtype=torch.bool), torch.ones(a.n_entries, dtype=torch.float64)
    ffg2m = distillers.build("ffg2m", on_graphs=True, label_weight=0.0).loss(batch, Output(s), Output(t), STEP)
    torch.testing.assert_close(mixed_divergence(a, one, kept, s, t, 1.0), ffg2m["low"])
    degree = a.rowptr.diff() + 1
    rows = torch.stack([_kl(t[i].softmax(0), s[i]) for i in range(N)])
    torch.testing.assert_close(mixed_divergence(a, 0 * one, kept, s, t, 1.0), (degree * rows).sum() / degree.sum())


@pytest.mark.parametrize("mode", MODES)
def test_without_hardness_it_is_glnn(mode: str) -> None:
    batch, s, t = _batch(), _random(0), _random(1)
    (found,) = _made(batch, mode=mode, hardness=0.0).loss(batch, Output(s), Output(t), STEP).values()
    torch.testing.assert_close(found, soft_kl(s, t))


def test_weights_need_no_concentration_and_a_search_tries_both_modes() -> None:
    batch, s, t = _batch(), _random(0), _random(1)
    found = {
        mode: [
            next(iter(_made(batch, mode=mode, concentration=c).loss(batch, Output(s), Output(t), STEP).values()))
            for c in (0.3, 0.5)
        ]
        for mode in MODES
    }
    assert [torch.equal(*found[mode]) for mode in ("weight", "mixup")] == [True, False]
    assert set(distillers.graph_methods()["hgmd"].space["mode"].values) == set(MODES)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", MODES)
def test_draws_repeat_by_seed_and_epoch(mode: str) -> None:
    batch, s, t = _batch(), _random(0), _random(1)

    def term(seed: int, epoch: int) -> float:
        made = _made(batch, mode=mode, anneal=1.0)
        shown = Output(t)
        made.prepare(Lesson(shown, shown, (), batch.y, 0.0, 0.0, seed, batch))
        return float(made.loss(batch, Output(s), Output(t), Step(epoch, 20))["hgmd"])

    assert term(0, 1) == term(0, 1)
    assert len({term(0, 1), term(0, 2), term(1, 1)}) == 3
