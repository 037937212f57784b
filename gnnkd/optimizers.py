"""Giving gradients to an optimizer, and its state as flat tensors, so that checkpoints need no pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def assign(param: Tensor, gradient: Tensor | None) -> None:
    """Set `param.grad`, laid out in memory as the parameter is.

    `torch.autograd.grad` may return a transposed view; the fused optimizers read memory in the parameter's order and
    would pair every weight with another one's gradient, without a word.
    """
    if gradient is not None and gradient.stride() != param.stride():
        gradient = torch.empty_like(param).copy_(gradient)
    param.grad = gradient


def flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`index.entry` -> tensor, for every parameter's state."""
    states = optimizer.state_dict()["state"]
    return {f"{index}.{entry}": torch.as_tensor(t) for index, found in states.items() for entry, t in found.items()}


def unflatten(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put `flat(optimizer)` back, each tensor laid out in memory as its parameter is.

    A file keeps no layout; the fused optimizers would pair every weight with another one's momentum, without a word.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, t in tensors.items():
        index, entry = key.split(".", 1)
        states.setdefault(int(index), {})[entry] = _as_laid_out(params[int(index)], t)
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _as_laid_out(param: Tensor, t: Tensor) -> Tensor:
    if t.shape != param.shape or t.stride() == param.stride():
        return t
    return torch.empty_like(param, dtype=t.dtype, device=t.device).copy_(t)
