"""The only optimisation step in the house, and a look at gradients that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.func import functional_call

from gnnkd import processes
from gnnkd.distillers.base import TASK, Distiller, Gradients, Look, plain_gradients
from gnnkd.nn.around import ask
from gnnkd.optimizers import assign
from gnnkd.train.shown import Shown
from gnnkd.types import Batch, Operand, Output, Step

Show: TypeAlias = Callable[[Int[Tensor, " P"]], Output]
"""The student's output on the rows of these ids in the full data, in eval mode and without gradients."""


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    distiller: Distiller,
    batch: Batch,
    teacher: Output | None,
    step: Step,
    show: Show | None = None,
) -> dict[str, Tensor]:
    """One step: forward, loss, gradients by the distiller, apply. Returns the loss terms and the diagnostics."""
    return apply(model, optimizer, distiller, batch, forward(model, distiller, batch, step, show), teacher, step)


def forward(model: nn.Module, distiller: Distiller, batch: Batch, step: Step, show: Show | None = None) -> Output:
    """The model's output in training, with its dropout-free twin where the distiller asks for it.

    Args:
        show: the model's output on other rows, for a method that names some.
    """
    clean, probe, ids = None, None, distiller.probe(step)
    if ids is not None and show is not None:
        processes.same(model.buffers())  # running statistics drift apart, and all must see the same
        probe = show(ids)
    if distiller.wants_clean(step):
        model.eval()
        with torch.no_grad():
            clean = ask(model, batch.x, batch.graph, batch.index)
    model.train()
    output = ask(model, batch.x, batch.graph, batch.index)
    again = partial(_again, model, batch) if distiller.asks_student else None
    if clean is None and again is None and probe is None:
        return output
    return replace(output, clean=clean, again=again, probe=probe)


def _again(model: nn.Module, batch: Batch, x: Operand) -> Output:
    """The model's output in training on other features of the rows of a batch; running statistics stay still."""
    with _still(model):
        return ask(model, x, batch.graph, batch.index)


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Batch norms use the statistics of what they see, as in training, and keep none of them.

    What a method makes up is not what the network is asked about later. TorchScript's norms cannot be told.
    """
    norms: list[Any] = [
        module
        for module in model.modules()
        if getattr(module, "track_running_stats", False) and not isinstance(module, torch.jit.ScriptModule)
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def apply(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    distiller: Distiller,
    batch: Batch,
    output: Output,
    teacher: Output | None,
    step: Step,
) -> dict[str, Tensor]:
    """The second half of a step: loss, gradients (of all processes), and the optimizer's move."""
    params = trained(model, distiller)
    terms = distiller.loss(batch, output, teacher, step)
    found = processes.summed(distiller.gradients(_weighted(terms, batch), params, batch, output, step))
    found = distiller.combine(found, params, batch, output, step)
    for name, p in params.items():
        assign(p, found.get(name))
    optimizer.step()
    return {name: t.detach() for name, t in terms.items()} | dict(distiller.diagnostics())


def _weighted(terms: Mapping[str, Tensor], batch: Batch) -> Mapping[str, Tensor]:
    """Terms of this process's share so that their sums over processes are those of the whole batch.

    The task's is a mean over rows whose label may be read, the others are taken for means over all rows.
    """
    if processes.world() == 1:
        return terms
    labelled = batch.labelled.sum()
    part = processes.parts({"rows": torch.full_like(labelled, batch.y.numel()), "labelled": labelled})
    return {name: t * part["labelled" if name == TASK else "rows"].to(t.dtype) for name, t in terms.items()}


def trained(model: nn.Module, distiller: Distiller) -> dict[str, Tensor]:
    """All that a step changes: the model's parameters by name, those of the method's own part as `method.<name>`."""
    found: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if distiller.part is not None:
        found |= {f"method.{name}": p for name, p in distiller.part.named_parameters() if p.requires_grad}
    return found


def looking(model: nn.Module, distiller: Distiller, batch: Batch | Shown, step: Step, noise: int) -> Look:
    """A `Look` at the model's current weights: weights, buffers and global random state stay as they are.

    Args:
        batch: what is looked at; of a sample, what the method sees of it.
        noise: seed of the dropout masks of this epoch's looks; the n-th look with dropout uses `noise + n`.
    """
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    looks = iter(range(1 << 30))
    asked, seen = (batch, batch) if isinstance(batch, Batch) else (batch.asked, batch.seen)

    def look(dropout: bool) -> tuple[Output, Gradients]:
        was_training = model.training
        model.train(dropout)
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        devices = [seen.y.device] if seen.y.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            if dropout:
                torch.manual_seed(noise + next(looks))
            output: Output = functional_call(model, {**params, **buffers}, (asked.x, asked.graph))
        if isinstance(batch, Shown):
            output = batch.cut(output)
        model.train(was_training)
        gradients = plain_gradients(distiller.loss(seen, output, None, step), params)
        return _detached(output), gradients

    return look


def _detached(output: Output) -> Output:
    def free(h: Mapping[str, object]) -> dict[str, object]:
        return {name: t.detach() if isinstance(t, Tensor) and t.requires_grad else t for name, t in h.items()}

    hidden, raw = free(output.hidden), free(output.raw)
    return Output(output.logits.detach(), hidden, raw, output.averaged)  # type: ignore[arg-type]
