"""Nearest neighbours in feature space: what a network has learnt without labels, asked with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gnnkd.train.lessons import autocast
from gnnkd.train.minibatches import Images
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.types import Output

K = 20
"""Neighbours that vote."""
_CHUNK = 1024


def votes(
    queries: Float[Tensor, "M D"],
    bank: Float[Tensor, "N D"],
    y: Int[Tensor, " N"],
    n_classes: int,
    k: int = K,
) -> Int[Tensor, " M"]:
    """The class that most of the `k` nearest rows of `bank` (Euclid) have; of several, the first.

    Args:
        y: classes of the rows of `bank`.
        k: at least 1; all rows where there are fewer.
    """
    # `cdist` multiplies out the squares: far from the origin their difference would have few digits left.
    middle = bank.mean(0)
    queries, bank = queries - middle, bank - middle
    found = []
    for chunk in torch.split(queries, _CHUNK):
        near = torch.cdist(chunk, bank).topk(min(k, len(bank)), dim=1, largest=False).indices
        counts = torch.zeros(len(chunk), n_classes, device=bank.device)
        found.append(counts.scatter_add_(1, y[near], torch.ones_like(near, dtype=counts.dtype)).argmax(1))
    return torch.cat(found)


@torch.no_grad()
def features(
    run: Callable[..., Output], images: Images, mask: Bool[Tensor, " N"], settings: ImageTrainSettings
) -> Float[Tensor, "M D"]:
    """Pooled features of the masked images in order, as they are.

    Args:
        run: a network in eval mode.
    """
    found = []
    for batch in images.scan(mask, 4 * settings.batch_size):
        assert isinstance(batch.x, Tensor)
        x = batch.x.contiguous(memory_format=settings.layout(batch.x.device))
        with autocast(batch.y.device, settings):
            pooled = run(x, None).pooled
        assert pooled is not None
        found.append(pooled.float())
    return torch.cat(found)


@final
class Neighbours:
    """Asks networks about a task's images; the training images, with their labels, are the neighbours.

    Args:
        images: where they come from; no row of another part is among the neighbours.
        y: classes of all rows.
        n_classes: number of classes C.
        settings: precision, layout and batches of the forward passes.
    """

    def __init__(self, images: Images, y: Int[Tensor, " N"], n_classes: int, settings: ImageTrainSettings) -> None:
        self.images, self.y, self.n_classes, self.settings = images, y, n_classes, settings

    def accuracy(self, model: nn.Module, mask: Bool[Tensor, " N"]) -> float:
        """Share of the masked images whose class their neighbours say, in [0, 1]."""
        model.eval()
        train = self.images.split.train
        bank, queries = (features(model, self.images, rows, self.settings) for rows in (train, mask))
        said = votes(queries, bank, self.y[train], self.n_classes)
        return float((said == self.y[mask]).double().mean())
