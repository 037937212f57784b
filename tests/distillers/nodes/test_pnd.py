"""P&D: equal to a dense version, and GLNN in its limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd import distillers
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.nodes.pnd import Pnd
from gnnkd.graph.structure import Graph
from gnnkd.types import Batch, Output, Step

N, C = 30, 4
STEP = Step(0, 10)


def _problem() -> tuple[Batch, Output, Output]:
    """A directed graph with a self loop, a multiple edge, and a node without edges."""
    rng = torch.Generator().manual_seed(0)
    edges = torch.randint(N - 1, (2, 90), generator=rng)
    edges[:, 0] = 3
    edges[:, 2] = edges[:, 1]
    batch = Batch.of(
        torch.zeros(N, 2), torch.arange(N) % C, Graph.from_edge_index(edges, N), torch.arange(N) < 10, torch.arange(N)
    )
    student, teacher = (torch.randn(N, C, generator=rng, dtype=torch.float64) for _ in range(2))
    return batch, Output(student.requires_grad_()), Output(teacher)


def _slow(batch: Batch, teacher: Tensor, gamma: float, c: float, iterations: int, fix: bool) -> Tensor:
    assert isinstance(batch.graph, Graph)
    a = batch.graph.adjacency.dense().double() + c * torch.eye(N, dtype=torch.float64)
    scale = torch.diag(a.sum(1).clamp(min=1e-300).rsqrt() * (a.sum(1) > 0))
    start = p = teacher.softmax(1)
    for _ in range(iterations):
        p = gamma * (scale @ a @ scale @ p) + (1 - gamma) * start
        p[batch.labelled] = start[batch.labelled] if fix else p[batch.labelled]
    return p / p.sum(1, keepdim=True)


@pytest.mark.parametrize("fix", [True, False])
@pytest.mark.parametrize(("gamma", "c", "iterations"), [(0.9, 2.0, 5), (0.5, 1.0, 1), (0.9, 0.0, 3), (1.0, 2.0, 50)])
def test_the_loss_is_glnns_with_the_dense_propagation(gamma: float, c: float, iterations: int, fix: bool) -> None:
    batch, student, teacher = _problem()
    method = Pnd(label_weight=0.2, gamma=gamma, self_coeff=c, iterations=iterations, fix=fix)
    want = Output(_slow(batch, teacher.logits, gamma, c, iterations, fix).log())
    found, slow = (m.loss(batch, student, t, STEP) for m, t in ((method, teacher), (Glnn(label_weight=0.2), want)))
    assert found.keys() == slow.keys() == {"ce", "kd"}
    for name, term in found.items():
        torch.testing.assert_close(term, slow[name])


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"iterations": 0}])
def test_without_propagation_it_is_glnn_bit_for_bit(options: dict[str, Any]) -> None:
    batch, student, teacher = _problem()
    found, want = (m.loss(batch, student, teacher, STEP) for m in (Pnd(**options), Glnn()))
    assert torch.equal(found["kd"], want["kd"])


def test_labels_alone_need_no_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pnd, "_propagated", lambda *_: pytest.fail("something was passed along"))
    batch, student, teacher = _problem()
    found, want = (m(label_weight=1.0).loss(batch, student, teacher, STEP) for m in (Pnd, Glnn))
    assert found.keys() == want.keys() == {"ce"}
    assert torch.equal(found["ce"], want["ce"])


def test_training_nodes_that_are_fixed_keep_what_the_teacher_says() -> None:
    batch, student, teacher = _problem()
    gradients = []
    for method in (Pnd(fix=True), Glnn(), Pnd()):
        (gradient,) = torch.autograd.grad(method.loss(batch, student, teacher, STEP)["kd"], [student.logits])
        gradients.append(gradient[batch.labelled])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert not torch.allclose(gradients[2], gradients[1])


def test_a_lone_node_without_a_weight_of_its_own_keeps_what_the_teacher_says() -> None:
    batch, student, teacher = _problem()
    loss = Pnd(gamma=1.0, self_coeff=0.0).loss(batch, student, teacher, STEP)["kd"]
    (gradient,) = torch.autograd.grad(loss, [student.logits])
    want = (student.logits.softmax(1) - teacher.logits.softmax(1))[-1] / N
    torch.testing.assert_close(gradient[-1], want.detach())


def test_another_teacher_is_propagated_anew() -> None:
    batch, student, teacher = _problem()
    method = Pnd()
    one = method.loss(batch, student, teacher, STEP)["kd"]
    assert torch.equal(method.loss(batch, student, teacher, STEP)["kd"], one)
    assert not torch.equal(method.loss(batch, student, Output(teacher.logits.flip(0)), STEP)["kd"], one)


def test_it_is_found_by_its_name() -> None:
    assert isinstance(distillers.build("pnd", on_graphs=True), Pnd)
