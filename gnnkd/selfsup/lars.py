"""Layer-wise adaptive rates, for large batches.

Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", 2017. With trust t, weight decay wd,
momentum m and learning rate lr, for each parameter w with gradient g,

    g <- g + wd w      g <- g t |w| / |g|      v <- m v + g      w <- w - lr v

where the second step is left out if |w| or |g| is 0.

Departures: none; biases and batch norms are treated as all others are, unless `matrices` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.linalg import vector_norm


@final
class Lars(torch.optim.Optimizer):
    """Stochastic gradient descent with a rate of its own for each parameter.

    Args:
        params: what moves.
        lr: learning rate, > 0.
        momentum: in [0, 1).
        weight_decay: >= 0.
        trust: the step is so much of the weight's length before momentum and learning rate, > 0.
        matrices: parameters of one dimension (biases, batch norms) take plain steps, without decay.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 0.001,
        matrices: bool = False,
    ) -> None:
        named = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "matrices": matrices}
        super().__init__(params, named)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "gradients are given, not asked for"
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group)

    def _move(self, p: Tensor, group: dict[str, Any]) -> None:
        assert p.grad is not None
        force = p.grad
        if p.dim() > 1 or not group["matrices"]:
            force = force + group["weight_decay"] * p
            size, length = vector_norm(force), vector_norm(p)
            there = (size > 0) & (length > 0)
            force = force * torch.where(there, group["trust"] * length / size.clamp(min=1e-30), 1)
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        state["momentum_buffer"].mul_(group["momentum"]).add_(force)
        p.add_(state["momentum_buffer"], alpha=-group["lr"])
