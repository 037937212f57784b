"""Laws of KRD: who is a pair, how alpha follows the curve of agreement, and what the pairs' mean is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.base import Lesson
from gnnkd.distillers.losses import soft_kl
from gnnkd.distillers.nodes import draws
from gnnkd.distillers.nodes.krd import BINS, Krd, exponent, fitted, reliability
from gnnkd.distillers.nodes.pairs import entropy, others
from gnnkd.errors import UserError
from gnnkd.graph.structure import Graph
from gnnkd.types import Batch, Output, Step

N, C, EPOCHS = 40, 4, 20


def _random(seed: int, n: int = N) -> Tensor:
    return 2 * torch.randn(n, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _batch() -> Batch:
    edges = torch.randint(N, (2, 4 * N), generator=torch.Generator().manual_seed(0))
    x = torch.randn(N, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return Batch.of(x, torch.arange(N) % C, Graph.from_edge_index(edges, N), torch.arange(N) < 9)


def _made(batch: Batch, clean: Tensor, noisy: Tensor, *, seed: int = 3, **options: Any) -> Krd:
    made = distillers.build("krd", on_graphs=True, **({"label_weight": 0.0} | options))
    assert isinstance(made, Krd)
    made.prepare(Lesson(Output(clean), Output(clean), (), batch.y, 0.0, 0.0, seed, batch, lambda _: Output(noisy)))
    return made


def _term(made: Krd, batch: Batch, s: Tensor, t: Tensor, epoch: int) -> Tensor:
    return made.loss(batch, Output(s), Output(t), Step(epoch, EPOCHS))["krd"]


def _kl(t: Tensor, s: Tensor) -> Tensor:
    p, q = t.softmax(0), s.softmax(0)
    return (p * (p.log() - q.log())).sum()


# -- reliability ----------------------------------------------------------------------------------------------------


def test_a_teacher_that_noise_does_not_move_is_reliable() -> None:
    clean, noisy = _random(0), _random(1)
    rho = reliability(clean, noisy)
    moved = (entropy(noisy) - entropy(clean)).abs()
    torch.testing.assert_close(rho, moved / moved.max())
    assert (float(rho.min()) >= 0, float(rho.max())) == (True, 1.0)
    assert not reliability(clean, clean).any()


def test_the_teacher_is_asked_about_features_with_noise() -> None:
    batch, asked = _batch(), []

    def ask(x: Any) -> Output:
        asked.append(x)
        return Output(_random(1))

    for seed in (3, 3, 4):
        made = distillers.build("krd", on_graphs=True, noise=0.5)
        made.prepare(Lesson(Output(_random(0)), Output(_random(0)), (), batch.y, 0.0, 0.0, seed, batch, ask))
    assert torch.equal(asked[0], asked[1])
    assert not torch.equal(asked[0], asked[2])
    assert isinstance(batch.x, Tensor)
    assert float((asked[0] - batch.x).std()) == pytest.approx(0.5, rel=0.2)


def test_ready_logits_cannot_be_asked() -> None:
    batch, t = _batch(), Output(_random(0))
    with pytest.raises(UserError, match="choose ffg2m"):
        distillers.build("krd", on_graphs=True).prepare(Lesson(t, t, (), batch.y, 0.0, 0.0, 0, batch, None))


def test_labels_alone_need_no_answer() -> None:
    batch, t = _batch(), Output(_random(0))
    made = distillers.build("krd", on_graphs=True, label_weight=1.0)
    assert not made.asks_teacher
    assert distillers.build("krd", on_graphs=True, label_weight=0.9).asks_teacher
    made.prepare(Lesson(t, t, (), batch.y, 0.0, 0.0, 0, batch, None))
    terms = made.loss(batch, t, t, Step(60, EPOCHS))
    assert terms.keys() == {"ce"}
    assert not made.diagnostics()


# -- pairs ----------------------------------------------------------------------------------------------------------


def test_in_the_warm_up_all_edges_are_pairs() -> None:
    batch, s, t, tau = _batch(), _random(0), _random(1), 0.9
    made = _made(batch, t, _random(2), warmup_epochs=5, tau=tau)
    a = others(batch)
    pairs = [*zip(a.row.tolist(), a.col.tolist(), strict=True), *((i, i) for i in range(N))]
    slow = torch.stack([_kl(t[j] / tau, s[i] / tau) for i, j in pairs]).mean()
    for epoch in (0, 4):
        torch.testing.assert_close(_term(made, batch, s, t, epoch), slow)
    assert made.alpha == 1.0
    assert float(made.diagnostics()["krd/pairs"]) == 1.0
    assert abs(float(_term(made, batch, s, t, 5)) - float(slow)) > 1e-6


def test_after_the_warm_up_pairs_are_those_drawn() -> None:
    batch, s, t = _batch(), _random(0), _random(1)
    made = _made(batch, t, _random(2), warmup_epochs=2, momentum=0.5)
    a, rho = others(batch), reliability(t, _random(2))
    found = _term(made, batch, s, t, 6)
    expected = fitted(rho, s.argmax(1) == t.argmax(1))
    assert expected is not None
    assert made.alpha == pytest.approx(0.5 + 0.5 * expected)
    kept = draws.bernoulli((1 - rho**made.alpha)[a.col], "krd", 3, 6)
    assert 0 < int(kept.sum()) < a.n_entries
    places = [(i, j) for i, j, here in zip(a.row.tolist(), a.col.tolist(), kept.tolist(), strict=True) if here]
    slow = torch.stack([_kl(t[j], s[i]) for i, j in [*places, *((i, i) for i in range(N))]]).mean()
    torch.testing.assert_close(found, slow)
    torch.testing.assert_close(_term(made, batch, s, t, 6), slow)
    assert made.alpha == pytest.approx(0.5 + 0.5 * expected), "one epoch moves alpha once"


def test_where_no_neighbour_is_reliable_it_is_glnn() -> None:
    """All entropies move by the same, the most: every q is 0."""
    batch, s, t = _batch(), _random(0), _random(1)
    flat, sharp = torch.zeros(N, C, dtype=torch.float64), torch.zeros(N, C, dtype=torch.float64)
    sharp[:, 0] = 5.0
    made = _made(batch, flat, sharp, warmup_epochs=0)
    torch.testing.assert_close(_term(made, batch, s, t, 0), soft_kl(s, t))
    made = _made(batch, flat, sharp, warmup_epochs=0, label_weight=0.3)
    torch.testing.assert_close(
        made.loss(batch, Output(s), Output(t), Step(0, EPOCHS)),
        {"ce": distillers.build("glnn", label_weight=0.3).loss(batch, Output(s), Output(t), Step(0, EPOCHS))["ce"],
         "krd": 0.7 * soft_kl(s, t)},
    )  # fmt: skip


def test_where_all_neighbours_are_reliable_all_edges_stay_pairs() -> None:
    batch, s, t = _batch(), _random(0), _random(1)
    made = _made(batch, t, t, warmup_epochs=1)
    torch.testing.assert_close(_term(made, batch, s, t, 0), _term(made, batch, s, t, 9))


def test_draws_repeat_by_seed_and_epoch_and_stay_between_refreshes() -> None:
    batch, s, t, noisy = _batch(), _random(0), _random(1), _random(2)

    def terms(**options: Any) -> list[float]:
        made = _made(batch, t, noisy, warmup_epochs=0, **options)
        return [float(_term(made, batch, s, t, epoch)) for epoch in range(6)]

    assert terms() == terms()
    assert terms() != terms(seed=4)
    assert len(set(terms())) == 6
    every = terms(redraw_every=3)
    assert every[0] == every[1] == every[2] != every[3] == every[4] == every[5]


def test_a_continued_method_goes_on_where_it_was() -> None:
    batch, t, noisy = _batch(), _random(1), _random(2)
    options = {"warmup_epochs": 1, "redraw_every": 4, "momentum": 0.5}

    def terms(made: Krd, epochs: range) -> list[float]:
        return [float(_term(made, batch, _random(epoch), t, epoch)) for epoch in epochs]

    through = terms(_made(batch, t, noisy, **options), range(12))
    first, second = _made(batch, t, noisy, **options), _made(batch, t, noisy, **options)
    before = terms(first, range(7))
    second.load_state(first.state())
    assert before + terms(second, range(7, 12)) == through


def test_a_batch_of_some_rows_has_their_reliability() -> None:
    batch, s, t = _batch(), _random(0), _random(1)
    made = _made(batch, t, _random(2), warmup_epochs=1)
    rows = torch.tensor([7, 3, 21, 0, 30])
    assert isinstance(batch.x, Tensor)
    assert isinstance(batch.graph, Graph)
    part = Batch.of(batch.x[rows], batch.y[rows], batch.graph.subgraph(rows), batch.labelled[rows], batch.index[rows])
    assert torch.equal(made._of(part), made._of(batch)[rows])
    assert torch.isfinite(_term(made, part, s[rows], t[rows], 5))


# -- alpha ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.02, 0.3, 1.0, 2.5, 40.0])
def test_the_exponent_of_a_curve_is_found(a: float) -> None:
    x = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    assert exponent(x, 1 - x**a) == pytest.approx(a, rel=1e-6)


def test_the_best_exponent_is_that_of_a_fine_search() -> None:
    made = torch.Generator().manual_seed(0)
    x = torch.rand(BINS, dtype=torch.float64, generator=made) * 0.98 + 0.01
    y = torch.rand(BINS, dtype=torch.float64, generator=made)
    grid = torch.linspace(-4.6, 4.6, 200_001, dtype=torch.float64).exp()
    wrong = torch.stack([(1 - x ** a[:, None] - y).square().sum(1).min() for a in grid.split(1000)]).min()
    found = exponent(x, y)
    assert float((1 - x**found - y).square().sum()) == pytest.approx(float(wrong), rel=1e-6)


def test_the_curve_is_the_share_of_agreement_in_bins() -> None:
    """Twenty nodes a bin of which (1 - x^2) agree; bins without nodes are left out."""
    middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    rho = middle.repeat_interleave(20)
    agree = torch.arange(20).repeat(BINS) < (20 * (1 - rho**2)).round()
    found = fitted(rho, agree)
    assert found == pytest.approx(2.0, rel=0.05)
    there = (rho < 0.1) | (rho > 0.3)
    assert fitted(rho[there], agree[there]) == pytest.approx(2.0, rel=0.05)


def test_a_flat_curve_says_nothing() -> None:
    rho = torch.linspace(0, 1, N, dtype=torch.float64)
    assert fitted(rho, torch.ones(N, dtype=torch.bool)) is None
    assert fitted(torch.zeros(N), torch.arange(N) % 2 == 0) is None
    batch, t = _batch(), _random(1)
    made = _made(batch, t, _random(2), warmup_epochs=0)
    _term(made, batch, t, t, 0)
    assert made.alpha == 1.0
