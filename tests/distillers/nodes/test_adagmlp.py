"""AdaGMLP: the round of boosting, the parts of the labels, the masks, and the limits in which it is GLNN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd import nn
from gnnkd.data.augment import generator
from gnnkd.distillers.base import Lesson
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.nodes.adagmlp import LEAST_ERROR, LEAST_VOTE, Adagmlp, boosted, dealt, divergence, masked
from gnnkd.graph.structure import CSR
from gnnkd.nn.around.ensemble import Ensemble
from gnnkd.train.update import forward
from gnnkd.types import UNKNOWN, Batch, Output, Step

N, D, C = 40, 10, 3
STEP = Step(3, 10)


def _problem() -> tuple[Batch, Output]:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(N, D, generator=rng) * (torch.rand(N, D, generator=rng) < 0.5)
    y = torch.arange(N) % C
    batch = Batch.of(x.double(), y, None, torch.arange(N) < 14, torch.randperm(99, generator=rng)[:N])
    return batch, Output(3 * torch.randn(N, C, generator=rng, dtype=torch.float64))


def _student(method: Adagmlp, batch: Batch, teacher: Output, **options: Any) -> Ensemble:
    torch.manual_seed(1)
    given = {"layers": 2, "width": 6, "dropout": 0.0, **options}
    network = method.learner(lambda inputs: nn.MODELS["mlp"](inputs, C, **given).double(), batch, C, 5)
    assert isinstance(network, Ensemble)
    method.prepare(Lesson(Output(teacher.logits), teacher, (), batch.y, 0.0, 0.0, 5, batch))
    return network


def _terms(method: Adagmlp, network: Ensemble, batch: Batch, teacher: Output) -> dict[str, Tensor]:
    return method.loss(batch, forward(network, method, batch, STEP), teacher, STEP)


# -- boosting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("beta", "temperature"), [(1.0, 1.0), (4.0, 0.5)])
def test_a_round_of_boosting_is_that_of_a_loop_over_nodes(count: int, beta: float, temperature: float) -> None:
    batch, teacher = _problem()
    method = Adagmlp(count=count, sharpness=beta, temperature=temperature, label_weight=0.0, align_weight=0.0)
    network = _student(method, batch, teacher)
    given = _terms(method, network, batch, teacher)
    w, total, votes = [1 / N] * N, 0.0, []
    for member in network.members:
        s = member(batch.x).logits.detach()
        soft = [(teacher.logits[i] / temperature).softmax(0) for i in range(N)]
        kl = [float((p * (p.log() - (s[i] / temperature).log_softmax(0))).sum()) for i, p in enumerate(soft)]
        total += sum(w[i] * kl[i] for i in range(N))
        plain = [teacher.logits[i].softmax(0) for i in range(N)]
        e = [1 - math.exp(-beta * float((p * (p.log() - s[i].log_softmax(0))).sum())) for i, p in enumerate(plain)]
        err = sum(w[i] * e[i] for i in range(N)) / sum(w)
        alpha = max(math.log((1 - err) / err), 1e-16)
        w = [w[i] * math.exp(alpha * e[i]) for i in range(N)]
        w = [each / sum(w) for each in w]
        votes.append(alpha)
    assert given.keys() == {"kd"}
    assert given["kd"].item() == pytest.approx(total)
    assert network.votes.tolist() == pytest.approx(votes, rel=1e-5)
    assert [float(v) for v in method.diagnostics().values()] == pytest.approx([v / sum(votes) for v in votes])


def test_one_student_without_labels_and_masks_is_glnn_bit_for_bit() -> None:
    batch, teacher = _problem()
    method = Adagmlp(count=1, label_weight=0.0, align_weight=0.0)
    network = _student(method, batch, teacher)
    output = forward(network, method, batch, STEP)
    want = Glnn().loss(batch, output.members[0], teacher, STEP)["kd"]
    torch.testing.assert_close(method.loss(batch, output, teacher, STEP)["kd"], want)


def test_hard_nodes_weigh_more_for_the_next_student_and_better_students_have_more_say() -> None:
    weight, kl = torch.full((4,), 0.25), torch.tensor([0.0, 0.1, 0.2, 0.4])
    alpha, after = boosted(weight, kl, 1.0)
    assert bool((after.diff() > 0).all())
    assert float(after.sum()) == pytest.approx(1)
    assert float(boosted(weight, kl / 2, 1.0)[0]) > float(alpha) > 0


@pytest.mark.parametrize("kl", [0.0, 1e-12, 50.0, 1e6])
def test_perfect_and_hopeless_students_have_finite_votes(kl: float) -> None:
    alpha, after = boosted(torch.full((4,), 0.25), torch.full((4,), kl), 1.0)
    assert LEAST_VOTE <= float(alpha) <= math.log(1 / LEAST_ERROR)
    torch.testing.assert_close(after, torch.full((4,), 0.25))


def test_a_teacher_imitated_perfectly_leaves_no_divergence() -> None:
    _, teacher = _problem()
    told = (teacher.logits / 0.5).log_softmax(1)
    assert torch.equal(divergence(teacher.logits, told, 0.5), torch.zeros(N, dtype=torch.float64))


# -- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_labelled_rows_are_dealt_without_overlap(count: int) -> None:
    y = torch.where(torch.arange(N) < 14, torch.arange(N) % C, UNKNOWN)[torch.randperm(N)]
    part = dealt(y, count, seed=3)
    sizes = torch.bincount(part[y != UNKNOWN], minlength=count)
    assert int(sizes.sum()) == 14
    assert int(sizes.max() - sizes.min()) <= 1
    assert torch.equal(part, dealt(y, count, seed=3))
    assert count == 1 or count == 20 or not torch.equal(part, dealt(y, count, seed=4))


def test_each_student_reads_the_labels_of_its_part() -> None:
    batch, teacher = _problem()
    method = Adagmlp(count=3, label_weight=0.4, align_weight=0.0)
    network = _student(method, batch, teacher)
    part, want = dealt(batch.y, 3, 5), 0.0
    for k, member in enumerate(network.members):
        mine = batch.labelled & (part == k)
        want = want + F.cross_entropy(member(batch.x).logits[mine], batch.y[mine])
    torch.testing.assert_close(_terms(method, network, batch, teacher)["ce"], 0.4 * torch.as_tensor(want))


def test_more_students_than_labels_is_no_mistake() -> None:
    batch, teacher = _problem()
    method = Adagmlp(count=20, label_weight=0.5)
    assert all(bool(t.isfinite()) for t in _terms(method, _student(method, batch, teacher), batch, teacher).values())


# -- masks -------------------------------------------------------------------------------------------------------


def test_masked_rows_keep_their_sum_and_lose_the_masked_features() -> None:
    x, keep = torch.randn(N, D), torch.arange(D) % 3 != 0
    x[4, keep] = 0
    x[7] = 0
    found = masked(x, keep)
    assert isinstance(found, Tensor)
    assert not found[:, ~keep].any()
    rest = torch.ones(N, dtype=torch.bool)
    rest[[4, 7]] = False
    torch.testing.assert_close(found.abs().sum(1)[rest], x.abs().sum(1)[rest])
    assert not found[[4, 7]].any()
    ratio = found[rest][:, keep] / x[rest][:, keep]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    sparse = masked(CSR.from_dense(x), keep)
    assert isinstance(sparse, CSR)
    torch.testing.assert_close(sparse.dense(), found)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_alignment_is_the_change_of_logits_and_hidden_rows_of_labelled_nodes(share: float) -> None:
    batch, teacher = _problem()
    method = Adagmlp(count=2, label_weight=0.0, mask=0.4, align_weight=2.0, output_weight=share)
    network = _student(method, batch, teacher)
    given = _terms(method, network, batch, teacher)["align"]
    keep = torch.rand(D, generator=generator("adagmlp mask", 5, STEP.epoch)) >= 0.4
    assert 0 < int(keep.sum()) < D
    want, rows = 0.0, batch.labelled
    for member in network.members:
        one, other = member(batch.x), member(masked(batch.x, keep))
        pairs = [(one.logits, other.logits), (list(one.hidden.values())[-1], list(other.hidden.values())[-1])]
        logits, hidden = (F.mse_loss(a[rows], b[rows]) for a, b in pairs)
        want = want + share * logits + (1 - share) * hidden
    torch.testing.assert_close(given, 2 * torch.as_tensor(want))


def test_without_masks_nothing_changes() -> None:
    batch, teacher = _problem()
    method = Adagmlp(mask=0.0)
    assert _terms(method, _student(method, batch, teacher), batch, teacher)["align"].item() == 0


def test_a_student_of_one_layer_aligns_its_logits() -> None:
    batch, teacher = _problem()
    found = []
    for share in (0.0, 1.0):
        method = Adagmlp(mask=0.4, output_weight=share)
        found.append(_terms(method, _student(method, batch, teacher, layers=1), batch, teacher)["align"])
    assert torch.equal(*found)
    assert found[0].item() > 0


def test_the_student_is_asked_again_for_the_alignment_alone() -> None:
    assert Adagmlp().asks_student
    assert not Adagmlp(align_weight=0.0).asks_student
