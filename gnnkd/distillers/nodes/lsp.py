"""LSP: the student weighs the neighbours of a node as its teacher does.

Y. Yang, J. Qiu, M. Song, D. Tao, X. Wang, "Distilling knowledge from graph convolutional networks", CVPR 2020,
equations 4 to 6. With h the features of a network, j a neighbour of i and k a kernel,

    a_ij = softmax over j of k(h_i, h_j),    loss = mean over nodes i with neighbours of KL(a^T_i || a^S_i)

    rbf: exp(-|h_i - h_j|^2 / 2)    cosine: cos(h_i, h_j)    poly: cos(h_i, h_j)^2    l2: |h_i - h_j|^2

The weight, the label's term beside it and the kernels are those of C. K. Joshi, F. Liu, X. Xun, J. Lin, C. S. Foo, "On
representation knowledge distillation for graph neural networks", 2022; `kd_weight` adds soft labels, as there.

Departures: the features are what the last weight matrix multiplies, with dropout in training; self loops are no
neighbours; `l2` is the square of the distance, as the first paper prints it; one layer is compared, not several. Nodes
are those of the subgraph that labelled nodes induce, as in the second paper; on all nodes (`labelled` false) the
published weight keeps an MLP from learning anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.distillers.nodes.features import FeatureDistiller
from gnnkd.distillers.nodes.pairs import others
from gnnkd.distillers.ranges import word
from gnnkd.distillers.space import Between, OneOf, Range
from gnnkd.graph.attention import edge_dot, expand, gather, segment_max, segment_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.kept import Kept
from gnnkd.types import Batch, Step

EPS = 1e-12
"""Smallest squared length of a row that has a direction."""


@final
class Lsp(FeatureDistiller):
    """`label_weight CE + kd_weight T^2 KL + weight * mean over nodes of KL(a^T || a^S)`.

    Memory is linear in edges: numbers for each, never features for each.

    Args:
        weight: of the term `lsp`, at least 0.
        kernel: how near two rows are: "rbf", "cosine", "poly" or "l2".
        label_weight: of the cross-entropy on labelled nodes, in [0, 1].
        kd_weight: of the divergence of soft labels on all nodes, at least 0.
        temperature: of that divergence, above 0, in units of logits.
        labelled: compare labelled rows and the edges among them alone; False compares all rows.
    """

    space: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {
            "weight": Between(1.0, 1e4, log=True),
            "kernel": OneOf(("rbf", "cosine", "poly", "l2")),
            "kd_weight": OneOf((0.0, 0.9)),
            "labelled": OneOf((True, False)),
        }
    )

    def __init__(
        self,
        *,
        weight: float = 100.0,
        kernel: Literal["rbf", "cosine", "poly", "l2"] = "rbf",
        label_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        labelled: bool = True,
    ) -> None:
        super().__init__("lsp", weight=weight, label_weight=label_weight, kd_weight=kd_weight, temperature=temperature)
        self.kernel, self.labelled = KERNELS[word("kernel", kernel, KERNELS)], labelled
        self._kept: Kept[tuple[Tensor | None, CSR, Tensor]] = Kept()

    def term(
        self, batch: Batch, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], step: Step
    ) -> Float[Tensor, ""]:
        """The divergence of local structures."""
        rows, a, told = self._kept.of(lambda: self._told(batch, teacher), batch, teacher)
        return divergence_from(a, student if rows is None else student[rows], told, self.kernel)

    def _told(
        self, batch: Batch, teacher: Float[Tensor, "N _"]
    ) -> tuple[Int[Tensor, " S"] | None, CSR, Float[Tensor, "E 1"]]:
        """The rows that are compared, None for all, the edges among them, and how the teacher weighs these."""
        rows, a = _induced(batch) if self.labelled else (None, others(batch))
        return rows, a, weighed(a, teacher if rows is None else teacher[rows], self.kernel)


def _induced(batch: Batch) -> tuple[Int[Tensor, " S"], CSR]:
    """The labelled rows, and the edges among them."""
    rows, a = batch.labelled.nonzero().flatten(), others(batch)
    return rows, Graph(a).subgraph(rows).adjacency


def structure_divergence(
    a: CSR, student: Float[Tensor, "N _"], teacher: Float[Tensor, "N _"], kernel: Kernel
) -> Float[Tensor, ""]:
    """Mean over the rows of `a` that have entries of `KL(a^T || a^S)` in nats; 0 where no row has one."""
    return divergence_from(a, student, weighed(a, teacher, kernel), kernel)


@torch.no_grad()
def weighed(a: CSR, teacher: Float[Tensor, "N _"], kernel: Kernel) -> Float[Tensor, "E 1"]:
    """The teacher's part of `structure_divergence`: the logarithm of a^T, without a gradient."""
    return edge_log_softmax(a, kernel(a, teacher))


def divergence_from(
    a: CSR, student: Float[Tensor, "N _"], log_t: Float[Tensor, "E 1"], kernel: Kernel
) -> Float[Tensor, ""]:
    """`structure_divergence` of a student from the logarithm of a^T."""
    log_s = edge_log_softmax(a, kernel(a, student))
    nodes = (a.rowptr.diff() > 0).sum().clamp(min=1)
    return (log_t.exp() * (log_t - log_s)).sum() / nodes


def edge_log_softmax(a: CSR, scores: Float[Tensor, "E 1"]) -> Float[Tensor, "E 1"]:
    """Logarithm of the softmax over the entries of each row; differentiable to any order."""
    shifted = scores - expand(a, segment_max(a, scores))
    # The largest entry of a row adds exp(0): the bound holds for rows without entries only, whose sum is 0.
    return shifted - expand(a, segment_sum(a, shifted.exp()).clamp(min=1.0).log())


# -- kernels: one number for each entry ------------------------------------------------------------------------------


def rbf(a: CSR, h: Float[Tensor, "N _"]) -> Float[Tensor, "E 1"]:
    """`exp(-|h_i - h_j|^2 / 2)`."""
    return (-0.5 * squared_distance(a, h)).exp()


def cosine(a: CSR, h: Float[Tensor, "N _"]) -> Float[Tensor, "E 1"]:
    """Cosine of the angle between both rows, 0 where one of them is 0."""
    squared = h.square().sum(1, keepdim=True)
    alive = squared > EPS
    unit = h * torch.where(alive, squared.clamp(min=EPS).rsqrt(), 0.0)
    return edge_dot(a, unit[:, None], unit[:, None])


def poly(a: CSR, h: Float[Tensor, "N _"]) -> Float[Tensor, "E 1"]:
    """Squared cosine."""
    return cosine(a, h).square()


def squared_distance(a: CSR, h: Float[Tensor, "N _"]) -> Float[Tensor, "E 1"]:
    """`|h_i - h_j|^2`, at least 0."""
    h = h - h.mean(0)  # distances stay and the squares below lose fewer digits
    squared = h.square().sum(1, keepdim=True)
    return (expand(a, squared) + gather(a, squared) - 2 * edge_dot(a, h[:, None], h[:, None])).clamp(min=0)


Kernel = Callable[[CSR, Tensor], Tensor]
KERNELS: dict[str, Kernel] = {"rbf": rbf, "cosine": cosine, "poly": poly, "l2": squared_distance}
