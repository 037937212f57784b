"""The tea stage: a teacher trained on labels, with generators learning beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..distillers.dgd.bank import Layers
from ..distillers.dgd.gail import Imitation
from ..distillers.dgd.settings import GeneratorSettings
from ..distillers.supervised import Supervised
from ..types import Batch
from .fit import Fit
from .settings import TrainSettings

__all__ = ["GeneratorSettings", "outputs", "teaching"]


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
) -> tuple[Fit, Imitation | None]:
    """The teacher's training, ready to run, and the generators' if asked for.

    The teacher's weights are bit for bit the same with and without generators.
    """
    watcher = None
    if generators is not None:
        full = generators.resolved()
        model.eval()
        with torch.no_grad():
            shown = model(batch.x, batch.graph)
        n_nodes = batch.index.numel()
        layers = Layers.of(shown, dict(model.named_parameters()), n_nodes, full.buckets)
        watcher = Imitation(layers, full, seed=seed, device=batch.y.device)
    fit = Fit(
        model, batch, Supervised(), None, validation, settings, watcher=watcher, seed=seed, file=file, key=key
    )  # fmt: skip
    return fit, watcher


@torch.no_grad()
def outputs(model: nn.Module, batch: Batch) -> Float[Tensor, "N C"]:
    """Logits of all rows, a forward pass in eval mode."""
    model.eval()
    logits: Tensor = model(batch.x, batch.graph).logits
    return logits
