"""What AdaGMLP, CPF, TinyGNN and VQGraph have in common: they train, resume, repeat, and carry DGD on top."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gnnkd import distillers, nn
from gnnkd.distillers.base import Distiller, Lesson
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import ask
from gnnkd.train.fit import Fit
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import forward
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output, Step

N, D, C, SEED = 150, 24, 3, 4
Y = torch.arange(N) % C
TRAIN, VAL, REST = torch.arange(N) < 30, (torch.arange(N) >= 30) & (torch.arange(N) < 60), torch.arange(N) >= 60
SMALL: dict[str, dict[str, Any]] = {"vqgraph": {"codes": 20, "dim": 8, "tokenizer_epochs": 5, "samples": 40}}
CASES = [
    ("adagmlp", "mlp"),
    ("adagmlp", "sage"),
    ("cpf", "mlp"),
    ("tinygnn", "gcn"),
    ("tinygnn", "gat"),
    ("vqgraph", "mlp"),
    ("vqgraph", "gcn"),
]


class Problem(NamedTuple):
    """A planted partition, and a teacher that is right about most of its nodes."""

    batch: Batch
    teacher: Output


def _problem(*, sparse: bool = False) -> Problem:
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randint(N, (2, 10 * N), generator=rng)
    near = (Y[a] == Y[b]) | (torch.rand(a.numel(), generator=rng) < 0.1)
    graph = Graph.from_edge_index(torch.stack([a, b])[:, near], N)
    chance = torch.where(torch.arange(D) % C == Y[:, None], 0.4, 0.1)
    x = (torch.rand(N, D, generator=rng) < chance).float()
    told = torch.nn.functional.one_hot(Y, C) * 4.0 + torch.randn(N, C, generator=rng)
    index = torch.randperm(10 * N, generator=rng)[:N]
    return Problem(Batch.of(CSR.from_dense(x) if sparse else x, Y, graph, TRAIN, index), Output(told))


def _built(method: str, **options: Any) -> Distiller:
    return distillers.build(method, on_graphs=True, **(SMALL.get(method, {}) | options))


def _prepared(distiller: Distiller, problem: Problem, student: str, dropout: float = 0.5) -> torch.nn.Module:
    torch.manual_seed(SEED)
    options: dict[str, Any] = {"layers": 2, "width": 8, "dropout": dropout}
    make = lambda inputs: nn.MODELS[student](inputs, C, **options)  # noqa: E731
    batch = problem.batch
    network = distiller.learner(make, batch, C, SEED)
    with torch.no_grad():
        shown = ask(network.eval(), batch.x, batch.graph, batch.index)
    distiller.prepare(Lesson(shown, problem.teacher, (), batch.y, 0.0, 0.0, SEED, batch))
    return network


def _fit(problem: Problem, distiller: Distiller, student: str, epochs: int, file: Path | None = None) -> Fit:
    network = _prepared(distiller, problem, student)
    settings = TrainSettings(epochs=epochs, checkpoint_every=1, lr=0.03)
    course = WholeBatch(network, problem.batch, distiller, problem.teacher, (Y, VAL), settings, seed=SEED)
    return Fit(course, settings, file=file)


def _bank(problem: Problem) -> Bank:
    teacher = nn.MODELS["gcn"](D, C, layers=2, width=8).eval()
    output = teacher(problem.batch.x, problem.batch.graph)
    bank = Bank(Layers.of(output, dict(teacher.named_parameters()), N, 16), GeneratorSettings().resolved())
    for epoch in range(3):
        bank.offer(0.5, epoch, bank.untrained(seed=epoch))
    return bank


def _state(fit: Fit) -> dict[str, Tensor]:
    return {f"model.{k}": t.clone() for k, t in fit.model.state_dict().items()} | fit.course.state()


@pytest.mark.parametrize(("method", "student"), CASES)
def test_a_student_learns(method: str, student: str) -> None:
    problem = _problem()
    fit = _fit(problem, _built(method), student, epochs=30)
    fit.run()
    batch = problem.batch
    with torch.no_grad():
        logits = ask(fit.model.eval(), batch.x, batch.graph, batch.index).logits
    accuracy = float((logits.argmax(1) == Y)[REST].double().mean())
    assert accuracy > 0.7, "chance is a third"


@pytest.mark.parametrize(("method", "student"), CASES)
def test_stopping_and_resuming_is_going_through_bit_for_bit(method: str, student: str, tmp_path: Path) -> None:
    through = _fit(_problem(), _built(method), student, epochs=5)
    through.run()
    first = _fit(_problem(), _built(method), student, epochs=3, file=tmp_path / "checkpoint")
    first.run()
    torch.rand(7)
    second = _fit(_problem(), _built(method), student, epochs=5, file=tmp_path / "checkpoint")
    second.restore()
    second.run()
    want, given = _state(through), _state(second)
    assert want.keys() == given.keys()
    for name, tensor in want.items():
        assert torch.equal(tensor, given[name]), name
    assert through.progress.history == second.progress.history


@pytest.mark.parametrize(("method", "student"), CASES)
def test_sparse_and_dense_features_give_the_same_terms(method: str, student: str) -> None:
    found = []
    for sparse in (False, True):
        problem, distiller = _problem(sparse=sparse), _built(method)
        network = _prepared(distiller, problem, student)
        torch.manual_seed(1)
        step = Step(2, 10)
        output = forward(network, distiller, problem.batch, step)
        found.append(distiller.loss(problem.batch, output, problem.teacher, step))
    assert found[0].keys() == found[1].keys()
    for name, term in found[0].items():
        torch.testing.assert_close(term, found[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("method", "student"), CASES)
def test_dgd_on_top_reads_the_weights_and_moves_their_gradients(method: str, student: str) -> None:
    problem = _problem()
    needs_graph = nn.needs_graph(student)
    build = partial(distillers.build, "dgd", _bank(problem), base=method, on_graphs=True)
    distiller = build(student_needs_graph=needs_graph, **SMALL.get(method, {}))
    network = _prepared(distiller, problem, student)
    step, params = Step(0, 10), dict(network.named_parameters())
    output = forward(network, distiller, problem.batch, step)
    terms = distiller.loss(problem.batch, output, problem.teacher, step)
    gradients = distiller.gradients(terms, params, problem.batch, output, step)
    gradients = distiller.combine(gradients, params, problem.batch, output, step)
    assert set(output.hidden) <= gradients.keys()
    sizes = {name: float(size) for name, size in distiller.diagnostics().items() if name.startswith("bias/")}
    assert sizes.keys() == {f"bias/{name}" for name in output.hidden}
    assert all(0 < size < 1 for size in sizes.values())
    assert all(bool(g.isfinite().all()) for g in gradients.values())


@pytest.mark.parametrize(("method", "student"), CASES)
def test_isolated_nodes_and_self_loops_are_no_mistake(method: str, student: str) -> None:
    batch, teacher = _problem()
    edges = torch.tensor([[0, 1, 2, 2, 5], [1, 0, 2, 2, 6]])
    alone = Batch(batch.x, batch.y, batch.index, Graph.from_edge_index(edges, N), batch.labelled)
    problem, distiller = Problem(alone, teacher), _built(method)
    network = _prepared(distiller, problem, student)
    step = Step(0, 10)
    terms = distiller.loss(alone, forward(network, distiller, alone, step), teacher, step)
    found = distiller.gradients(terms, dict(network.named_parameters()), alone, Output(teacher.logits), step)
    assert all(bool(t.isfinite().all()) for t in [*terms.values(), *found.values()])


@pytest.mark.parametrize("method", ["adagmlp", "cpf", "tinygnn", "vqgraph"])
def test_what_a_search_tries_are_options_in_range(method: str) -> None:
    space = distillers.graph_methods()[method].space
    assert 3 <= len(space) <= 6
    assert space.keys() <= distillers.options(method, on_graphs=True).keys()
