"""CPF: its loss by hand, and the labels that it must not and may read."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from gnnkd import nn
from gnnkd.distillers.nodes.cpf import Cpf
from gnnkd.graph.structure import Graph
from gnnkd.nn.around.label_propagation import LabelPropagation
from gnnkd.types import Batch, Output, Step

N, D, C = 30, 6, 3
STEP = Step(0, 10)


def _batch(labelled: torch.Tensor) -> Batch:
    rng = torch.Generator().manual_seed(0)
    graph = Graph.from_edge_index(torch.randint(N, (2, 4 * N), generator=rng), N)
    index = torch.randperm(200, generator=rng)[:N]
    return Batch.of(torch.rand(N, D, generator=rng), torch.arange(N) % C, graph, labelled, index)


def test_the_loss_is_the_root_of_summed_squares_over_nodes_outside_training() -> None:
    batch = _batch(torch.arange(N) < 9)
    student, teacher = torch.randn(N, C, dtype=torch.float64), torch.randn(N, C, dtype=torch.float64)
    total = 0.0
    for i in range(9, N):
        total += float((student[i].softmax(0) - teacher[i].softmax(0)).square().sum())
    terms = Cpf().loss(batch, Output(student), Output(teacher), STEP)
    assert terms.keys() == {"kd"}
    assert terms["kd"].item() == pytest.approx(total**0.5)


@pytest.mark.parametrize("labelled", [torch.arange(N) < 9, torch.ones(N, dtype=torch.bool)])
def test_an_equal_student_and_one_with_nothing_to_learn_have_finite_gradients(labelled: torch.Tensor) -> None:
    logits = torch.randn(N, C, requires_grad=True)
    term = Cpf().loss(_batch(labelled), Output(logits), Output(logits.detach()), STEP)["kd"]
    assert term.item() == 0
    assert not torch.autograd.grad(term, logits)[0].any()


@pytest.mark.parametrize("weights", ["tra", "ind"])
def test_the_student_knows_the_labels_of_training_and_no_other(weights: str) -> None:
    batch = _batch(torch.arange(N) % 4 == 1)
    make = partial(nn.MODELS["mlp"], out_channels=C, layers=2, width=5)
    student = Cpf(weights=weights, propagations=3).learner(make, batch, C, 0)  # type: ignore[arg-type]
    assert isinstance(student, LabelPropagation)
    known = dict(zip(student.labelled.tolist(), student.y.tolist(), strict=True))
    rows = batch.labelled.nonzero().flatten().tolist()
    assert known == {int(batch.index[i]): int(batch.y[i]) for i in rows}
    assert (student.n_known, student.nodes.numel()) == (N, N if weights == "tra" else 0)
    logits = student.eval()(batch.x, batch.graph, batch.index).logits
    assert torch.equal(logits[batch.labelled].argmax(1), batch.y[batch.labelled])
