"""The contrast of G-CRD: its formula, its limits, and that blocks change nothing but memory."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.nodes.features import Projectors
from gnnkd.distillers.nodes.gcrd import Gcrd, contrast
from gnnkd.types import Batch, Output, Step

N, K = 11, 5
TAU = 0.075


def _sphere(seed: int, n: int = N) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, K, dtype=torch.float64, generator=rng), dim=1)


def test_a_row_finds_itself_among_all_of_the_teachers() -> None:
    s, t = _sphere(0), _sphere(1)
    losses = []
    for i in range(N):
        scores = [math.exp(float(s[i] @ t[j]) / TAU) for j in range(N)]
        losses.append(-math.log(scores[i] / sum(scores)))
    assert float(contrast(s, t, TAU)) == pytest.approx(sum(losses) / N)


def test_the_limits_of_the_contrast() -> None:
    same = torch.ones(N, 1, dtype=torch.float64)
    assert float(contrast(same, same, TAU)) == pytest.approx(math.log(N))
    apart = torch.eye(N, dtype=torch.float64)
    assert float(contrast(apart, apart, TAU)) == pytest.approx(math.log1p((N - 1) * math.exp(-1 / TAU)))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        contrast(_sphere(0)[order], _sphere(1)[order], TAU), contrast(_sphere(0), _sphere(1), TAU)
    )


@pytest.mark.parametrize("block", [1, 4, N])
def test_blocks_give_the_same_loss_and_both_derivatives(block: int) -> None:
    found = []
    for size in (block, 1000):
        s, t = _sphere(0).requires_grad_(), _sphere(1).requires_grad_()
        loss = contrast(s, t, TAU, block=size)
        first = torch.autograd.grad(loss, (s, t), create_graph=True)
        second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), (s, t))
        found.append((loss.detach(), *(g.detach() for g in first), *second))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_blocks_keep_no_matrix_of_all_pairs() -> None:
    n = 64
    s = _sphere(0, n).requires_grad_()
    kept: list[int] = []

    def keep(t: Tensor) -> Tensor:
        kept.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        contrast(s, _sphere(1, n), TAU, block=8)
    assert sum(kept) < n * n


def _prepared(method: Gcrd, student: Tensor, teacher: Tensor) -> None:
    torch.manual_seed(0)
    logits = torch.zeros(len(student), 3)
    shown = Output(logits, {"a": student.float(), "b": student.float()}), Output(logits, pooled=teacher.float())
    method.prepare(Lesson(*shown, (), torch.zeros(len(student), dtype=torch.long), 0.0, 0.0, 0))
    assert isinstance(method.part, Projectors)
    method.part.to(student.dtype)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_term_is_the_contrast_of_projected_rows(labelled: bool) -> None:
    student, teacher = _sphere(0), _sphere(1)[:, :3]
    method = Gcrd(dim=6, tau=0.1, labelled=labelled)
    _prepared(method, student, teacher)
    count = 7 if labelled else N
    batch = Batch.of(torch.zeros(N, 2), torch.zeros(N, dtype=torch.long), None, torch.arange(N) < 7)
    assert method.part is not None
    s, t = (F.normalize(z, dim=1) for z in method.part(student[:count], teacher[:count], sphere=False))
    expected = torch.stack([(s[i] @ t.T / 0.1).logsumexp(0) - s[i] @ t[i] / 0.1 for i in range(count)]).mean()
    torch.testing.assert_close(method.term(batch, student, teacher, Step(0, 1)), expected)
