"""What a step looks at, what of it a figure shows, and what of it is logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.distillers.gkdfd.embedding import Embedded
from gnnkd.distillers.gkdfd.measure import between, edges, share, spread
from gnnkd.distillers.gkdfd.relations import Relations


@final
@dataclass(frozen=True)
class Seen:
    """One batch as the method sees it, for figures.

    Args:
        rows: places in the batch of the M rows that were looked at.
        y: class of each of them.
        adjacency: the teacher's graph.
        adjacency_student: the student's; the same where they share one.
        teacher: its graph embeddings G_t.
        student: its graph embeddings G_s.
        teacher_low: G_t in the discriminative space, of one dimension less than there are classes, at least 1.
        student_low: G_s there.
    """

    rows: Int[Tensor, " M"]
    y: Int[Tensor, " M"]
    adjacency: Float[Tensor, "M M"]
    adjacency_student: Float[Tensor, "M M"]
    teacher: Float[Tensor, "M K"]
    student: Float[Tensor, "M K"]
    teacher_low: Float[Tensor, "M _"]
    student_low: Float[Tensor, "M _"]


class Sight(NamedTuple):
    """What a step looks at: rows (None for all) and their classes, both graphs, both embeddings, the probe's logits."""

    rows: Tensor | None
    y: Tensor
    joined: Relations
    own: Relations
    student: Embedded
    teacher: Embedded
    probed: Tensor | None


@torch.no_grad()
def measured(sight: Sight) -> dict[str, Tensor]:
    """Scalars worth logging: spread of both embeddings, cosine between their classes' means, share of joined pairs."""
    found = {}
    for name, side in (("teacher", sight.teacher), ("student", sight.student)):
        found[f"gkdfd/spread_{name}"] = spread(side.graph)
        found[f"gkdfd/between_{name}"] = between(side.graph, sight.y)
    return found | {"gkdfd/edges": share(edges(sight.joined.adjacency))}
