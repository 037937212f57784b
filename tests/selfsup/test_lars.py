"""Layer-wise adaptive rates: a slow loop, and what length of step they give."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnkd.optimizers import flat, unflatten
from gnnkd.selfsup.lars import Lars


def _params() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, generator=draw), torch.randn(5, generator=draw), torch.zeros(3)]


def _gradients(step: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(100 + step)
    return [torch.randn(4, 3, generator=draw), torch.randn(5, generator=draw), torch.randn(3, generator=draw)]


def _moved(steps: range, params: list[Tensor], optimizer: Lars) -> None:
    for step in steps:
        for p, g in zip(params, _gradients(step), strict=True):
            p.grad = g
        optimizer.step()


def test_the_formula_written_out() -> None:
    found = _params()
    _moved(range(4), found, Lars(found, lr=0.5, momentum=0.9, weight_decay=0.01, trust=0.1))
    for i, w in enumerate(_params()):
        v = torch.zeros_like(w)
        for step in range(4):
            g = _gradients(step)[i] + 0.01 * w
            size, length = g.square().sum().sqrt(), w.square().sum().sqrt()
            if size > 0 and length > 0:
                g = g * 0.1 * length / size
            v = 0.9 * v + g
            w = w - 0.5 * v
        torch.testing.assert_close(found[i], w)


def test_a_step_is_a_share_of_the_weight_whatever_the_gradients_size() -> None:
    for scale in (1e-6, 1.0, 1e6):
        w = _params()[0].requires_grad_()
        before = w.detach().clone()
        w.grad = scale * torch.ones_like(w)
        Lars([w], lr=2.0, momentum=0.0, weight_decay=0.0, trust=0.01).step()
        torch.testing.assert_close((w - before).norm() / before.norm(), torch.tensor(0.02))


def test_with_matrices_a_vector_takes_a_plain_step_without_decay() -> None:
    found = _params()
    _moved(range(1), found, Lars(found, lr=0.5, weight_decay=0.1, matrices=True))
    for i in (1, 2):
        torch.testing.assert_close(found[i], _params()[i] - 0.5 * _gradients(0)[i])


def test_no_gradient_no_move() -> None:
    w = torch.ones(3, 3)
    Lars([w], lr=1.0, weight_decay=1.0).step()
    assert torch.equal(w, torch.ones(3, 3))


def test_it_continues_from_flat_tensors() -> None:
    whole = _params()
    _moved(range(6), whole, Lars(whole, lr=0.1))
    halves = _params()
    first = Lars(halves, lr=0.1)
    _moved(range(3), halves, first)
    second = Lars(halves, lr=0.1)
    unflatten(second, flat(first))
    _moved(range(3, 6), halves, second)
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
