"""Networks that learn without labels teach each other which images are alike.

KTG's follow-up for self-supervised learning (deep collaborative learning): the matrix of cosines between first and
second views of a batch, as rows of probabilities.

Departures: none.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.distillers.base import Distiller
from gnnkd.distillers.losses import full_precision, soft_kl
from gnnkd.distillers.ranges import above_zero
from gnnkd.types import Batch, Output, Step


def similarities(z: Float[Tensor, "M K"]) -> Float[Tensor, "N N"]:
    """Cosines of each first view with each second view; the first half of the rows are the first views."""
    first, second = F.normalize(full_precision(z), dim=1).chunk(2)
    found: Tensor = first @ second.mT
    return found


@final
class Similarity(Distiller):
    """`T^2 mean over rows KL(softmax(S_t / T) || softmax(S_s / T))`, S the similarities of a batch of pairs.

    The two networks' projections need not have one width.

    Args:
        temperature: T > 0, in units of cosines.
    """

    graphs = False
    images = True

    def __init__(self, *, temperature: float = 0.3) -> None:
        self.temperature = above_zero("temperature", temperature)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `similarity`."""
        assert teacher is not None
        given, wanted = similarities(student.logits), similarities(teacher.logits)
        return {"similarity": soft_kl(given, wanted, self.temperature)}
