"""Several processes that train one model, each on its share of every batch, as `torchrun` starts them.

Gradients are averaged by `average`, weighted by rows, so that the processes together take the step that one would take
on the whole batch. Losses that compare the images of a batch with each other (as SP, RKD, or GKD's mean confidence) see
a process's own share only, as do batch norms.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkd.errors import UserError


def rank() -> int:
    """This process's number, from 0; 0 when there is one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def launched() -> int:
    """Number of processes that `torchrun` has started, 1 without it.

    Raises:
        UserError: an environment that is half torchrun's.
    """
    said = os.environ.get("WORLD_SIZE", "1")
    if not said.isdecimal() or int(said) < 1:
        raise UserError(f"WORLD_SIZE is '{said}'; it must be a number of processes, as torchrun sets it")
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if int(said) > 1 and missing:
        raise UserError(f"WORLD_SIZE is {said} and {', '.join(missing)} is not set; start the processes with torchrun")
    return int(said)


@contextmanager
def joined(device: str) -> Iterator[str]:
    """The group of the processes that torchrun started, for the duration of a block; yields this process's device."""
    if launched() == 1:
        yield device
        return
    local = int(os.environ["LOCAL_RANK"])
    here = f"cuda:{local}" if device == "cuda" else device
    if device == "cuda" and local >= torch.cuda.device_count():
        raise UserError(f"process {local} has no GPU of its own ({torch.cuda.device_count()} are there); start fewer")
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield here
    finally:
        dist.destroy_process_group()


def average(gradients: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Each gradient's mean over all rows of all processes, in one message; as it is when there is one process.

    Args:
        gradients: means over this process's rows, the same names in every process.
        rows: how many those are.
    """
    if world() == 1 or not gradients:
        return dict(gradients)
    weight = torch.full((1,), float(rows), device=next(iter(gradients.values())).device)
    sent = torch.cat([weight, *[g.reshape(-1).to(weight.dtype) * rows for g in gradients.values()]])
    dist.all_reduce(sent)
    means = torch.split(sent[1:] / sent[0], [g.numel() for g in gradients.values()])
    return {name: mean.view(g.shape).to(g.dtype) for (name, g), mean in zip(gradients.items(), means, strict=True)}


def total(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums of scalars over all processes, the same names in each; as they are when there is one process."""
    if world() == 1 or not sums:
        return dict(sums)
    device = next(iter(sums.values())).device
    sent = torch.stack([t.to(device, torch.float64) for t in sums.values()])
    dist.all_reduce(sent)
    return dict(zip(sums, sent, strict=True))


def same(tensors: Iterable[Tensor]) -> None:
    """Overwrite `tensors` everywhere by those of the first process."""
    if world() > 1:
        for t in tensors:
            dist.broadcast(t, 0)


def any_of(flag: bool) -> bool:
    """Whether any process says so."""
    if world() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    said = torch.tensor([float(flag)], device=device)
    dist.all_reduce(said, op=dist.ReduceOp.MAX)
    return bool(said.item())
