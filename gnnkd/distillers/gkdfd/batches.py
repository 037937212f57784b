"""Rows of a whole graph that a step looks at: some of some classes, as a balanced batch of images has them."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def balanced(y: Int[Tensor, " N"], classes: int, samples: int, generator: torch.Generator) -> Int[Tensor, " M"]:
    """Up to `samples` rows of each of up to `classes` classes, drawn without repetition, class by class.

    Copies `y` to the CPU, and so waits for its device: once a step, which on a whole graph is once an epoch. No copy is
    kept, as the classes of rows without a label are a teacher's predictions, and it may be learning.

    Args:
        y: class of each row; every number counts as a class.
        classes: how many are drawn, at least 1; all where fewer are there.
        samples: rows of a class, at least 1; all where it has fewer.
        generator: on the CPU, so that every device draws the same rows.
    """
    kinds = y.cpu()
    there = torch.unique(kinds)
    chosen = there[torch.randperm(there.numel(), generator=generator)[:classes]]
    order = torch.randperm(kinds.numel(), generator=generator)
    order = order[kinds[order].argsort(stable=True)]
    grouped = kinds[order]
    place = torch.arange(grouped.numel()) - torch.searchsorted(grouped, grouped)  # within its class
    return order[(place < samples) & torch.isin(grouped, chosen)].to(y.device)
