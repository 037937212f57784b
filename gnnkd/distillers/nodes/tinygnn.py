"""TinyGNN: a shallow network whose nodes attend to their peers learns from a deeper one.

B. Yan, C. Wang, G. Guo, Y. Lou, "TinyGNN: learning efficient graph neural networks", KDD 2020: a peer-aware module
before the student's layers, and neighbour distillation from a teacher that sees further.

Departures: no code of it is public and the description is from its abstract, so much is ours. The peers of a node are
its neighbours and itself; a mini-batch has no say in it. The module is one head of scaled dot products in which one
projection makes queries, keys and values, added to the projected features, before the user's whole network; where it
stands inside each layer we do not know. Neighbour distillation is cross-entropy and softened KL on all nodes; both
weights, the temperature and the width are our choices. The student's `input_dropout` acts on what the module puts out,
not on the features that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

from torch import Tensor, nn

from gnnkd.distillers.base import TASK, Distiller, Make
from gnnkd.distillers.losses import cross_entropy, full_precision, soft_kl
from gnnkd.distillers.ranges import above_zero, at_least
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.nn.around.peers import Peers
from gnnkd.types import Batch, Output, Step


@final
class Tinygnn(Distiller):
    """`CE + kd_weight T^2 KL(teacher || student)` of a network with a peer-aware module before it.

    It teaches networks that pass messages: the module passes messages along edges itself, so an MLP behind it would be
    a network of graphs that goes by the name of one of rows.

    Args:
        kd_weight: of the divergence of soft labels on all nodes, at least 0.
        temperature: T > 0, in units of logits.
        dim: width of the module, at least 1.
    """

    on_rows: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("edges",)
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "kd_weight": Between(0.1, 10.0, log=True),
            "temperature": Between(1.0, 5.0),
            "dim": OneOf((32, 64, 128, 256)),
        }
    )

    def __init__(self, *, kd_weight: float = 1.0, temperature: float = 2.0, dim: int = 64) -> None:
        self.kd_weight = at_least("kd_weight", kd_weight, 0)
        self.temperature = above_zero("temperature", temperature)
        self.dim = int(at_least("dim", dim, 1))

    def learner(self, make: Make, batch: Batch, classes: int, seed: int) -> nn.Module:
        """The student with the module before it."""
        return Peers(make, batch.x.shape[1], dim=self.dim)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce` and `kd`; a term of weight zero is not computed."""
        assert teacher is not None
        terms = {TASK: cross_entropy(student.logits, batch.y)}
        if self.kd_weight:
            pair = full_precision(student.logits), full_precision(teacher.logits.detach())
            terms["kd"] = self.kd_weight * soft_kl(*pair, self.temperature)
        return terms
