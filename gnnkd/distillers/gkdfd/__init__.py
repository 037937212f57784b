"""GK-DFD: graph knowledge between the rows of a batch, and discriminative feature distillation.

Source: the published repository of GK-DFD (the abstract in its README, two figures, and two states of its code); the
text of the paper was not found. Its two states are two readings, our recipes `prototype` (the earlier) and `paper` (the
later, written along the paper's equations). What follows is common to both unless said.

Relations (`relations`): p_i from the logits of row i,

    u_ij = (1 + cos(p_i, p_j)) / 2 - (1 - exp(-||p_i - p_j||))        A_ij = relu(u_ij (1 if y_i = y_j else factor))

Embedding (`embedding`): f the rows that a network's classifier multiplies, a side for each network,

    h = l2norm(W f + b)        g = l2norm(TAG of one step on A, of h)

Graph distillation (`graph_loss`): `L_G = w_n MSE(h) + w_e MSE(edges) + w_g ||G_t - G_s||_F^2 / (N dim)`; `paper` has
w = (0, 0, 1) on the teacher's graph, with classes by label; `prototype` has w = (1, 1, 1), each network on a graph of
its own logits, with classes by prediction.

Discriminative distillation (`discriminative`): principal components of G_t, in them the alignment of each row with its
k1 nearest of its class and its k2 nearest of others, and the C - 1 eigenvectors U of the smallest eigenvalues, for the
C classes of the batch. `paper`: `L_D = mean_i ||U^T (x_t,i - x_s,i)||^2` (mode align). `prototype`: whitened
components, all negatives, and weighted distances of rows on the unit sphere (mode contrast).

    loss = CE + .7 L_G + 1.2 L_D (+ kd_weight T^2 KL)

Ours, to make it whole: `uem_input` l2, `topk`, vector edges, the readout `r = mean_i g_i` (the figure shows a global
embedding that all vertices share) and all that graphs of nodes need: on a whole graph a step looks at `samples` rows of
`classes` classes, drawn by the run's seed and the epoch; a row without a known label counts as of the class that the
teacher predicts.

Departures:
* the teacher's embeddings are fixed targets; its side learns classes by a linear probe on G_t (`teacher_head` ce, the
  term of that name). In the source both sides learn from L_G and L_D (joint), whose least values, but for those of
  mode contrast, are taken where both embeddings are constant;
* p is a softmax at T 4 in `paper`, where the source takes the logits as they are (`uem_input` logits): with logits of a
  trained network no two rows are near, and the graph is its diagonal;
* theta is k1 / k2 by the neighbours that a row really has, so that its weights sum to 0 in every batch;
* the earlier state takes its directions from `X^T (diag(w 1) - w) X`; ours are those of the symmetrised L in both
  recipes, which are the same where w is symmetric;
* a batch of one class has L_D = 0; eigenvectors of what is not finite are the coordinates, and the loss tells;
* convolutions run on the kernels of the networks of graphs, with no second implementation;
* `prototype` reads all classes as the teacher's prediction with `labels` pred, also those that L_D aligns.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.data.augment import CPU, drawn_apart, generator
from gnnkd.distillers.base import SAMPLED, TASK, Distiller, Lesson
from gnnkd.distillers.gkdfd import discriminative
from gnnkd.distillers.gkdfd.batches import balanced
from gnnkd.distillers.gkdfd.discriminative import Mode, discriminative_loss
from gnnkd.distillers.gkdfd.embedding import Conv, Embedding, Head
from gnnkd.distillers.gkdfd.graph_loss import graph_loss
from gnnkd.distillers.gkdfd.measure import edges
from gnnkd.distillers.gkdfd.relations import Input, Parts
from gnnkd.distillers.gkdfd.settings import PARTS, Edges, Labels, Recipe, Settings, Whose
from gnnkd.distillers.gkdfd.sight import Seen, Sight, measured
from gnnkd.distillers.losses import cross_entropy, full_precision, soft_kl
from gnnkd.distillers.maps import pooled
from gnnkd.distillers.schedule import Weight
from gnnkd.distillers.space import Between, Range
from gnnkd.types import UNKNOWN, Batch, Output, Step

__all__ = ["Gkdfd", "Seen"]

_SEED = "seed"
"""In the state, beside the entries of the part."""


@final
class Gkdfd(Distiller):
    """`CE + graph_weight L_G + dfd_weight L_D + kd_weight KD`, and the cross-entropy of the teacher's probe.

    Options that are None are filled by the recipe, and must be None where the term that reads them is always 0.
    A weight is at least 0, or pairs [epoch, weight].

    Args:
        recipe: "paper" or "prototype", the two readings of the source; with "+kd" `kd_weight` is 1.
        uem_input: what relations compare: "softmax" of the logits, "logits" as they are, or "l2" of unit length.
        tau: temperature of that softmax, above 0, in units of logits.
        parts: of the measurement: "both", its "cosine" or its "euclidean" part alone.
        cac: factor of relations between two classes, in [0, 1]; 1 makes no difference.
        labels: classes are those of the labels where these are known ("true"), or the predicted ones ("pred"); the
            student's own graph goes by its own predictions then.
        graph: both networks on the teacher's graph ("shared"), or each on its "own".
        topk: strongest others that a row keeps, at least 0; 0 keeps all.
        dim: of the embeddings, at least 1.
        conv: "tag", "gcn" or "sage", of one step.
        node_weight: of h in L_G.
        edge_weight: of the edges in L_G.
        global_weight: of G in L_G; None is 1.
        readout_weight: of the mean of G in L_G; None is 0.
        edge_embedding: an edge is its weight ("scalar", None) or a "vector"; with teacher_head ce or fixed the
            teacher's vectors are a fixed random map of its h.
        graph_weight: of the term `graph`, L_G.
        dfd_weight: of the term `dfd`, L_D.
        mode: of L_D, "align" or "contrast".
        whiten: principal components with variance 1.
        k1: neighbours of a row's class, at least 1, None is 7; as many as there are where the batch has fewer.
        k2: neighbours of other classes, at least 0; 0 takes all.
        pca_ratio: dim over the number of principal components, at least 1; None is 2.
        kd_weight: of the term `kd`, T^2 KL of the softmaxes of all rows.
        temperature: T > 0 of `kd`, in units of logits; None is 4.
        teacher_head: the teacher's side learns classes by a probe ("ce", the term `teacher_head`), stays at its random
            start ("fixed"), or learns from L_G and L_D as the student's does ("joint": all rows end in one place).
        classes: that a step looks at on a whole graph, at least 1; at least 2 with L_D, which tells them apart.
        samples: rows of a class that a step looks at on a whole graph, at least 1.

    Raises:
        ValueError: a word that does not exist, a value out of range or of another type, or an option that would do
            nothing.
    """

    graphs: ClassVar[bool] = True
    images: ClassVar[bool] = True
    keeps_part: ClassVar[bool] = True
    batches = SAMPLED
    reads_maps = True
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "graph_weight": Between(0.1, 3.0, log=True),
            "dfd_weight": Between(0.1, 3.0, log=True),
            "kd_weight": Between(0.0, 2.0),
        }
    )
    drawn: ClassVar[tuple[str, ...]] = ("classes", "samples")
    """Options of rows that are drawn from a whole graph, which batches have no use for."""

    def __init__(
        self,
        *,
        recipe: Recipe = "paper",
        uem_input: Input = "softmax",
        tau: float | None = None,
        parts: Parts = "both",
        cac: float = 0.5,
        labels: Labels | None = None,
        graph: Whose | None = None,
        topk: int = 0,
        dim: int = 128,
        conv: Conv = "tag",
        node_weight: Weight | None = None,
        edge_weight: Weight | None = None,
        global_weight: Weight | None = None,
        readout_weight: Weight | None = None,
        edge_embedding: Edges | None = None,
        graph_weight: Weight = 0.7,
        dfd_weight: Weight = 1.2,
        mode: Mode | None = None,
        whiten: bool | None = None,
        k1: int | None = None,
        k2: int | None = None,
        pca_ratio: float | None = None,
        kd_weight: Weight | None = None,
        temperature: float | None = None,
        teacher_head: Head = "ce",
        classes: int = 8,
        samples: int = 8,
    ) -> None:
        self.settings = Settings.of(locals())  # every option by its name
        self._seed = 0
        self._whole: int | None = None
        """Rows of the task if some of them are of unknown class: such a batch is drawn from."""
        self._measured: dict[str, Tensor] = {}

    def prepare(self, lesson: Lesson) -> None:
        """Make a side for each network from the run's seed; the random state stays."""
        assert lesson.teacher is not None
        chosen, (student, teacher) = self.settings, (pooled(one) for one in (lesson.student, lesson.teacher))
        whole = bool((lesson.y == UNKNOWN).any())
        self._seed, self._whole = lesson.seed, lesson.y.numel() if whole else None
        with drawn_apart(CPU, lesson.seed):  # where the part is made
            self.part = Embedding(
                student.shape[1],
                teacher.shape[1],
                lesson.teacher.logits.shape[1],
                dim=chosen.dim,
                conv=chosen.conv,
                vectors=chosen.vectors,
                head=chosen.head,
            )

    def state(self) -> dict[str, Tensor]:
        """The part, and the seed of what is drawn."""
        return super().state() | {_SEED: torch.tensor(self._seed)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`, after `prepare`."""
        self._seed = int(tensors[_SEED])
        super().load_state({name: t for name, t in tensors.items() if name != _SEED})

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce`, `graph`, `dfd`, `kd` and `teacher_head`, as far as they are not always 0."""
        assert teacher is not None
        weights, terms = self.settings.weights, {TASK: cross_entropy(student.logits, batch.y)}
        with torch.autocast(batch.y.device.type, enabled=False):
            sight = self._look(batch, student, teacher, step)
            for name, term in (("graph", self._graph_loss), ("dfd", self._dfd_loss)):
                if not weights[name].never:
                    terms[name] = weights[name].at(step) * term(sight, step)
            if not weights["kd"].never:
                pair = full_precision(student.logits), full_precision(teacher.logits.detach())
                terms["kd"] = weights["kd"].at(step) * soft_kl(*pair, self.settings.temperature)
            if sight.probed is not None:
                terms["teacher_head"] = cross_entropy(sight.probed, sight.y)
            self._measured = measured(sight)
        return terms

    def diagnostics(self) -> Mapping[str, Tensor]:
        """Of the last step: spread of both embeddings, cosine between their classes' means, share of joined pairs."""
        return self._measured

    @torch.no_grad()
    def seen(self, batch: Batch, student: Output, teacher: Output, step: Step) -> Seen:
        """What `loss` looks at in this batch at this step."""
        with torch.autocast(batch.y.device.type, enabled=False):
            sight = self._look(batch, student, teacher, step)
            space = discriminative.space(sight.teacher.graph, sight.y, self.settings.choice)
        low = max(1, int(discriminative.count(sight.y)) - 1)
        return Seen(
            rows=torch.arange(sight.y.numel(), device=sight.y.device) if sight.rows is None else sight.rows,
            y=sight.y,
            adjacency=sight.joined.adjacency,
            adjacency_student=sight.own.adjacency,
            teacher=sight.teacher.graph,
            student=sight.student.graph,
            teacher_low=space.of(sight.teacher.graph)[:, :low],
            student_low=space.of(sight.student.graph)[:, :low],
        )

    def _look(self, batch: Batch, student: Output, teacher: Output, step: Step) -> Sight:
        """Both graphs and both embeddings of the batch, or of the rows drawn from a whole graph."""
        chosen, part = self.settings, self.part
        assert isinstance(part, Embedding), "prepare comes before the first step"
        predicted = teacher.logits.argmax(1)
        y = predicted if chosen.predicted else torch.where(batch.y == UNKNOWN, predicted, batch.y)
        rows = self._drawn(batch, y, step)
        y = y if rows is None else y[rows]
        logits, features = _read(student, rows)
        taught, wanted = (x.detach() for x in _read(teacher, rows))
        joined = chosen.connection.among(taught, y)
        own = joined
        if chosen.own:
            own = chosen.connection.among(logits, logits.argmax(1) if chosen.predicted else y)
        found = part.teacher(wanted, joined)
        probed = None if part.probe is None else part.probe(found.graph)
        target = found if chosen.head == "joint" else found.detached()
        return Sight(rows, y, joined, own, part.student(features, own), target, probed)

    def _drawn(self, batch: Batch, y: Int[Tensor, " N"], step: Step) -> Int[Tensor, " M"] | None:
        """Which rows a step looks at; None for all of a batch that is not the whole of its task."""
        if batch.graph is None and y.numel() != self._whole:
            return None
        return balanced(y, self.settings.classes, self.settings.samples, generator("gkdfd", self._seed, *step.name))

    def _graph_loss(self, sight: Sight, step: Step) -> Float[Tensor, ""]:
        weights, joined = self.settings.weights, edges(sight.joined.adjacency.detach())
        losses = [
            weights[part].at(step) * graph_loss(part, sight.student, sight.teacher, joined)
            for part in PARTS
            if not weights[part].never
        ]
        return torch.stack(losses).sum()

    def _dfd_loss(self, sight: Sight, step: Step) -> Float[Tensor, ""]:
        space = discriminative.space(sight.teacher.graph.detach(), sight.y, self.settings.choice)
        return discriminative_loss(sight.student.graph, sight.teacher.graph, space, self.settings.choice.mode)


def _read(output: Output, rows: Tensor | None) -> tuple[Float[Tensor, "M C"], Float[Tensor, "M _"]]:
    """Logits and features of some rows, of all for None, in float32 at least."""
    both = output.logits, pooled(output)
    logits, features = (full_precision(x if rows is None else x[rows]) for x in both)
    return logits, features
