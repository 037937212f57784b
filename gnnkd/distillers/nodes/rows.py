"""Which rows of a task the rows of a batch are."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from gnnkd.types import Batch


@final
class Rows:
    """Places of ids in a task.

    Args:
        index: ids of the task's rows in the full data, distinct.
    """

    def __init__(self, index: Int[Tensor, " R"]) -> None:
        self.index = index
        self._sorted: tuple[Tensor, Tensor] | None = None

    def of(self, batch: Batch) -> Int[Tensor, " N"]:
        """The row in the task of each row of a batch of it."""
        if batch.index is self.index:
            return torch.arange(self.index.numel(), device=self.index.device)
        if self._sorted is None:
            self._sorted = self.index.sort()
        ids, order = self._sorted
        return order[torch.searchsorted(ids, batch.index)]
