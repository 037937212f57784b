"""NOSMOG: a student that reads where a node stands, compares rows as its teacher does, and withstands small changes.

Y. Tian, C. Zhang, Z. Guo, X. Zhang, N. V. Chawla, "Learning MLPs on graphs: a unified view of effectiveness,
robustness, and efficiency", ICLR 2023. The student reads [x ; P], P made by DeepWalk on the observed graph; a node that
is not in it has the mean of its neighbours' positions. With f a criterion, CE of labels or KL to the teacher,

    L = sum of w_f (f(x) + adversarial_weight f(x + delta)) + similarity_weight mean_ij (h_i . h_j - g(s_i) . g(s_j))^2

where delta, within eps of 0, comes by projected gradient ascent on f, h and s are the last hidden rows of teacher and
student before norm and activation, and g is linear, ReLU, dropout as the student has it. w is label_weight for CE and
1 - label_weight for KL.

Departures: DeepWalk learns by negative sampling, not by hierarchical softmax, whose updates are one after the other;
what that changes is in docs/performance.md, "Positions". An epoch is one step on all nodes; the terms of delta and of
rows i, j are of at most `samples` of them, drawn anew, as the paper's are of a batch of 512. Where the student passes
messages, the others keep their features meanwhile. Nodes without any edge have zeros as positions. A student that shows
no rows before its last norm is compared by those that its last weights multiply. Options that the paper sets for each
data set have its values for Cora: photo has walk_length 30, walks 1, eps .1. Not so similarity_weight, whose published
values go from 1e-9 to .9 with the size of the teacher's hidden rows: its default, 1e-6, is in their middle, because too
little costs nothing and too much holds a student at chance (coauthor-physics, docs/results.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.data.augment import CPU, drawn_apart, generator, key
from gnnkd.distillers.base import TASK, Distiller, Lesson, Make
from gnnkd.distillers.losses import cross_entropy, full_precision, soft_kl
from gnnkd.distillers.maps import pooled
from gnnkd.distillers.nodes.draws import sampled
from gnnkd.distillers.nodes.neighbours import edges
from gnnkd.distillers.nodes.nosmog.attack import changed, rows_of, worst
from gnnkd.distillers.nodes.nosmog.skipgram import skip_gram
from gnnkd.distillers.nodes.walks import walks
from gnnkd.distillers.ranges import at_least, fraction
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around.positions import Positions
from gnnkd.nn.mlp import Linear
from gnnkd.nn.network import Network
from gnnkd.types import Batch, Output, Step

Criterion = Callable[[Tensor, Tensor], Tensor]
"""A mean over rows, of their logits and their places in the batch."""


@final
class Nosmog(Distiller):
    """`label_weight CE + (1 - label_weight) KL`, both also at the worst change of features, and similarity of rows.

    Args:
        label_weight: weight of the cross-entropy on labelled nodes, in [0, 1].
        adversarial_weight: of a criterion on changed features beside that on given ones, at least 0.
        similarity_weight: of the difference of products of hidden rows, at least 0.
        eps: most that a feature is changed, at least 0, in units of features.
        pgd_steps: gradients by which the change is found, each a step of eps / 4; at least 0.
        samples: most rows that are changed, and compared with one another, in a step; at least 1.
        walk_length: nodes of a walk, at least 2.
        walks: walks from each node, at least 1.
        window: most places in a walk between two nodes that are a pair, at least 1.
        iterations: passes over the walks, at least 1.
        dim: width of a position, at least 1.
    """

    reads_maps = True
    asks_student = True
    needs: ClassVar[tuple[str, ...]] = ("edges of unseen nodes",)
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "similarity_weight": Between(1e-9, 1.0, log=True),
            "eps": Between(0.001, 0.1, log=True),
            "walk_length": OneOf((30, 50, 70)),
            "walks": OneOf((1, 3, 5)),
            "iterations": OneOf((1, 3, 5)),
            "dim": OneOf((16, 32, 64)),
        }
    )

    def __init__(
        self,
        *,
        label_weight: float = 0.0,
        adversarial_weight: float = 0.1,
        similarity_weight: float = 1e-6,
        eps: float = 0.04,
        pgd_steps: int = 5,
        samples: int = 512,
        walk_length: int = 50,
        walks: int = 5,
        window: int = 5,
        iterations: int = 1,
        dim: int = 64,
    ) -> None:
        self.label_weight = fraction("label_weight", label_weight)
        self.adversarial_weight = at_least("adversarial_weight", adversarial_weight, 0)
        self.similarity_weight = at_least("similarity_weight", similarity_weight, 0)
        self.eps = at_least("eps", eps, 0)
        self.pgd_steps, self.samples = int(at_least("pgd_steps", pgd_steps, 0)), int(at_least("samples", samples, 1))
        self.walk_length, self.walks = int(at_least("walk_length", walk_length, 2)), int(at_least("walks", walks, 1))
        self.window, self.iterations = int(at_least("window", window, 1)), int(at_least("iterations", iterations, 1))
        self.dim = int(at_least("dim", dim, 1))
        self.reads_maps, self.asks_student = self.similarity_weight > 0, self.adversarial_weight > 0
        self.around: Positions | None = None
        self.alone, self.dropout = False, 0.0

    def learner(self, make: Make, batch: Batch, classes: int, seed: int) -> nn.Module:
        """The student on [x ; P]."""
        inner = make(batch.x.shape[1] + self.dim)
        if isinstance(inner, Network):
            self.alone = all(isinstance(layer, Linear) for layer in inner.layers)
            self.dropout = inner.rates[-1]
        ids, order = batch.index.sort()
        table = self._positions(edges(batch), seed).to(ids.device)[order]
        self.around = Positions(inner, ids, table, n_features=batch.x.shape[1])
        return self.around

    def _positions(self, a: CSR, seed: int) -> Float[Tensor, "N d"]:
        """DeepWalk on the CPU, so that a seed means the same positions everywhere."""
        draws, a = generator("nosmog", "positions", seed), a.to("cpu")
        starts = torch.arange(a.shape[0]).repeat(self.walks)
        met = walks(a, starts, self.walk_length, draws)
        return skip_gram(met, a.shape[0], dim=self.dim, window=self.window, iterations=self.iterations, draws=draws)

    def prepare(self, lesson: Lesson) -> None:
        """Make g."""
        super().prepare(lesson)
        if self.similarity_weight:
            width = _hidden(lesson.student).shape[1]
            with drawn_apart(CPU, key("nosmog", "g", lesson.seed)):
                self.part = nn.Linear(width, width)

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce`, `kd`, `adversarial` and `similarity`; one of weight zero is not computed.

        `ce` holds the cross-entropy at x and that at x + delta; of the KL, `kd` is that at x, `adversarial` the other.
        """
        assert teacher is not None
        target = full_precision(teacher.logits.detach())
        every = torch.arange(batch.y.numel(), device=batch.y.device)
        terms = {}

        def labels(logits: Tensor, rows: Tensor) -> Tensor:
            return cross_entropy(logits, batch.y[rows])

        def soft(logits: Tensor, rows: Tensor) -> Tensor:
            return soft_kl(full_precision(logits), target[rows])

        if self.label_weight:
            terms[TASK] = labels(student.logits, every)
            if self.adversarial_weight:
                known = batch.labelled.nonzero().flatten()
                terms[TASK] = terms[TASK] + self._adversarial(labels, known, batch, student, step)
            terms[TASK] = self.label_weight * terms[TASK]
        if self.label_weight < 1:
            terms["kd"] = (1 - self.label_weight) * soft(student.logits, every)
            if self.adversarial_weight:
                worse = self._adversarial(soft, every, batch, student, step)
                terms["adversarial"] = (1 - self.label_weight) * worse
        if self.similarity_weight:
            rows = sampled(every, self.samples, "nosmog", "rows", self.seed, step.epoch)
            similarity = self._similarity(_hidden(student)[rows], _hidden(teacher)[rows].detach(), step)
            terms["similarity"] = self.similarity_weight * similarity
        return terms

    def _adversarial(
        self, criterion: Criterion, among: Int[Tensor, " P"], batch: Batch, student: Output, step: Step
    ) -> Float[Tensor, ""]:
        """The weighted criterion of some rows at the worst change of them."""
        assert student.again is not None
        again, x = student.again, batch.x
        graph = batch.graph
        assert isinstance(x, Tensor | CSR)
        assert graph is None or isinstance(graph, Graph)
        rows = sampled(among, self.samples, "nosmog", "changed", self.seed, step.epoch)
        wide = x if self.around is None else self.around.widened(x, graph, batch.index)
        given = rows_of(wide, rows)
        whole = None if self.alone else changed(wide, rows)

        def at(delta: Tensor) -> Tensor:
            if whole is None:  # a student of rows alone is shown no others
                return criterion(again(given + delta).logits, rows)
            return criterion(again(whole(given + delta)).logits[rows], rows)

        draws = generator("nosmog", "delta", self.seed, step.epoch)
        with drawn_apart(given.device, key("nosmog", "dropout", self.seed, step.epoch)):
            shape = (given.shape[0], given.shape[1])
            with torch.enable_grad():
                delta = worst(at, shape, eps=self.eps, rate=self.eps / 4, steps=self.pgd_steps, draws=draws, like=given)
            return self.adversarial_weight * at(delta)

    def _similarity(
        self, student: Float[Tensor, "S F"], teacher: Float[Tensor, "S H"], step: Step
    ) -> Float[Tensor, ""]:
        """Mean squared difference of the products of each two rows."""
        assert self.part is not None, "prepare comes before the first step"
        student = self.part(full_precision(student)).relu()
        if self.dropout:
            draws = generator("nosmog", "g dropout", self.seed, step.epoch)
            kept = (torch.rand(student.shape, generator=draws) >= self.dropout).to(student.device)
            student = student * kept / (1 - self.dropout)
        teacher = full_precision(teacher)
        return (teacher @ teacher.t() - student @ student.t()).square().mean()


def _hidden(output: Output) -> Float[Tensor, "N F"]:
    """The last hidden rows before norm and activation; where none are shown, those that the last weights multiply."""
    return next(reversed(list(output.raw.values()))) if output.raw else pooled(output)
