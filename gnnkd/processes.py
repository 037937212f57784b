"""Several processes that train one model, each on its share of every batch, as `torchrun` starts them.

Each process weighs the terms of its loss by its part of the rows that they are means over (`parts`), and gradients are
summed (`summed`), so that the processes together take the step that one would take on the whole batch. Losses that
compare the images of a batch with each other (as SP, RKD, or GKD's mean confidence) see a process's own share only, as
do batch norms.

All processes read and the first one writes, so that results lie where all of them can read: on one machine, or on disks
that several machines share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby, islice
from typing import TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor

from gnnkd.errors import UserError

_Part = TypeVar("_Part")
_PATIENCE = timedelta(days=7)
"""How long a process waits for others, which may infer or write for hours; torchrun ends those that wait for a dead
one."""


@final
class LostError(UserError):
    """Another process of the group has ended, or cannot be reached."""


def rank() -> int:
    """This process's number, from 0; 0 when there is one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def several() -> dict[str, int]:
    """The number of processes where there are several, by the name that configurations and results have for it."""
    return {"processes": world()} if world() > 1 else {}


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
    if device == "cuda":
        torch.cuda.set_device(local)  # "cuda" alone, as in `any_of`, is this one from here on
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield here
    finally:
        dist.destroy_process_group()


@contextmanager
def first_here() -> Iterator[None]:
    """The first process of each machine goes through a block before the others, who find what it downloads or makes."""
    first = world() == 1 or os.environ["LOCAL_RANK"] == "0"
    if not first:
        wait()
    yield
    if first:
        wait()


def parts(counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This process's part of each sum of counts over all processes, in [0, 1]; 1 when there is one process."""
    return {name: counts[name] / t.clamp(min=1) for name, t in total(counts).items()}


def summed(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each gradient's sum over all processes, in one message; as it is when there is one process.

    Args:
        gradients: the same names in every process.
    """
    if world() == 1 or not gradients:
        return dict(gradients)
    sent = torch.cat([g.reshape(-1).float() for g in gradients.values()])
    with sending():
        dist.all_reduce(sent)
    sums = torch.split(sent, [g.numel() for g in gradients.values()])
    return {name: s.view(g.shape).to(g.dtype) for (name, g), s in zip(gradients.items(), sums, strict=True)}


def total(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums of scalars over all processes, the same names in each; as they are when there is one process."""
    if world() == 1 or not sums:
        return dict(sums)
    device = next(iter(sums.values())).device
    sent = torch.stack([t.to(device, torch.float64) for t in sums.values()])
    with sending():
        dist.all_reduce(sent)
    return dict(zip(sums, sent, strict=True))


def same(tensors: Iterable[Tensor]) -> None:
    """Overwrite `tensors` everywhere by those of the first process, in one message for each type."""
    if world() == 1:
        return
    for _, alike in groupby(sorted((t.detach() for t in tensors), key=_type), key=_type):
        group = list(alike)
        sent = torch.cat([t.reshape(-1) for t in group])
        with sending():
            dist.broadcast(sent, 0)
        for t, s in zip(group, torch.split(sent, [t.numel() for t in group]), strict=True):
            t.copy_(s.view(t.shape))


def _type(t: Tensor) -> str:
    return str(t.dtype)


def divided(
    parts: Iterable[_Part], work: Callable[[_Part], list[Tensor]], blank: Callable[[_Part], list[Tensor]]
) -> Iterator[tuple[_Part, list[Tensor]]]:
    """Each part with what `work` finds of it, in order; every process gets all of them and works on its own only.

    Args:
        parts: the same ones in every process, all of which must take them to the end.
        work: makes contiguous tensors.
        blank: makes tensors of the same shapes, types and device, whatever is in them.
    """
    if world() == 1:
        yield from ((part, work(part)) for part in parts)
        return
    rest = iter(parts)
    while turn := list(islice(rest, world())):
        mine = work(turn[rank()]) if rank() < len(turn) else []
        for i, part in enumerate(turn):
            found = mine if i == rank() else blank(part)
            for t in found:
                with sending():
                    dist.broadcast(t, i)
            yield part, found


def any_of(flag: bool) -> bool:
    """Whether any process says so."""
    if world() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    said = torch.tensor([float(flag)], device=device)
    with sending():
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return bool(said.item())


def wait() -> None:
    """Go on when all processes have come here."""
    any_of(False)


@contextmanager
def sending() -> Iterator[None]:
    """Turn what a back end says of a broken connection into one line."""
    try:
        yield
    except RuntimeError as problem:
        said = str(problem).splitlines()[0].split(". ")[0]
        raise LostError(
            f"process {rank()} has lost another process of this training, which was killed or has ended with an error "
            f"of its own ({said}); the same command with --resume continues from the last checkpoint"
        ) from None
