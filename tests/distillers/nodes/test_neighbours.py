"""Laws of the methods of neighbours: sums node by node, limits, symmetries, training runs, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.nodes import draws
from gnnkd.distillers.nodes.ffg2m import difference_divergence
from gnnkd.distillers.nodes.lsp import KERNELS, cosine, edge_log_softmax, structure_divergence
from gnnkd.distillers.nodes.pairs import entropy, loopless, met, others, pair_divergence
from gnnkd.errors import UserError
from gnnkd.graph.attention import edge_softmax
from gnnkd.graph.structure import CSR, Graph
from gnnkd.train.fit import Fit
from gnnkd.train.settings import TrainSettings
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output, Step

N, D, C = 30, 12, 4
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lsp": ("lsp", {"labelled": False}),
    "ffg2m": ("ffg2m", {}),
    "ffg2m by nodes": ("ffg2m", {"low_mean": "nodes"}),
    "krd": ("krd", {"warmup_epochs": 2, "redraw_every": 3}),
    "hgmd weight": ("hgmd", {"mode": "weight"}),
    "hgmd mixup": ("hgmd", {"mode": "mixup"}),
}


def _random(*shape: int, seed: int = 0, size: float = 2.0) -> Tensor:
    return size * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _edges(n: int = N, seed: int = 0) -> Tensor:
    """Directed edges with a self loop, an edge that is there twice, and isolated nodes: the last five."""
    made = torch.randint(n - 5, (2, 3 * n), generator=torch.Generator().manual_seed(seed))
    return torch.cat([made, torch.tensor([[2, 0, 0], [2, 1, 1]])], 1)


def _batch(edge_index: Tensor | None = None, n: int = N) -> Batch:
    graph = Graph.from_edge_index(_edges(n) if edge_index is None else edge_index, n)
    return Batch.of(torch.zeros(n, 1), torch.arange(n) % C, graph, torch.arange(n) < n // 2)


def _pairs(batch: Batch) -> list[tuple[int, int]]:
    """Who learns, and from which neighbour."""
    assert isinstance(batch.graph, Graph)
    return [(i, j) for j, i in batch.graph.edge_index.t().tolist() if i != j]


def _kl(t: Tensor, s: Tensor) -> Tensor:
    p, q = t.softmax(0), s.softmax(0)
    return (p * (p.log() - q.log())).sum()


def _renamed(batch: Batch, order: Tensor) -> Batch:
    """The batch whose row i is row `order[i]` of the old one."""
    assert isinstance(batch.graph, Graph)
    y, labelled = batch.y[order], batch.labelled[order]
    return Batch.of(torch.zeros(len(order), 1), y, batch.graph.subgraph(order), labelled, batch.index[order])


# -- draws ----------------------------------------------------------------------------------------------------------


def test_draws_repeat_by_name_and_differ_by_name() -> None:
    chance = torch.full((1000,), 0.3)
    first = draws.bernoulli(chance, "a", 1, 2)
    torch.rand(3)
    assert torch.equal(first, draws.bernoulli(chance, "a", 1, 2))
    assert not torch.equal(first, draws.bernoulli(chance, "a", 1, 3))
    assert torch.equal(draws.beta(0.4, chance, "a", 1), draws.beta(0.4, chance, "a", 1))
    assert not torch.equal(draws.beta(0.4, chance, "a", 1), draws.beta(0.4, chance, "a", 2))


def test_draws_have_their_distributions() -> None:
    chance = torch.tensor([0.0, 1.0, 0.25]).repeat_interleave(40_000)
    never, always, quarter = draws.bernoulli(chance, "b").view(3, -1).double().mean(1).tolist()
    assert (never, always) == (0.0, 1.0)
    assert quarter == pytest.approx(0.25, abs=0.01)
    b = 0.4
    drawn = draws.beta(b, chance, "b").double()
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(drawn.var()) == pytest.approx(1 / (4 * (2 * b + 1)), abs=0.005)


@pytest.mark.parametrize("sparse", [True, False])
def test_noise_is_added_to_features(sparse: bool) -> None:
    x = _random(200, 50).float() * (torch.arange(50) % 3 == 0)
    found = draws.noised(CSR.from_dense(x) if sparse else x, 0.5, "n", 1)
    torch.testing.assert_close(found, draws.noised(x, 0.5, "n", 1))
    assert float((found - x).std()) == pytest.approx(0.5, rel=0.02)
    assert float((found - x).mean()) == pytest.approx(0.0, abs=0.02)


# -- pairs ----------------------------------------------------------------------------------------------------------


def test_self_loops_are_no_neighbours_and_are_left_out_once() -> None:
    batch = _batch()
    a = others(batch)
    assert sorted(zip(a.row.tolist(), a.col.tolist(), strict=True)) == sorted(_pairs(batch))
    assert others(batch) is a
    plain = loopless(a)
    assert plain.pattern is a.pattern


def test_each_two_neighbours_meet_once() -> None:
    batch = _batch()
    a, count = met(batch), Counter(tuple(sorted(pair)) for pair in _pairs(batch))
    assert met(batch) is a
    places = zip(a.row.tolist(), a.col.tolist(), strict=True)
    assert dict(zip(places, a.values().tolist(), strict=True)) == count
    assert max(count.values()) > 1


def test_a_batch_without_edges_to_look_at_is_refused() -> None:
    with pytest.raises(UserError, match="choose glnn or kd"):
        others(Batch.of(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), None, torch.ones(2, dtype=torch.bool)))


def test_entropy_is_that_of_a_distribution() -> None:
    logits = _random(N, C)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy(logits), expected)
    assert torch.equal(entropy(torch.tensor([[1e4, 0.0, -1e4]])), torch.zeros(1))


@pytest.mark.parametrize("weighted", [True, False])
def test_pairs_are_summed_one_by_one(weighted: bool) -> None:
    batch, tau = _batch(), 0.8
    a = others(batch)
    s, t = _random(N, C).requires_grad_(), _random(N, C, seed=1)
    weight = torch.rand(a.n_entries, dtype=torch.float64) if weighted else None
    found = pair_divergence(a, weight, s, t, tau)
    each = [1.0] * a.n_entries if weight is None else weight.tolist()
    places = zip(a.row.tolist(), a.col.tolist(), each, strict=True)
    rows = [w * _kl(t[j] / tau, s[i] / tau) for i, j, w in places]
    rows += [_kl(t[i] / tau, s[i] / tau) for i in range(N)]
    slow = torch.stack(rows).sum() / (sum(each) + N)
    torch.testing.assert_close(found, slow)
    torch.testing.assert_close(*(torch.autograd.grad(value, s)[0] for value in (found, slow)))


# -- FF-G2M ---------------------------------------------------------------------------------------------------------


def test_ffg2m_is_the_mean_over_edges() -> None:
    batch, tau = _batch(), 1.3
    s, t = _random(N, C).requires_grad_(), _random(N, C, seed=1)
    terms = distillers.build("ffg2m", on_graphs=True, label_weight=0.25, tau=tau).loss(
        batch, Output(s), Output(t), Step(0, 1)
    )
    pairs = _pairs(batch)
    low = torch.stack([_kl(t[j], s[i]) for i, j in [*pairs, *((i, i) for i in range(N))]]).mean()
    high = torch.stack([_kl((t[i] - t[j]).abs() / tau, (s[i] - s[j]).abs() / tau) for i, j in pairs]).mean()
    torch.testing.assert_close(terms["low"], 0.75 * low)
    torch.testing.assert_close(terms["high"], 0.75 * high)
    glnn = distillers.build("glnn", label_weight=0.25).loss(batch, Output(s), Output(t), Step(0, 1))
    torch.testing.assert_close(terms["ce"], glnn["ce"])
    for name, value in (("low", low), ("high", high)):
        torch.testing.assert_close(torch.autograd.grad(terms[name], s)[0], 0.75 * torch.autograd.grad(value, s)[0])


def test_ffg2m_by_nodes_gives_every_node_s_neighbours_the_weight_of_one_pair() -> None:
    batch = _batch()
    s, t = _random(N, C), _random(N, C, seed=1)
    found = distillers.build("ffg2m", on_graphs=True, label_weight=0.0, low_mean="nodes").loss(
        batch, Output(s), Output(t), Step(0, 1)
    )
    total, weight = torch.zeros((), dtype=torch.float64), 0
    for i in range(N):
        heard = [_kl(t[j], s[i]) for k, j in _pairs(batch) if k == i]
        total = total + _kl(t[i], s[i]) + (torch.stack(heard).mean() if heard else 0.0)
        weight += 2 if heard else 1
    torch.testing.assert_close(found["low"], total / weight)


def test_blocks_of_edges_change_nothing_to_the_second_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    a, t = met(_batch()), _random(N, C, seed=1)

    def derivatives() -> list[Tensor]:
        s = _random(N, C).requires_grad_()
        value = difference_divergence(a, s, t, 1.3)
        (first,) = torch.autograd.grad(value, s, create_graph=True)
        (second,) = torch.autograd.grad((first * _random(N, C, seed=2)).sum(), s)
        return [value.detach(), first.detach(), second]

    whole = derivatives()
    monkeypatch.setattr("gnnkd.distillers.nodes.ffg2m._BLOCK", 7)
    assert a.n_entries > 2 * N, "more than two blocks"
    torch.testing.assert_close(derivatives(), whole)


@pytest.mark.parametrize("label_weight", [0.0, 0.3, 1.0])
def test_without_edges_ffg2m_is_glnn(label_weight: float) -> None:
    batch = _batch(torch.zeros(2, 0, dtype=torch.long))
    s, t = _random(N, C).requires_grad_(), _random(N, C, seed=1)
    found, expected = (
        torch.stack(list(made.loss(batch, Output(s), Output(t), Step(0, 1)).values())).sum()
        for made in (
            distillers.build("ffg2m", on_graphs=True, label_weight=label_weight),
            distillers.build("glnn", label_weight=label_weight),
        )
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, s)[0], torch.autograd.grad(expected, s)[0])


def test_high_frequencies_do_not_see_a_common_shift_nor_a_sign() -> None:
    a = met(_batch())
    s, t = _random(N, C), _random(N, C, seed=1)
    value = difference_divergence(a, s, t, 1.0)
    torch.testing.assert_close(difference_divergence(a, 3.0 - s, t, 1.0), value)
    assert float(difference_divergence(a, -t, t, 1.0)) == pytest.approx(0, abs=1e-12)
    assert float(value) > 0.01


# -- LSP ------------------------------------------------------------------------------------------------------------

SLOW: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rbf": lambda x, y: (-(x - y).square().sum() / 2).exp(),
    "cosine": lambda x, y: torch.cosine_similarity(x, y, dim=0),
    "poly": lambda x, y: torch.cosine_similarity(x, y, dim=0) ** 2,
    "l2": lambda x, y: (x - y).square().sum(),
}


@pytest.mark.parametrize("kernel", SLOW)
def test_lsp_is_the_mean_over_nodes_with_neighbours(kernel: str) -> None:
    batch = _batch()
    s, t = _random(N, 6, size=0.7).requires_grad_(), _random(N, 9, size=0.7, seed=1)
    near: dict[int, list[int]] = {}
    for i, j in _pairs(batch):
        near.setdefault(i, []).append(j)
    assert len(near) < N

    def weights(h: Tensor, i: int) -> Tensor:
        return torch.stack([SLOW[kernel](h[i], h[j]) for j in near[i]])

    slow = torch.stack([_kl(weights(t, i), weights(s, i)) for i in near]).mean()
    made = distillers.build("lsp", on_graphs=True, kernel=kernel, weight=100.0, label_weight=0.0, labelled=False)
    outputs = Output(_random(N, C), {"first": s, "w": s}), Output(_random(N, C), {"first": t, "w": t})
    (found,) = made.loss(batch, *outputs, Step(0, 1)).values()
    torch.testing.assert_close(found, 100 * slow)
    torch.testing.assert_close(torch.autograd.grad(found, s)[0], 100 * torch.autograd.grad(slow, s)[0])


def test_lsp_of_labelled_rows_is_that_of_the_graph_among_them() -> None:
    batch = _batch()
    assert isinstance(batch.graph, Graph)
    s, t = _random(N, 6, size=0.7), _random(N, 9, size=0.7, seed=1)
    rows = batch.labelled.nonzero().flatten()
    among = others(Batch.of(rows[:, None].float(), batch.y[rows], batch.graph.subgraph(rows), batch.labelled[rows]))
    assert 0 < among.n_entries < others(batch).n_entries
    made = distillers.build("lsp", on_graphs=True, weight=1.0, label_weight=0.0)
    outputs = Output(_random(N, C), {"first": s, "w": s}), Output(_random(N, C), {"first": t, "w": t})
    (found,) = made.loss(batch, *outputs, Step(0, 1)).values()
    torch.testing.assert_close(found, structure_divergence(among, s[rows], t[rows], KERNELS["rbf"]))


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_features_have_equal_structure(kernel: str) -> None:
    a, h = others(_batch()), _random(N, 6, size=0.7).float()
    value = structure_divergence(a, h.clone().requires_grad_(), h, KERNELS[kernel])
    assert float(value.detach()) == 0.0
    assert float(structure_divergence(a, _random(N, 6, size=0.7, seed=1).float(), h, KERNELS[kernel])) > 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_structure_does_not_see_a_rotation(kernel: str) -> None:
    a, h = others(_batch()), _random(N, 6, size=0.7)
    turn = torch.linalg.qr(_random(6, 6, seed=3)).Q
    assert float(structure_divergence(a, h @ turn, h, KERNELS[kernel])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_of_zeros_and_far_away_rows_have_finite_derivatives(kernel: str) -> None:
    a, h = others(_batch()), _random(N, 6)
    h[::3], h[1] = 0, 30.0
    s = h.float().requires_grad_()
    value = structure_divergence(a, s, _random(N, 6, seed=1).float(), KERNELS[kernel])
    (first,) = torch.autograd.grad(value, s, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), s)
    assert torch.isfinite(value)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()


def test_a_graph_without_edges_has_no_structure() -> None:
    a = others(_batch(torch.zeros(2, 0, dtype=torch.long)))
    s = _random(N, 6).requires_grad_()
    value = structure_divergence(a, s, _random(N, 6, seed=1), cosine)
    assert float(value.detach()) == 0
    assert not torch.autograd.grad(value, s)[0].any()


def test_the_logarithm_of_a_softmax_along_edges() -> None:
    a = others(_batch())
    scores = 50 * _random(a.n_entries, 1)
    torch.testing.assert_close(edge_log_softmax(a, scores).exp(), edge_softmax(a, scores))
    assert torch.isfinite(edge_log_softmax(a, 100 * scores)).all()
    small = _random(a.n_entries, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: edge_log_softmax(a, v), small)
    assert torch.autograd.gradgradcheck(lambda v: edge_log_softmax(a, v), small)


# -- all of them ----------------------------------------------------------------------------------------------------


def _planted(n: int = 120) -> tuple[Batch, Tensor]:
    """A partition with words and edges that hint at it; a third of the labels may be read."""
    made = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    pairs = torch.randint(n, (2, 8 * n), generator=made)
    kept = (y[pairs[0]] == y[pairs[1]]) | (torch.rand(8 * n, generator=made) < 0.1)
    hint = torch.where(torch.arange(30) % 3 == y[:, None], 0.4, 0.05)
    x = (torch.rand(n, 30, generator=made) < hint).float()
    graph = Graph.from_edge_index(torch.cat([pairs[:, kept], pairs[:, kept].flip(0)], 1), n)
    return Batch.of(x, y, graph, torch.arange(n) < n // 3), y


def _sparse(batch: Batch) -> Batch:
    assert isinstance(batch.x, Tensor)
    return Batch(CSR.from_dense(batch.x), batch.y, batch.index, batch.graph, batch.labelled)


def _teacher(batch: Batch, y: Tensor) -> torch.nn.Module:
    torch.manual_seed(3)
    teacher = nn.gcn(30, 3, layers=2, width=16)
    course = WholeBatch(
        teacher, batch, distillers.build("supervised"), None, (y, ~batch.labelled), TrainSettings(epochs=30)
    )
    Fit(course, TrainSettings(epochs=30)).run()
    return teacher.eval()


def _course(name: str, batch: Batch, y: Tensor, teacher: torch.nn.Module, *, student: str, dgd: bool) -> WholeBatch:
    method, given = METHODS[name]
    with torch.no_grad():
        taught = teacher(batch.x, batch.graph)
    made: Distiller
    if dgd:
        layers = Layers.of(taught, dict(teacher.named_parameters()), batch.y.numel(), 16)
        bank = Bank(layers, GeneratorSettings().resolved())
        for epoch in range(4):
            bank.offer(0.5, epoch, bank.untrained(seed=epoch))
        on_graph = nn.needs_graph(student)
        made = distillers.build("dgd", bank, base=method, on_graphs=True, student_needs_graph=on_graph, **given)
    else:
        made = distillers.build(method, on_graphs=True, **given)
    torch.manual_seed(1)
    network = nn.MODELS[student](30, 3, layers=2, width=16)

    @torch.no_grad()
    def ask(x: Any) -> Output:
        shown: Output = teacher(x, batch.graph)
        return shown

    with torch.no_grad():
        shown = network.eval()(batch.x, batch.graph)
    made.prepare(Lesson(shown, taught, (), batch.y, 0.0, 0.0, 5, batch, ask))
    return WholeBatch(network, batch, made, taught, (y, ~batch.labelled), TrainSettings(lr=0.02))


@final
class _Stopped:
    """Whoever shows progress, and stops the run once its checkpoint after epoch 6 is written."""

    def update(self, epoch: int, values: Mapping[str, float]) -> None:
        if epoch == 7:
            raise KeyboardInterrupt

    def within(self, epoch: int, share: float) -> None:
        """Nothing."""


def _run(course: WholeBatch, epochs: int) -> dict[str, Tensor]:
    """The weights after the last epoch."""
    return Fit(course, TrainSettings(epochs=epochs)).run().last


def _accuracy(course: WholeBatch, y: Tensor) -> float:
    with torch.no_grad():
        logits = course.model.eval()(course.batch.x, course.batch.graph).logits
    return float((logits.argmax(1) == y)[~course.batch.labelled].double().mean())


@pytest.mark.parametrize("student", ["mlp", "gcn"])
@pytest.mark.parametrize("name", METHODS)
def test_a_student_learns_from_its_teachers_neighbours(name: str, student: str) -> None:
    batch, y = _planted()
    course = _course(name, batch, y, _teacher(batch, y), student=student, dgd=False)
    _run(course, 40)
    assert _accuracy(course, y) > 0.65


@pytest.mark.parametrize("name", METHODS)
def test_sparse_features_are_the_same_features(name: str) -> None:
    batch, y = _planted()
    teacher, found = _teacher(batch, y), []
    for given in (batch, _sparse(batch)):
        course = _course(name, given, y, teacher, student="mlp", dgd=False)
        found.append(_run(course, 3))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dgd", [False, True], ids=["alone", "dgd"])
@pytest.mark.parametrize("name", METHODS)
def test_a_continued_run_is_an_uninterrupted_one(name: str, dgd: bool, tmp_path: Path) -> None:
    """Bit for bit, stopped between two draws of pairs."""
    batch, y = _planted()
    teacher = _teacher(batch, y)
    settings, file = TrainSettings(epochs=12, checkpoint_every=1), tmp_path / "kept.safetensors"

    def course() -> WholeBatch:
        return _course(name, batch, y, teacher, student="mlp", dgd=dgd)

    through = _run(course(), 12)
    with pytest.raises(KeyboardInterrupt):
        Fit(course(), settings, file=file).run(_Stopped())
    continued = Fit(course(), settings, file=file)
    assert continued.restore() == 7
    found = continued.run().last
    assert all(torch.equal(t, found[key]) for key, t in through.items())


@pytest.mark.parametrize("name", METHODS)
def test_dgd_runs_on_top(name: str) -> None:
    batch, y = _planted()
    teacher = _teacher(batch, y)
    plain, above = (_run(_course(name, batch, y, teacher, student="gcn", dgd=dgd), 4) for dgd in (False, True))
    assert all(torch.isfinite(t).all() for t in above.values())
    assert any(not torch.equal(t, above[key]) for key, t in plain.items())


@pytest.mark.parametrize("name", ["lsp", "ffg2m", "krd"])
def test_names_of_nodes_do_not_matter(name: str) -> None:
    """Of `hgmd` the draws do; so would they of `krd` after its warm-up."""
    batch, order = _batch(), torch.randperm(N, generator=torch.Generator().manual_seed(1))
    method, given = METHODS[name]
    s, t, h, g = _random(N, C), _random(N, C, seed=1), _random(N, 6, seed=2), _random(N, 7, seed=3)
    found = []
    for rows, shown in ((torch.arange(N), batch), (order, _renamed(batch, order))):
        made = distillers.build(method, on_graphs=True, **given)
        student, teacher = Output(s[rows], {"first": h, "w": h[rows]}), Output(t[rows], {"first": g, "w": g[rows]})
        made.prepare(Lesson(student, teacher, (), shown.y, 0.0, 0.0, 0, shown, lambda _, t=teacher: t))
        found.append(made.loss(shown, student, teacher, Step(0, 10)))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("name", METHODS)
def test_isolated_nodes_without_a_label_in_sight_are_taught(name: str) -> None:
    batch = _batch(torch.zeros(2, 0, dtype=torch.long))
    method, given = METHODS[name]
    made = distillers.build(method, on_graphs=True, **given)
    h = _random(N, 6).float()
    s = (h @ _random(6, C).float()).requires_grad_()
    student, teacher = Output(s, {"first": h, "w": h}), Output(_random(N, C, seed=1).float(), {"first": h, "w": h})
    made.prepare(Lesson(student, teacher, (), batch.y, 0.0, 0.0, 0, batch, lambda _: teacher))
    for epoch in range(4):
        terms = made.loss(batch, student, teacher, Step(epoch, 4))
        assert all(torch.isfinite(term) for term in terms.values())
        assert all(value.shape == () and torch.isfinite(value) for value in made.diagnostics().values())
    assert torch.isfinite(torch.autograd.grad(torch.stack(list(terms.values())).sum(), s)[0]).all()
