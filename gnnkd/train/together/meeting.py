"""What the methods of edges hear before the first step: a lesson for each pair of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gnnkd.distillers.base import Lesson, Norm
from gnnkd.train.together.incoming import Incoming
from gnnkd.types import Output


def introduce(
    incoming: Incoming, lesson: Lesson, shown: Sequence[Output], norms: Sequence[tuple[Norm | None, ...]]
) -> None:
    """Prepare the methods of all edges of one node.

    Args:
        lesson: of the node itself, without a teacher.
        shown: what each node says about a few rows, in eval mode, without gradients.
        norms: of each node's batch norms, as a lesson has those of its teacher.
    """
    lessons = []
    for edge in incoming.edges:
        j = edge.source
        lessons.append(lesson if j is None else replace(lesson, teacher=shown[j], norms=norms[j]))
    incoming.meet(lessons)
