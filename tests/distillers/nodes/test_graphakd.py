"""GraphAKD: verdicts by hand, who moves whom, and when the discriminators learn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd import nn
from gnnkd.distillers.base import TASK, Lesson, plain_gradients
from gnnkd.distillers.losses import cross_entropy
from gnnkd.distillers.nodes.graphakd import Adversary, GraphAkd, Judges, fool, judge, summary
from gnnkd.errors import UserError
from gnnkd.graph.structure import Graph
from gnnkd.types import Batch, Output, Step

N, D, C, K = 12, 6, 3, 5
EDGES = torch.randint(N, (2, 40), generator=torch.Generator().manual_seed(0))


def _drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _batch(labelled: int = 6, edges: Tensor = EDGES) -> Batch:
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    return Batch.of(x, torch.arange(N) % C, Graph.from_edge_index(edges, N), torch.arange(N) < labelled)


def _setting(**options: Any) -> tuple[GraphAkd, torch.nn.Module, Output, Output]:
    torch.manual_seed(0)
    network = nn.mlp(D, C, layers=2, width=4, dropout=0.0)
    output = network(_batch().x)
    teacher = Output(torch.randn(N, C), pooled=torch.randn(N, K))
    method = GraphAkd(**options)
    method.prepare(Lesson(output, teacher, (), _batch().y, 0.0, 0.0, 0, _batch()))
    return method, network, output, teacher


# -- the discriminators --------------------------------------------------------------------------------------------


def _judges() -> Judges:
    torch.manual_seed(0)
    return Judges(C, K).double()


def test_verdicts_are_those_of_the_formulas() -> None:
    judges, z, h, ends = _judges(), _drawn(N, C, seed=0), _drawn(N, K, seed=1), _batch().graph
    assert isinstance(ends, Graph)
    both = torch.stack([ends.adjacency.row, ends.adjacency.col]).long()
    said = judges(z, h, torch.stack([summary(h), summary(2 * h)]), both)
    for i in range(N):
        inner = z[i] + (judges.residual.weight @ z[i] + judges.residual.bias).clamp(min=0)
        all_units = judges.verdict.weight @ inner + judges.verdict.bias
        torch.testing.assert_close(torch.cat([said.classes[i], said.rows[i : i + 1]]), all_units)
        for of, w in enumerate((summary(h), summary(2 * h))):
            torch.testing.assert_close(said.whole[i, of], (judges.whole * h[i] * w).sum())
    for e, (i, j) in enumerate(both.T.tolist()):
        torch.testing.assert_close(said.ends[e], (judges.local * h[i] * h[j]).sum())
    torch.testing.assert_close(summary(h), 1 / (1 + (-h.sum(0) / N).exp()))


def test_losses_are_cross_entropies_of_the_verdicts() -> None:
    judges, y, ends = _judges(), _batch().y, EDGES
    z_s, z_t, h_s, h_t = _drawn(N, C, seed=0), _drawn(N, C, seed=1), _drawn(N, K, seed=2), _drawn(N, K, seed=3)
    both = torch.stack([summary(h_t), summary(h_s)])
    fake, real = judges(z_s, h_s, both, ends), judges(z_t, h_t, both, ends)

    def told(verdict: Tensor, target: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, target))

    fooled = (cross_entropy(fake.classes, y) + told(fake.rows, 1)) / 2 + told(fake.ends, 1) + told(fake.whole, 1)
    torch.testing.assert_close(fool(judges, z_s, h_s, h_t, ends, y), fooled)
    judged = torch.zeros((), dtype=torch.float64)
    for said, target in ((real, 1.0), (fake, 0.0)):
        judged = judged + (cross_entropy(said.classes, y) + told(said.rows, target)) / 2
        judged = judged + told(said.ends, target) + told(said.whole, target)
    torch.testing.assert_close(judge(judges, (z_s, z_t), (h_s, h_t), ends, y), judged)


def test_nobody_can_tell_a_student_that_is_the_teacher() -> None:
    """Then the best verdict is "even", at log 2 for each of three questions of two networks, the first counted half."""
    judges, z, h = _judges(), _drawn(N, C, seed=0), _drawn(N, K, seed=1)
    unknown = torch.full((N,), -1)
    with torch.no_grad():
        for p in judges.parameters():
            p.zero_()
    even = 2 * 2.5 * math.log(2)
    assert float(judge(judges, (z, z), (h, h), EDGES, unknown).detach()) == pytest.approx(even)
    (g,) = torch.autograd.grad(judge(judges, (z, z), (h, h), EDGES, unknown), judges.local)
    assert float(g.abs().max()) == pytest.approx(0, abs=1e-12)


def test_nothing_labelled_and_no_edges_are_no_terms() -> None:
    judges, z, h = _judges(), _drawn(N, C, seed=0), _drawn(N, K, seed=1)
    none = torch.zeros(2, 0, dtype=torch.long)
    loss = fool(judges, z, h, h, none, torch.full((N,), -1))
    said = judges(z, h, torch.stack([summary(h)] * 2), none)
    torch.testing.assert_close(loss, F.softplus(-said.rows).mean() / 2 + F.softplus(-said.whole).mean())


# -- the game ------------------------------------------------------------------------------------------------------


def _reached(term: Tensor, network: torch.nn.Module, method: GraphAkd) -> set[str]:
    assert method.part is not None
    params = {f"student.{n}": p for n, p in network.named_parameters()} | dict(method.part.named_parameters())
    return {name for name, g in plain_gradients({"": term}, params).items() if g.any()}


def test_each_side_is_moved_by_its_own_term() -> None:
    method, network, output, teacher = _setting()
    terms = method.loss(_batch(), output, teacher, Step(0, 10))
    assert list(terms) == [TASK, "l1", "fool", "judge"]
    judges = {f"judges.{name}" for name, _ in _judges().named_parameters()}
    student = {f"student.{name}" for name, _ in network.named_parameters()} | {"lift.weight", "lift.bias"}
    assert _reached(terms["judge"], network, method) == judges
    assert _reached(terms["fool"], network, method) == student
    torch.testing.assert_close(terms["l1"], (output.logits - teacher.logits).abs().sum() / N)


def test_one_gradient_of_the_sum_makes_each_sides_own_step() -> None:
    """A step down its own loss helps each side against the other standing still."""
    method, network, output, teacher = _setting(label_weight=0.0, l1_weight=0.0)
    assert isinstance(method.part, Adversary)
    start = method.loss(_batch(), output, teacher, Step(0, 10))
    params = dict(network.named_parameters()) | dict(method.part.named_parameters())
    gradients = plain_gradients(start, params)
    for side, moved in (("judge", method.part.judges.named_parameters("judges")), ("fool", network.named_parameters())):
        held = {name: p.detach().clone() for name, p in params.items()}
        with torch.no_grad():
            for name, p in moved:
                p -= 0.01 * gradients[name]
        found = method.loss(_batch(), network(_batch().x), teacher, Step(0, 10))
        assert float(found[side].detach()) < float(start[side].detach())
        with torch.no_grad():
            for name, p in params.items():
                p.copy_(held[name])


def test_discriminators_rest_between_their_epochs() -> None:
    method, network, output, teacher = _setting(d_every=3)
    for epoch in range(7):
        terms = method.loss(_batch(), output, teacher, Step(epoch, 10))
        assert list(terms) == [TASK, "l1", "fool", "judge"]
        assert terms["judge"].requires_grad is (epoch % 3 == 0)
    assert method.part is not None
    params = dict(network.named_parameters()) | dict(method.part.named_parameters())
    reached = plain_gradients(method.loss(_batch(), output, teacher, Step(1, 10)), params)
    assert not any(name.startswith("judges") for name in reached), "the optimizer leaves them as they are"


def test_edges_are_drawn_by_seed_and_epoch() -> None:
    fooled = [
        float(_setting(samples=samples)[0].loss(_batch(), *_setting()[2:], Step(epoch, 10))["fool"].detach())
        for samples, epoch in ((40, 0), (10**6, 1), (5, 0), (5, 0), (5, 1))
    ]
    assert fooled[0] == fooled[1]
    assert fooled[2] == fooled[3]
    assert len({fooled[0], fooled[2], fooled[4]}) == 3


def test_the_order_of_the_nodes_does_not_matter() -> None:
    method, _, output, teacher = _setting()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    place = order.argsort()
    batch, features = _batch(), output.hidden["layers.1.weight"]
    assert isinstance(features, Tensor)
    assert isinstance(batch.x, Tensor)
    assert teacher.pooled is not None
    moved = Batch.of(batch.x[order], batch.y[order], Graph.from_edge_index(place[EDGES], N), batch.labelled[order])
    one = method.loss(batch, output, teacher, Step(0, 10))
    turned = replace(output, logits=output.logits[order], pooled=features[order])
    other = method.loss(
        moved, turned, replace(teacher, logits=teacher.logits[order], pooled=teacher.pooled[order]), Step(0, 10)
    )
    for name, term in one.items():
        torch.testing.assert_close(other[name], term)


def test_without_its_terms_it_is_supervised() -> None:
    method, _, output, teacher = _setting(weight=0.0, l1_weight=0.0)
    assert method.part is None
    found = method.loss(_batch(), output, teacher, Step(0, 10))
    assert list(found) == [TASK]
    assert torch.equal(found[TASK], cross_entropy(output.logits, _batch().y))
    with pytest.raises(ValueError, match=r"method\.weight is 0"):
        GraphAkd(weight=0.0, l1_weight=0.0, label_weight=0.0)


def test_rows_without_edges_are_refused() -> None:
    method, _, output, teacher = _setting()
    with pytest.raises(UserError, match="without edges"):
        method.loss(replace(_batch(), graph=None), output, teacher, Step(0, 10))
