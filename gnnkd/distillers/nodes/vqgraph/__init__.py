"""VQGraph: the student learns which codes of local structures a node is near; the default weight, 1e-8, leaves it GLNN.

L. Yang, Y. Tian, M. Xu, Z. Liu, S. Hong, W. Qu, W. Zhang, B. Cui, M. Zhang, J. Leskovec, "VQGraph: rethinking graph
representation space for bridging GNNs and MLPs", ICLR 2024. `tokenizer` learns unit rows u_i and codes e_k; a map of
the student's last hidden rows gives z_i:

    L = label_weight CE + (1 - label_weight) KL(teacher || student)
        + code_weight T^2 KL(softmax_k(u_i . e_k / T) || softmax_k(-|z_i - e_k| / T))

Departures: the teacher of the soft labels is the house's with the tokenizer beside it; in the paper both are one. The
tokenizer is trained for a fixed number of epochs, and the student is selected by validation; the published code selects
by test accuracy. Edges are decoded of `samples` pairs of nodes an epoch, half of them edges and half any pairs, where
the published code decodes all N x N; codes are compared for `samples` nodes a step. Codes and rows have `dim` numbers,
not as many as a node has features. Rows are of length 1 wherever they meet codes, in all terms. No dropout in the
tokenizer. The first codes are the rows of some nodes, no more codes than nodes; the published sizes are 5000 by default
and 32768 for arxiv (on cora a few hundred of them are in use). The weight of the codes is the published 1e-8, which
leaves GLNN as it is; a search tries larger ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.data.augment import drawn_apart, generator, key
from gnnkd.distillers.base import SAMPLED, TASK, Distiller, Lesson
from gnnkd.distillers.losses import cross_entropy, full_precision, soft_kl
from gnnkd.distillers.nodes.neighbours import edges
from gnnkd.distillers.nodes.rows import Rows
from gnnkd.distillers.nodes.vqgraph.codebook import distances, unit
from gnnkd.distillers.nodes.vqgraph.tokenizer import LAYERS, Settings, Tokens, trained
from gnnkd.distillers.ranges import above_zero, at_least, below_one, fraction, word
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR
from gnnkd.nn.linear import linear
from gnnkd.types import Batch, Output, Step


@final
class Vqgraph(Distiller):
    """`label_weight CE + (1 - label_weight) KL + code_weight T^2 KL of soft codes`.

    Args:
        label_weight: of the cross-entropy on labelled nodes, in [0, 1].
        code_weight: of the divergence of soft codes, at least 0; with 0 no tokenizer is trained.
        temperature: T of the soft codes, above 0.
        codes: most codes, at least 1; there are never more than nodes.
        dim: numbers of a code, at least 1.
        layer: of the tokenizer, "gcn" or "sage".
        decay: of the moving codes, in [0, 1).
        commitment: weight of a row's distance to its code in the tokenizer's loss, at least 0.
        tokenizer_epochs: at least 0.
        samples: most nodes whose codes are compared in a step, and pairs of nodes in an epoch of the tokenizer, at
            least 1; memory grows with `samples * codes`.
    """

    batches = SAMPLED
    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "label_weight": Between(0.0, 0.5),
            "code_weight": Between(1e-8, 10.0, log=True),
            "temperature": Between(0.1, 4.0, log=True),
            "codes": OneOf((256, 1024, 4096)),
            "layer": OneOf(("gcn", "sage")),
        }
    )

    def __init__(
        self,
        *,
        label_weight: float = 0.0,
        code_weight: float = 1e-8,
        temperature: float = 4.0,
        codes: int = 1024,
        dim: int = 64,
        layer: Literal["gcn", "sage"] = "gcn",
        decay: float = 0.8,
        commitment: float = 0.25,
        tokenizer_epochs: int = 100,
        samples: int = 1024,
    ) -> None:
        self.label_weight = fraction("label_weight", label_weight)
        self.code_weight = at_least("code_weight", code_weight, 0)
        self.temperature = above_zero("temperature", temperature)
        self.samples = int(at_least("samples", samples, 1))
        self.settings = Settings(
            layer=word("layer", layer, LAYERS),
            codes=int(at_least("codes", codes, 1)),
            dim=int(at_least("dim", dim, 1)),
            decay=below_one("decay", decay),
            commitment=at_least("commitment", commitment, 0),
            pairs=self.samples,
            epochs=int(at_least("tokenizer_epochs", tokenizer_epochs, 0)),
        )
        self._seen: dict[str, Tensor] = {}

    def prepare(self, lesson: Lesson) -> None:
        """Train the tokenizer, and make the map from the student's rows to codes."""
        super().prepare(lesson)
        self._seen = {}
        if not self.code_weight:
            return
        assert lesson.batch is not None
        edges(lesson.batch)
        tokens = trained(lesson.batch, lesson.student.logits.shape[1], self.settings, lesson.seed)
        device = lesson.batch.y.device
        with drawn_apart(device, key("vqgraph map", lesson.seed)):
            self.part = Codes(_last(lesson.student).shape[1], tokens).to(device)
        self._rows = Rows(lesson.batch.index)
        self._seen = {"codebook/perplexity": tokens.perplexity, "codebook/used": tokens.used}

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The terms `ce`, `kd` and `codes`; a term of weight zero is not computed."""
        assert teacher is not None
        terms = {}
        if self.label_weight > 0:
            terms[TASK] = self.label_weight * cross_entropy(student.logits, batch.y)
        if self.label_weight < 1:
            pair = full_precision(student.logits), full_precision(teacher.logits.detach())
            terms["kd"] = (1 - self.label_weight) * soft_kl(*pair)
        if self.code_weight:
            terms["codes"] = self.code_weight * self._codes(batch, student, step)
        return terms

    def _codes(self, batch: Batch, student: Output, step: Step) -> Float[Tensor, ""]:
        part = cast("Codes", self.part)
        order = torch.randperm(batch.y.numel(), generator=generator("vqgraph", self.seed, *step.name))
        chosen = order[: self.samples].to(batch.index.device)
        z, u = part(_last(student), chosen), part.rows[self._rows.of(batch)[chosen]]
        given, wanted = -distances(z, part.codes), u @ part.codes.t()
        agreed = given.argmax(1) == wanted.argmax(1)
        self._seen["codebook/agreement"] = agreed.to(z.dtype).mean().detach()
        return soft_kl(given, wanted, self.temperature)

    def diagnostics(self) -> Mapping[str, Tensor]:
        """Of the codebook: its perplexity and the share of codes in use, and how often both networks are nearest one.

        `codebook/agreement` is the share of the compared nodes whose nearest code by the student is that by the
        tokenizer.
        """
        return dict(self._seen)


@final
class Codes(nn.Module):
    """The map from a student's rows to the space of the codes, with what the tokenizer has found.

    Args:
        width: of the student's last hidden rows.
        tokens: unit rows of the nodes and codes.
    """

    rows: Tensor
    codes: Tensor

    def __init__(self, width: int, tokens: Tokens) -> None:
        super().__init__()
        self.map = nn.Linear(width, tokens.codes.shape[1])
        self.register_buffer("rows", tokens.rows)
        self.register_buffer("codes", unit(tokens.codes))

    def forward(self, hidden: Tensor | CSR, chosen: Int[Tensor, " S"]) -> Float[Tensor, "S F"]:
        """z of the chosen rows."""
        given = hidden[chosen] if isinstance(hidden, Tensor) else hidden.select_rows(chosen)
        return linear(full_precision(given) if isinstance(given, Tensor) else given, self.map.weight, self.map.bias)


def _last(student: Output) -> Tensor | CSR:
    """The rows that the student's last weight matrix multiplies."""
    if not student.hidden:
        raise UserError("vqgraph reads what a student's last weight matrix multiplies, which this one hides; use glnn")
    return cast("Tensor | CSR", list(student.hidden.values())[-1])
