"""The nouns every floor speaks: a batch, a network's output, a step.

Letters used in shapes throughout the package:

    N nodes or rows     D input features     C classes     E directed edges
    L weight matrices   M sketch buckets     A action width
    K channels          H, W height, width
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing_extensions import Self

UNKNOWN = -1
"""The label of a node whose class is unknown, or may not be read."""


class Sparse(Protocol):
    """What this floor knows of a sparse matrix [rows, columns]; `graph.structure.CSR` is the one in use."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def to(self, device: torch.device | str) -> Self:
        """The same matrix on `device`."""


class Neighbours(Protocol):
    """What this floor knows of a graph; `graph.structure.Graph` is the one in use."""

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""

    def to(self, device: torch.device | str) -> Self:
        """The same graph on `device`."""


Operand: TypeAlias = Tensor | Sparse
"""A matrix that a weight multiplies: dense, or sparse for bag-of-words features."""


@dataclass(frozen=True)
class Batch:
    """Rows, nodes or images that one step looks at.

    `y` holds `UNKNOWN` wherever `labelled` is False, so a method cannot read a label that it may not read,
    even by mistake. `index` are the rows' ids in the full data. `view` says which of its views (crop and flip) an image
    is in, where views can be counted.
    """

    x: Operand
    y: Int[Tensor, " N"]
    index: Int[Tensor, " N"]
    graph: Neighbours | None
    labelled: Bool[Tensor, " N"]
    view: Int[Tensor, " N"] | None = None

    @staticmethod
    def of(
        x: Operand,
        y: Int[Tensor, " N"],
        graph: Neighbours | None,
        labelled: Bool[Tensor, " N"],
        index: Int[Tensor, " N"] | None = None,
        view: Int[Tensor, " N"] | None = None,
    ) -> Batch:
        """Make a batch; labels outside `labelled` are blanked here, once for all methods."""
        if index is None:
            index = torch.arange(y.numel(), device=y.device)
        return Batch(x, torch.where(labelled, y, UNKNOWN), index, graph, labelled, view)


@dataclass(frozen=True)
class Output:
    """What a network returns.

    `hidden` maps the name of each weight matrix, in forward order, to the operand [N, in] that it multiplies (in the
    transform-first order `A(XW)`, so a graph layer and a linear layer mean the same thing by it). `raw` maps the same
    names, from the second layer on, to the previous layer's output [N, in] before normalisation and activation.
    `averaged` names the weight matrices whose outputs are the mean of several equal blocks of rows (attention heads),
    with the number of blocks. `clean` is the same batch through the same weights without dropout, there when a method
    asked for it. `again` asks the same network, in the same mode and with gradients, about other features of the same
    rows, there when a method reads it. `members` are the outputs of an ensemble's networks. `probe` is what the same
    network, without dropout and without gradients, says of the rows that a method named for it.

    Of images: `maps` are the feature maps [N, K, H, W] of the stem and of each stage after it, `raw_maps` the same
    before their last activation, `pooled` the rows [N, K] that the classifier multiplies.
    """

    logits: Float[Tensor, "N C"]
    hidden: Mapping[str, Operand] = field(default_factory=dict)
    raw: Mapping[str, Tensor] = field(default_factory=dict)
    averaged: Mapping[str, int] = field(default_factory=dict)
    clean: Output | None = None
    maps: tuple[Float[Tensor, "N _ _ _"], ...] = ()
    raw_maps: tuple[Float[Tensor, "N _ _ _"], ...] = ()
    pooled: Float[Tensor, "N _"] | None = None
    again: Callable[[Operand], Output] | None = None
    members: tuple[Output, ...] = ()
    probe: Output | None = None


@dataclass(frozen=True)
class Step:
    """Where training stands: `epoch` counts from 0 and `epochs` is the planned number.

    `batch` counts from 0 in each epoch of samples (`train.sampled`); elsewhere it is 0.
    """

    epoch: int
    epochs: int
    batch: int = 0

    @property
    def name(self) -> tuple[int, ...]:
        """What names a draw of this step: its epoch and, behind the first batch, its batch."""
        return (self.epoch, self.batch) if self.batch else (self.epoch,)
