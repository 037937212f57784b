"""Contrastive representation distillation: an image's features in both networks find each other among those of others.

Y. Tian, D. Krishnan, P. Isola, "Contrastive representation distillation", ICLR 2020, equations 10, 17 to 19, with the
memory banks of section 3.1 and negatives from other classes.

Departures: where fewer rows of other classes than `negatives` exist, all of them are taken, once each. The scores of a
batch with the whole bank are one product of matrices, [N, rows], of which the drawn ones are kept: 15 MB for 64 images
and 60,000 rows, where gathering the drawn rows first, [N, negatives, dim], takes 537 MB.
"""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.base import Lesson
from gnnkd.distillers.crd.contrast import contrast_loss
from gnnkd.distillers.crd.memory import Memory
from gnnkd.distillers.losses import full_precision
from gnnkd.distillers.maps import MapDistiller, pooled
from gnnkd.distillers.ranges import above_zero, at_least, below_one
from gnnkd.distillers.schedule import Schedule, Weight
from gnnkd.errors import UserError
from gnnkd.types import UNKNOWN, Batch, Output


@final
class Crd(MapDistiller):
    """`CE + weight * (NCE(student, teacher's bank) + NCE(teacher, student's bank))` of embedded pooled features.

    Args:
        weight: of the term `crd`, at least 0, or pairs [epoch, weight].
        warmup: epochs over which the term grows to its weight, at least 0; 0 is none.
        negatives: rows of other classes for each image, at least 1, without repetition.
        temperature: of the scores, above 0.
        momentum: of the banks, in [0, 1): `bank = momentum * bank + (1 - momentum) * embedding`.
        dim: of the embeddings, at least 1.
    """

    def __init__(
        self,
        *,
        weight: Weight = 0.8,
        warmup: int = 0,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        dim: int = 128,
    ) -> None:
        super().__init__({"crd": Schedule.of("weight", weight)}, warmup)
        self.negatives, self.dim = int(at_least("negatives", negatives, 1)), int(at_least("dim", dim, 1))
        self.temperature, self.momentum = above_zero("temperature", temperature), below_one("momentum", momentum)

    def prepare(self, lesson: Lesson) -> None:
        """Make both embeddings and both banks.

        Raises:
            UserError: the labels are of one class.
        """
        assert lesson.teacher is not None
        labels = lesson.y[lesson.y != UNKNOWN]
        if bool((labels == labels[:1]).all()):
            raise UserError("method crd contrasts images of different classes and the training labels are of one class")
        widths = pooled(lesson.student).shape[1], pooled(lesson.teacher).shape[1]
        self.part = Memory(*widths, self.dim, lesson.y.cpu(), self.negatives)

    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """The contrast of a batch in both directions; the banks learn it afterwards."""
        memory = self.prepared()
        assert isinstance(memory, Memory)
        s, t = memory.embedded(full_precision(pooled(student)), full_precision(pooled(teacher)))
        rows = memory.draw(batch.y)
        scores = memory.scores(s, t, batch.index, rows, self.temperature)
        losses = [contrast_loss(one, memory.n, batch.y != UNKNOWN) for one in scores]
        memory.remember(s, t, batch.index, self.momentum)
        return torch.stack(losses).sum()
