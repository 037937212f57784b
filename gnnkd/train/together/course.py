"""What the courses of several networks share: an optimizer a node, best weights a node, state that continues."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from gnnkd.distillers.schedule import Schedule
from gnnkd.optimizers import flat, unflatten
from gnnkd.tensors import under
from gnnkd.train.course import Course
from gnnkd.train.settings import ImageTrainSettings, TrainSettings
from gnnkd.train.together import bests, followers
from gnnkd.train.together.bests import Best
from gnnkd.train.together.incoming import Incoming
from gnnkd.train.together.node import Node, checked
from gnnkd.train.update import apply, trained
from gnnkd.types import Batch, Output, Step

S = TypeVar("S", TrainSettings, ImageTrainSettings)
MakeOptimizer: TypeAlias = Callable[[Mapping[str, Tensor], S], torch.optim.Optimizer]
"""An optimizer of parameters by name, as a node's settings say."""


class Together(Course, Generic[S]):
    """Networks that train in step; the score is node 0's.

    In each batch every node runs forward once, then each that is trained moves alone, by what all have said before any
    of them moved. So it does not matter in which order they do.

    `model` holds the networks of all nodes; `bests` are their best weights, each at its own epoch.
    """

    model: nn.ModuleList
    optimizers: dict[int, torch.optim.Optimizer]

    def __init__(self, nodes: Sequence[Node], settings: type[S], device: torch.device) -> None:
        self.nodes, self.device = checked(nodes), device
        self.settings: list[S] = [_of(node, settings) for node in self.nodes]
        self.model = nn.ModuleList([node.model for node in self.nodes])
        self.incoming = [Incoming(i, node.edges) for i, node in enumerate(self.nodes)]
        self.learners = [i for i, node in enumerate(self.nodes) if node.trained]
        self.sources = {edge.source for node in self.nodes for edge in node.edges if edge.source is not None}
        edges = [edge for node in self.nodes for edge in node.edges]
        reading = {edge.source for edge in edges if edge.distiller.reads_maps}
        self.shows = [i in reading or self.incoming[i].reads_maps for i in range(len(self.nodes))]
        for i, node in enumerate(self.nodes):
            if node.follows is not None:
                followers.copy(node.model, self.nodes[node.follows[0]].model)
            if not node.trained:
                self.nodes[i].model.requires_grad_(False)
        self.bests = [Best.of(node.model) for node in self.nodes]

    def optimize(self, make: MakeOptimizer[S]) -> None:
        """Give each node that is trained an optimizer, after the methods of its edges are prepared."""
        self.optimizers = {}
        for i in self.learners:
            part = self.incoming[i].part
            if part is not None:
                part.to(self.device).train()
            self.optimizers[i] = make(trained(self.nodes[i].model, self.incoming[i]), self.settings[i])

    @abstractmethod
    def score(self, node: int) -> float | None:
        """Validation accuracy of a node, None where nothing validates."""

    def step(self, batch: Batch, outputs: Mapping[int, Output], step: Step) -> dict[str, Tensor]:
        """Move every node by what it hears. Returns the loss terms and the diagnostics of all.

        Args:
            outputs: of all nodes that are heard or trained, by number.
        """
        taken: dict[str, Tensor] = {}
        for i in self.learners:
            self.incoming[i].hear(outputs)
            model, optimizer = self.nodes[i].model, self.optimizers[i]
            taken |= apply(model, optimizer, self.incoming[i], batch, outputs[i], None, step)
        for node in self.nodes:
            if node.follows is not None:
                followed, momentum = node.follows
                now = Schedule.of("momentum", momentum).at(step)
                followers.follow(node.model, self.nodes[followed].model, now)
        return taken

    def judged(self, step: Step) -> tuple[float | None, dict[str, Tensor | float]]:
        """Score the nodes and keep the best weights of each; the score of node 0, and `val_acc_<i>` of the others.

        A node that follows another has no score; what is kept of it are its last weights.
        """
        scores = []
        for i, (node, best) in enumerate(zip(self.nodes, self.bests, strict=True)):
            known = node.frozen and best.score is not None
            score = best.score if known or node.follows is not None else self.score(i)
            if node.frozen:
                self.bests[i] = Best(score, best.epoch, best.weights)
            elif best.beaten(score):
                self.bests[i] = Best.of(node.model, score, step.epoch)
            scores.append(score)
        others: dict[str, Tensor | float] = {f"val_acc_{i}": s for i, s in enumerate(scores) if i > 0 and s is not None}
        return scores[0], others

    def optimizer_state(self) -> dict[str, Tensor]:
        """Those of all optimizers."""
        return {f"{i}.{k}": t for i, optimizer in self.optimizers.items() for k, t in flat(optimizer).items()}

    def load_optimizer_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `optimizer_state()`."""
        for i, optimizer in self.optimizers.items():
            unflatten(optimizer, under(tensors, f"{i}."))

    def state(self) -> dict[str, Tensor]:
        """The methods' of all edges, and the best weights of each node."""
        found = {f"node{i}.{k}": t for i, one in enumerate(self.incoming) for k, t in one.state().items()}
        return found | {f"best.{k}": t for k, t in bests.written(self.bests).items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        for i, one in enumerate(self.incoming):
            one.load_state(under(tensors, f"node{i}."))
        self.bests = bests.read(under(tensors, "best."), len(self.nodes))


def _of(node: Node, kind: type[S]) -> S:
    assert isinstance(node.settings, kind), f"{node.name}: this course is of {kind.__name__}"
    return node.settings
