"""MoCo: a view finds the other view of its image, as a momentum encoder sees it, among images of earlier batches.

K. He, H. Fan, Y. Wu, S. Xie, R. Girshick, "Momentum contrast for unsupervised visual representation learning", CVPR
2020, equation 1, with the projector and temperature of version 2 (X. Chen et al., 2020).

Departures: both views are asked, each for the other, since both encoders see both; there is no shuffled batch norm. The
default queue and momentum are those of small data: 65,536 keys and .999 in the paper.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.crd.share import rows_of_all
from gnnkd.distillers.ranges import above_zero, at_least, below_one
from gnnkd.selfsup.heads import mlp, width
from gnnkd.selfsup.objectives.base import Objective, halves
from gnnkd.types import Batch, Output, Step

PUBLISHED_WIDTH = 2048


@final
class Queue(nn.Module):
    """The latest keys, all of length 1; new ones take the places of the oldest.

    Args:
        dim: of a key.
        size: number of keys.
    """

    keys: Tensor
    place: Tensor

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "N K"]) -> None:
        """Put the keys in, in their order; of more than there is room for, the last ones."""
        size = len(self.keys)
        kept = keys[-size:]
        places = (self.place + len(keys) - len(kept) + torch.arange(len(kept), device=keys.device)) % size
        # A new queue, since the gradient still needs the old one.
        self.keys = self.keys.index_copy(0, places, kept)
        self.place = (self.place + len(keys)) % size


def info_nce(
    queries: Float[Tensor, "N K"], keys: Float[Tensor, "N K"], others: Float[Tensor, "Q K"], temperature: float
) -> Float[Tensor, ""]:
    """`mean_i -log(exp(q_i k_i / T) / (exp(q_i k_i / T) + sum_j exp(q_i o_j / T)))`; all rows have length 1."""
    own = (queries * keys).sum(1, keepdim=True)
    scores = torch.cat([own, queries @ others.mT], dim=1) / temperature
    return F.cross_entropy(scores, torch.zeros(len(queries), dtype=torch.long, device=scores.device))


@final
class MoCo(Objective):
    """InfoNCE with a queue.

    Args:
        temperature: of the cosines, above 0.
        momentum: of the momentum encoder, in [0, 1).
        queue: number of keys, >= 1.
        hidden: width of the projector's hidden layer, >= 1; None is four times the features, at most 2048.
        dim: of the projections, >= 1.
    """

    follower = True
    needs_teacher = True

    def __init__(
        self,
        *,
        temperature: float = 0.2,
        momentum: float = 0.99,
        queue: int = 4096,
        hidden: int | None = None,
        dim: int = 128,
    ) -> None:
        self.temperature, self.momentum = above_zero("temperature", temperature), below_one("momentum", momentum)
        self.queue, self.dim = int(at_least("queue", queue, 1)), int(at_least("dim", dim, 1))
        self.hidden = None if hidden is None else int(at_least("hidden", hidden, 1))

    def projector(self, features: int) -> nn.Module:
        """Linear, ReLU, linear."""
        return mlp([features, width(self.hidden, features, PUBLISHED_WIDTH), self.dim])

    def prepare(self, lesson: Lesson) -> None:
        """Make the queue, of random keys."""
        self.part = Queue(lesson.student.logits.shape[1], self.queue)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `moco`; the queue learns both views' keys afterwards."""
        assert teacher is not None
        assert isinstance(self.part, Queue)
        queries = [F.normalize(z, dim=1) for z in halves(student)]
        keys = [F.normalize(z, dim=1) for z in halves(teacher)]
        crossed = zip(queries, reversed(keys), strict=True)
        losses = [info_nce(q, k, self.part.keys, self.temperature) for q, k in crossed]
        self.part.push(rows_of_all(batch.index, torch.cat(keys))[1])
        return {"moco": torch.stack(losses).mean()}
