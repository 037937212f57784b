"""Several processes, each with its share of a batch, keep the same banks: what one embeds, all remember."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.processes import sending, world

NOBODY = -1
"""The index of a row that only fills up a share."""


def mean_of_all(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The mean of a number over all processes."""
    if world() == 1:
        return value
    total = value.clone()
    with sending():
        dist.all_reduce(total)
    return total / world()


def rows_of_all(index: Int[Tensor, " N"], rows: Float[Tensor, "N K"]) -> tuple[Int[Tensor, " M"], Float[Tensor, "M K"]]:
    """The rows of all processes' shares and their index, in the order of the processes."""
    if world() == 1:
        return index, rows
    # Shares need not be of one size, as the messages must.
    longest = torch.tensor([index.numel()], device=index.device)
    with sending():
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        missing = int(longest) - index.numel()
    found = [_gathered(F.pad(index, (0, missing), value=NOBODY)), _gathered(F.pad(rows, (0, 0, 0, missing)))]
    somebody = found[0] != NOBODY
    return found[0][somebody], found[1][somebody]


def _gathered(x: Tensor) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(world())]
    with sending():
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)
