"""NOSMOG: its walks and positions, its changes of features, its loss, and what its students learn."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.nodes.nosmog import Nosmog, skipgram
from gnnkd.distillers.nodes.nosmog.attack import changed, rows_of, worst
from gnnkd.distillers.nodes.nosmog.skipgram import skip_gram
from gnnkd.distillers.nodes.walks import ENDED, walks
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import ask
from gnnkd.train.fit import Fit
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import forward
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output, Step

N, D, C, SEED = 120, 24, 3, 4
STEP = Step(1, 10)
Y = torch.arange(N) % C
TRAIN, VAL, REST = torch.arange(N) < 30, (torch.arange(N) >= 30) & (torch.arange(N) < 60), torch.arange(N) >= 60
SHORT: dict[str, Any] = {"walk_length": 10, "walks": 2, "dim": 6}
CASES = [("nosmog", "mlp", SHORT), ("nosmog", "gcn", SHORT), ("nosmog", "sage", SHORT | {"label_weight": 0.5})]
CASES += [("gaglnn", "mlp", {}), ("pnd", "mlp", {}), ("pnd", "gcn", {"fix": True})]
LABELS = [f"{method}-{student}" for method, student, _ in CASES]


def _draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _problem(*, sparse: bool = False) -> tuple[Batch, Output]:
    """A planted partition, and a teacher that is right about most of its nodes."""
    rng = _draws()
    a, b = torch.randint(N, (2, 10 * N), generator=rng)
    near = (Y[a] == Y[b]) | (torch.rand(a.numel(), generator=rng) < 0.1)
    graph = Graph.from_edge_index(torch.stack([a, b])[:, near], N)
    chance = torch.where(torch.arange(D) % C == Y[:, None], 0.4, 0.1)
    x = (torch.rand(N, D, generator=rng) < chance).float()
    told = torch.nn.functional.one_hot(Y, C) * 4.0 + torch.randn(N, C, generator=rng)
    index = torch.randperm(10 * N, generator=rng)[:N]
    teacher = Output(told, pooled=torch.randn(N, 5, generator=rng))
    return Batch.of(CSR.from_dense(x) if sparse else x, Y, graph, TRAIN, index), teacher


def _prepared(distiller: Distiller, batch: Batch, teacher: Output, student: str, dropout: float) -> torch.nn.Module:
    torch.manual_seed(SEED)
    make = partial(nn.MODELS[student], out_channels=C, layers=2, width=8, dropout=dropout)
    network = distiller.learner(make, batch, C, SEED)
    with torch.no_grad():
        shown = ask(network.eval(), batch.x, batch.graph, batch.index)
    distiller.prepare(Lesson(shown, teacher, (), batch.y, 0.0, 0.0, SEED, batch))
    return network


def _terms(
    distiller: Distiller, *, student: str = "mlp", sparse: bool = False, dropout: float = 0.0
) -> tuple[dict[str, Tensor], Output, Batch, Output]:
    batch, teacher = _problem(sparse=sparse)
    output = forward(_prepared(distiller, batch, teacher, student, dropout), distiller, batch, STEP)
    return distiller.loss(batch, output, teacher, STEP), output, batch, teacher


# -- walks and positions -----------------------------------------------------------------------------------------


def _ring() -> CSR:
    """Nodes 0 .. 9 in a ring, with two edges to the next one and one to the one before; 10 is alone, 11 leads to 10."""
    row = torch.cat([torch.arange(10).repeat(3), torch.tensor([11])])
    col = torch.cat([(torch.arange(20) + 1) % 10, (torch.arange(10) - 1) % 10, torch.tensor([10])])
    return CSR.from_coo(row, col, None, (12, 12))


def test_walks_follow_edges_and_end_where_there_are_none() -> None:
    found = walks(_ring(), torch.arange(12), 30, _draws())
    assert torch.equal(found[:, 0], torch.arange(12))
    steps = (found[:10, 1:] - found[:10, :-1]) % 10
    assert set(steps.unique().tolist()) == {1, 9}
    assert (found[10, 1:] == ENDED).all()
    assert found[11].tolist() == [11, 10, *[ENDED] * 28]
    assert torch.equal(walks(_ring(), torch.arange(12), 30, _draws()), found)
    assert torch.equal(walks(_ring(), torch.arange(12), 1, _draws()), torch.arange(12)[:, None])
    nothing = CSR.from_coo(*torch.zeros(2, 0, dtype=torch.int64), None, (3, 3))
    assert (walks(nothing, torch.arange(3), 4, _draws())[:, 1:] == ENDED).all()


def test_each_edge_of_a_node_is_as_probable_as_any_other() -> None:
    found = walks(_ring(), torch.zeros(30_000, dtype=torch.int64), 2, _draws())
    share = float((found[:, 1] == 1).double().mean())
    assert abs(share - 2 / 3) < 4 * (2 / 9 / 30_000) ** 0.5, "within four standard deviations"


def test_a_step_of_skip_gram_is_adagrad_on_its_loss() -> None:
    rng, n, dim = _draws(), 9, 4
    tables = (torch.randn(n, dim, generator=rng), torch.randn(n, dim, generator=rng))
    walk, others = torch.randint(n, (3, 5), generator=rng), torch.randint(n, (256,), generator=rng)
    near = (torch.rand(3, 5, 5, generator=rng) < 0.4).float()
    given = [t.clone().requires_grad_() for t in tables]
    loss = torch.zeros(())
    for w in range(3):
        for i, j in near[w].nonzero().tolist():
            u, v = given[0][walk[w, i]], given[1][walk[w, j]]
            away = torch.nn.functional.logsigmoid(-(given[1][others] @ u)).mean()
            loss = loss - torch.nn.functional.logsigmoid(u @ v) - skipgram.NEGATIVES * away
    slopes = torch.autograd.grad(loss, given)
    skipgram._step(tables, (torch.zeros(n, 1), torch.zeros(n, 1)), walk, near, others)
    for table, before, slope in zip(tables, given, slopes, strict=True):
        size = slope.square().mean(1, keepdim=True).sqrt() + 1e-10
        torch.testing.assert_close(table, before.detach() - 0.05 * slope / size, rtol=1e-4, atol=1e-5)


def test_pairs_are_within_the_window_and_within_the_walk() -> None:
    walk = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 1], [3, 4, 5, ENDED, ENDED, ENDED, ENDED, ENDED]]).repeat(200, 1)
    near = skipgram._near(walk, 3, _draws())
    apart = (torch.arange(8)[:, None] - torch.arange(8)).abs()
    assert not near[:, apart > 3].any()
    assert not near[:, apart == 0].any()
    assert not near[1::2, 3:].any()
    assert not near[1::2, :, 3:].any()
    assert near[:, apart == 1].sum() == 200 * (14 + 4), "the nearest are always pairs"
    assert 0.5 < float(near[::2, apart == 2].mean()) < 0.8, "those two apart in two of three cases"


def test_nodes_of_one_clique_have_positions_that_point_the_same_way() -> None:
    """Two cliques of ten with a bridge; a last node is alone."""
    block = torch.block_diag(torch.ones(10, 10), torch.ones(10, 10), torch.zeros(1, 1)) - torch.eye(21)
    block[20, 20] = 0
    block[0, 10] = block[10, 0] = 1
    a = CSR.from_dense(block)
    met = walks(a, torch.arange(21).repeat(10), 20, _draws())
    rows = skip_gram(met, 21, dim=8, window=3, iterations=2, draws=_draws())
    assert not rows[20].any()
    unit = rows[:20] / rows[:20].norm(dim=1, keepdim=True)
    cosines, same = unit @ unit.t(), torch.arange(20)[:, None] // 10 == torch.arange(20) // 10
    assert cosines[same].mean() > cosines[~same].mean() + 0.5
    assert torch.equal(skip_gram(met, 21, dim=8, window=3, iterations=2, draws=_draws()), rows)


def test_positions_belong_to_ids_and_follow_the_seed() -> None:
    batch, _ = _problem()
    make = partial(nn.MODELS["mlp"], out_channels=C, layers=2, width=8)
    one, same, other = (Nosmog(**SHORT).learner(make, batch, C, seed) for seed in (0, 0, 1))
    assert torch.equal(one.ids, batch.index.sort().values)
    assert torch.equal(one.table, same.table)
    assert not torch.equal(one.table, other.table)
    own = Nosmog(**SHORT)._positions(batch.graph.adjacency, 0)  # type: ignore[union-attr]
    assert torch.equal(one.placed(N, None, batch.index), own)


# -- changes of features -----------------------------------------------------------------------------------------


def test_the_worst_change_stays_in_its_box_and_makes_the_loss_larger() -> None:
    rng = _draws()
    weight, x = torch.randn(6, 3, generator=rng), torch.randn(10, 6, generator=rng)

    def loss(delta: Tensor) -> Tensor:
        return ((x + delta) @ weight).tanh().square().sum()

    losses = []
    for steps in (0, 1, 5, 20):
        delta = worst(loss, (10, 6), eps=0.3, rate=0.075, steps=steps, draws=_draws(), like=x)
        assert delta.abs().max() <= torch.tensor(0.3)
        assert not delta.requires_grad
        losses.append(float(loss(delta)))
    assert losses == sorted(losses)
    assert losses[-1] > float(loss(torch.zeros(10, 6))) + 1


def test_the_worst_change_for_a_linear_loss_is_a_corner_of_the_box() -> None:
    slope = torch.randn(7, 5, generator=_draws())
    delta = worst(lambda d: (slope * d).sum(), (7, 5), eps=0.2, rate=0.05, steps=8, draws=_draws(), like=slope)
    torch.testing.assert_close(delta, 0.2 * slope.sign())


def test_other_values_in_some_rows_are_the_same_in_sparse_and_in_dense_features() -> None:
    x, rows = torch.rand(9, 6) * (torch.rand(9, 6) < 0.4), torch.tensor([7, 0, 4])
    values = torch.randn(3, 6, requires_grad=True)
    weight = torch.randn(9, 6)
    found = changed(CSR.from_dense(x), rows)(values)
    assert isinstance(found, CSR)
    dense = changed(x, rows)(values)
    assert isinstance(dense, Tensor)
    assert torch.equal(found.dense(), dense)
    assert torch.equal(dense[rows], values)
    slopes = [torch.autograd.grad((m * weight).sum(), [values])[0] for m in (found.dense(), dense)]
    assert torch.equal(slopes[0], slopes[1])
    assert torch.equal(rows_of(CSR.from_dense(x), rows), rows_of(x, rows))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("samples", [20, 1000])
def test_a_student_of_rows_alone_is_shown_the_changed_rows_alone_with_the_same_loss(sparse: bool, samples: int) -> None:
    found = []
    for alone in (True, False):
        distiller = Nosmog(**SHORT, samples=samples)
        batch, teacher = _problem(sparse=sparse)
        network = _prepared(distiller, batch, teacher, "mlp", 0.0)
        assert distiller.alone
        distiller.alone = alone
        found.append(distiller.loss(batch, forward(network, distiller, batch, STEP), teacher, STEP))
    for name, term in found[0].items():
        torch.testing.assert_close(term, found[1][name])


@pytest.mark.parametrize("student", ["mlp", "gcn"])
def test_the_more_steps_the_worse_and_no_box_is_no_change(student: str) -> None:
    plain, *worse = (
        _terms(Nosmog(**SHORT, eps=eps, pgd_steps=steps, adversarial_weight=1.0), student=student)[0]
        for eps, steps in ((0.0, 5), (0.1, 0), (0.1, 1), (0.1, 5))
    )
    torch.testing.assert_close(plain["adversarial"], plain["kd"])
    sizes = [float(terms["adversarial"].detach()) for terms in worse]
    assert sizes == sorted(sizes)
    assert sizes[-1] > float(plain["kd"].detach())


# -- the loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label_weight", [0.0, 0.3, 1.0])
def test_what_is_left_without_its_own_terms_is_glnn(label_weight: float) -> None:
    distiller = Nosmog(**SHORT, label_weight=label_weight, adversarial_weight=0.0, similarity_weight=0.0)
    assert not distiller.reads_maps
    assert not distiller.asks_student
    terms, output, batch, teacher = _terms(distiller)
    want = Glnn(label_weight=label_weight).loss(batch, output, teacher, STEP)
    assert terms.keys() == want.keys()
    assert all(torch.equal(terms[name], t) for name, t in want.items())


def test_the_term_of_labels_reads_no_teacher() -> None:
    distiller = Nosmog(**SHORT, label_weight=0.5)
    terms, output, batch, teacher = _terms(distiller)
    assert list(terms) == ["ce", "kd", "adversarial", "similarity"]
    other = Output(teacher.logits.flip(0), pooled=teacher.pooled)
    again = distiller.loss(batch, output, other, STEP)
    assert [name for name, t in terms.items() if torch.equal(t, again[name])] == ["ce", "similarity"]


def test_similarity_is_the_mean_over_pairs_of_rows() -> None:
    distiller = Nosmog(**SHORT, similarity_weight=0.5, adversarial_weight=0.0)
    terms, output, _, teacher = _terms(distiller)
    g, (raw,) = distiller.part, output.raw.values()
    assert isinstance(g, torch.nn.Linear)
    assert teacher.pooled is not None
    h, t = g(raw).relu(), teacher.pooled
    want = sum(float((t[i] @ t[j] - h[i] @ h[j]).detach()) ** 2 for i in range(N) for j in range(N)) / N**2
    assert float(terms["similarity"].detach()) == pytest.approx(0.5 * want, rel=1e-4)


def test_rows_that_are_drawn_change_with_the_epoch_and_with_nothing_else() -> None:
    distiller = Nosmog(**SHORT, samples=10)
    batch, teacher = _problem()
    network = _prepared(distiller, batch, teacher, "mlp", 0.5)
    found = []
    for epoch in (1, 1, 2):
        torch.manual_seed(7)
        output = forward(network, distiller, batch, Step(epoch, 10))
        torch.rand(epoch)
        found.append(distiller.loss(batch, output, teacher, Step(epoch, 10)))
    for name in ("adversarial", "similarity"):
        assert torch.equal(found[0][name], found[1][name])
        assert not torch.equal(found[0][name], found[2][name])


def test_a_teacher_that_shows_no_hidden_rows_is_refused_where_they_are_compared() -> None:
    distiller = Nosmog(**SHORT)
    _, output, batch, teacher = _terms(distiller)
    with pytest.raises(UserError, match="rows"):
        distiller.loss(batch, output, Output(teacher.logits), STEP)


# -- students ----------------------------------------------------------------------------------------------------


def _fit(case: tuple[str, str, dict[str, Any]], epochs: int, file: Path | None = None) -> tuple[Fit, Batch]:
    method, student, options = case
    batch, teacher = _problem(sparse=True)
    distiller = distillers.build(method, on_graphs=True, **options)
    network = _prepared(distiller, batch, teacher, student, 0.5)
    settings = TrainSettings(epochs=epochs, checkpoint_every=1, lr=0.03)
    course = WholeBatch(network, batch, distiller, teacher, (Y, VAL), settings, seed=SEED)
    return Fit(course, settings, file=file), batch


@pytest.mark.parametrize("case", CASES, ids=LABELS)
def test_a_student_learns(case: tuple[str, str, dict[str, Any]]) -> None:
    fit, batch = _fit(case, epochs=40)
    fit.run()
    with torch.no_grad():
        logits = ask(fit.model.eval(), batch.x, batch.graph, batch.index).logits
    assert float((logits.argmax(1) == Y)[REST].double().mean()) > 0.7, "chance is a third"


@pytest.mark.parametrize("case", CASES, ids=LABELS)
def test_stopping_and_resuming_is_going_through_bit_for_bit(
    case: tuple[str, str, dict[str, Any]], tmp_path: Path
) -> None:
    through, _ = _fit(case, epochs=4)
    through.run()
    first, _ = _fit(case, epochs=2, file=tmp_path / "checkpoint")
    first.run()
    torch.rand(7)
    second, _ = _fit(case, epochs=4, file=tmp_path / "checkpoint")
    second.restore()
    second.run()
    one, other = (f.model.state_dict() | f.course.state() for f in (through, second))
    assert one.keys() == other.keys()
    assert all(torch.equal(t, other[name]) for name, t in one.items())
    assert through.progress.history == second.progress.history


@pytest.mark.parametrize("case", CASES, ids=LABELS)
def test_sparse_and_dense_features_give_the_same_terms(case: tuple[str, str, dict[str, Any]]) -> None:
    method, student, options = case
    found = [
        _terms(distillers.build(method, on_graphs=True, **options), student=student, sparse=sparse)[0]
        for sparse in (True, False)
    ]
    assert found[0].keys() == found[1].keys()
    for name, term in found[0].items():
        torch.testing.assert_close(term, found[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=LABELS)
def test_dgd_on_top_reads_the_weights(case: tuple[str, str, dict[str, Any]]) -> None:
    method, student, options = case
    batch, teacher = _problem()
    shown = nn.MODELS["gcn"](D, C, layers=2, width=8).eval()
    layers = Layers.of(shown(batch.x, batch.graph), dict(shown.named_parameters()), N, 16)
    bank = Bank(layers, GeneratorSettings().resolved())
    for epoch in range(3):
        bank.offer(0.5, epoch, bank.untrained(seed=epoch))
    needs_graph = nn.needs_graph(student)
    distiller = distillers.build("dgd", bank, base=method, on_graphs=True, student_needs_graph=needs_graph, **options)
    network = _prepared(distiller, batch, teacher, student, 0.5)
    output = forward(network, distiller, batch, STEP)
    terms = distiller.loss(batch, output, teacher, STEP)
    params = dict(network.named_parameters())
    found = distiller.combine(distiller.gradients(terms, params, batch, output, STEP), params, batch, output, STEP)
    assert set(output.hidden) <= found.keys()
    assert all(bool(g.isfinite().all()) for g in found.values())


def test_nodes_without_edges_are_no_mistake() -> None:
    batch, teacher = _problem()
    nothing = Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), N)
    alone = Batch(batch.x, batch.y, batch.index, nothing, batch.labelled)
    distiller = Nosmog(**SHORT)
    network = _prepared(distiller, alone, teacher, "mlp", 0.5)
    assert not network.table.any()
    terms = distiller.loss(alone, forward(network, distiller, alone, STEP), teacher, STEP)
    assert all(bool(t.isfinite()) for t in terms.values())
