"""GA-GLNN: GLNN on features that have been averaged over neighbours once, before training and before a prediction.

S. Zhang, Y. Liu, Y. Sun, N. Shah, "Graph-less neural networks", ICLR 2022, the variant of the appendix with augmented
features (D^-1/2 A D^-1/2)^k x. New nodes are reached by their edges when they are asked about; training propagates
observed nodes among themselves.

Departures: A has a self loop on each node, as the graphs of the published code have; `self_loops=false` leaves A alone.
A network that passes messages averages over neighbours by itself, so that only one on rows is taught.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

from torch import Tensor, nn

from gnnkd.distillers.base import Distiller, Make
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.space import Between, Range, Whole
from gnnkd.nn.around.propagated import Propagated
from gnnkd.types import Batch, Output, Step


@final
class GaGlnn(Distiller):
    """`label_weight CE + (1 - label_weight) KL(teacher || student)` for a student of S^k x.

    Args:
        label_weight: weight of the cross-entropy on labelled nodes, in [0, 1].
        hops: steps along the edges, at least 0; 0 is GLNN.
        self_loops: whether a node counts among its neighbours.
    """

    on_graphs: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("edges",)
    space: ClassVar[Mapping[str, Range]] = MappingProxyType({"label_weight": Between(0.0, 0.5), "hops": Whole(1, 3)})

    def __init__(self, *, label_weight: float = 0.0, hops: int = 1, self_loops: bool = True) -> None:
        self.glnn = Glnn(label_weight=label_weight)
        self.hops, self.self_loops = int(at_least("hops", hops, 0)), self_loops

    def learner(self, make: Make, batch: Batch, classes: int, seed: int) -> nn.Module:
        """The student on propagated features."""
        return Propagated(make(batch.x.shape[1]), k=self.hops, loops=self.self_loops)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms of GLNN."""
        return self.glnn.loss(batch, student, teacher, step)
