"""Nodes that are trained by nobody: their weights are the moving average of another node's."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def copy(follower: nn.Module, followed: nn.Module) -> None:
    """Begin as the other network is, as far as the names of parameters and buffers agree."""
    theirs = followed.state_dict()
    for name, t in follower.state_dict().items():
        if name in theirs:
            t.copy_(theirs[name])


@torch.no_grad()
def follow(follower: nn.Module, followed: nn.Module, momentum: float) -> None:
    """`p <- m p + (1 - m) q` for every parameter p, q the one of that name in `followed`; buffers are its own.

    Args:
        momentum: m in [0, 1].
    """
    theirs = dict(followed.named_parameters())
    mine = dict(follower.named_parameters())
    if mine:
        torch._foreach_mul_(list(mine.values()), momentum)
        torch._foreach_add_(list(mine.values()), [theirs[name] for name in mine], alpha=1 - momentum)
