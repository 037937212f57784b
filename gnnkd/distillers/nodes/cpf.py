"""CPF: the student propagates labels with learnt strengths and mixes them with what a network says of each row.

C. Yang, J. Liu, C. Shi, "Extract the knowledge of graph neural networks and go beyond it: an effective knowledge
distillation framework", WWW 2021. `nn.around.label_propagation` is the student; the network inside is the user's. The
labels of training are its inputs, in training and later, so the loss leaves their nodes out:

    L = sqrt(sum over nodes not in training of |softmax(f_i) - softmax(t_i)|^2)

Departures: with `weights="ind"` both scalars of a node are linear maps of its features, so that an unseen node has
them; with "tra" those of an unseen node are 0, where training starts. The neighbourhood holds the node itself.
Published cells tune the number of steps from 5 to 10, the width of the network and its dropout by data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, final

from torch import Tensor, nn
from torch.linalg import vector_norm

from gnnkd.distillers.base import Distiller, Make
from gnnkd.distillers.losses import full_precision
from gnnkd.distillers.ranges import at_least, below_one, word
from gnnkd.distillers.space import OneOf, Range, Whole
from gnnkd.nn.around.label_propagation import WEIGHTS, LabelPropagation
from gnnkd.types import Batch, Output, Step


@final
class Cpf(Distiller):
    """The root of the summed squares of `softmax(student) - softmax(teacher)` on nodes whose label is not given.

    It teaches networks of rows: the propagation is the student's only look at edges.

    Args:
        propagations: steps of the propagation, at least 1.
        weights: "ind", scalars made of a node's features; or "tra", free parameters of each node of the training.
        attention_dropout: share of the weights of a sum that a step of training leaves out, in [0, 1).
    """

    on_graphs: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("edges", "labels")
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {"propagations": Whole(5, 10), "weights": OneOf(("tra", "ind")), "attention_dropout": OneOf((0.0, 0.2, 0.5))}
    )

    def __init__(
        self, *, propagations: int = 5, weights: Literal["tra", "ind"] = "ind", attention_dropout: float = 0.2
    ) -> None:
        self.propagations = int(at_least("propagations", propagations, 1))
        self.weights = word("weights", weights, WEIGHTS)
        self.attention_dropout = below_one("attention_dropout", attention_dropout)

    def learner(self, make: Make, batch: Batch, classes: int, seed: int) -> nn.Module:
        """The student with the propagation of the labels of training around it."""
        return LabelPropagation(
            make,
            batch.x.shape[1],
            classes,
            steps=self.propagations,
            weights=self.weights,
            attention_dropout=self.attention_dropout,
            labelled=batch.index[batch.labelled],
            y=batch.y[batch.labelled],
            nodes=batch.index,
        )

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `kd`."""
        assert teacher is not None
        rest = ~batch.labelled
        given, wanted = full_precision(student.logits), full_precision(teacher.logits.detach())
        difference: Tensor = vector_norm(given[rest].softmax(1) - wanted[rest].softmax(1))
        return {"kd": difference}
