"""The tea stage: a teacher trained on labels, with generators learning beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gnnkd.distillers.base import plain_gradients
from gnnkd.distillers.dgd.bank import Layers
from gnnkd.distillers.dgd.gail import Imitation
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.supervised import Supervised
from gnnkd.nn.around import ask
from gnnkd.nn.layerwise import Layerwise
from gnnkd.train.course import Course
from gnnkd.train.fit import Fit
from gnnkd.train.sampled import Sampled
from gnnkd.train.settings import TrainSettings
from gnnkd.train.shown import few
from gnnkd.train.whole import WholeBatch
from gnnkd.types import Batch, Output

__all__ = ["GeneratorSettings", "imitable", "outputs", "teaching", "unread"]


def teaching(
    model: nn.Module,
    batch: Batch,
    validation: tuple[Tensor, Bool[Tensor, " N"]],
    settings: TrainSettings,
    generators: GeneratorSettings | None,
    *,
    seed: int,
    file: Path | None = None,
    key: str = "",
    inference: Layerwise | None = None,
) -> tuple[Fit, Imitation | None]:
    """The teacher's training, ready to run, and the generators' if asked for.

    The teacher's weights are bit for bit the same with and without generators. With a `batch_size` in the settings it
    is trained on samples, and the generators see the same few nodes in every epoch (`Probe`).

    Args:
        inference: how one that is trained on samples is validated.
    """
    watcher, fanouts = None, settings.fanouts or ()
    if generators is not None:
        full, n_nodes = generators.resolved(), batch.index.numel()
        seen = batch if settings.batch_size is None else few(batch, fanouts, seed)
        layers = Layers.of(imitable(model, seen), dict(model.named_parameters()), n_nodes, full.buckets)
        watcher = Imitation(layers, full, seed=seed, device=batch.y.device, every=batch.index)
    named: dict[str, Any] = {"watcher": watcher, "seed": seed}
    course: Course
    if settings.batch_size is None:
        course = WholeBatch(model, batch, Supervised(), None, validation, settings, **named)
    else:
        named |= {"fanouts": fanouts, "batch_size": settings.batch_size, "inference": inference}
        course = Sampled(model, batch, Supervised(), None, validation, settings, **named)
        if watcher is not None and course.probe is not None:
            watcher.bank.probe = course.probe.batch.index
    return Fit(course, settings, file=file, key=key), watcher


def imitable(model: nn.Module, batch: Batch) -> Output:
    """The output in eval mode, with the operands of those weights only that a gradient of the logits reaches.

    The random state stays: a look at a module that is random in eval mode changes no training.
    """
    model.eval()
    with torch.random.fork_rng(devices=[batch.y.device] if batch.y.device.type == "cuda" else []):
        output: Output = model(batch.x, batch.graph)
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    reached = plain_gradients({"logits": output.logits.sum()}, params)
    return replace(output, hidden={name: h for name, h in output.hidden.items() if name in reached})


def unread(model: nn.Module, output: Output) -> list[str]:
    """The matrices of `model` that are trained and have no operand in `output`: name and shape of each."""
    return [
        f"{name} {list(p.shape)}"
        for name, p in model.named_parameters()
        if p.requires_grad and p.dim() == 2 and min(p.shape) > 1 and name not in output.hidden
    ]


@torch.no_grad()
def outputs(model: nn.Module, batch: Batch) -> Float[Tensor, "N C"]:
    """Logits of all rows, a forward pass in eval mode."""
    model.eval()
    return ask(model, batch.x, batch.graph, batch.index).logits
