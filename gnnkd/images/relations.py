"""Pictures of what GK-DFD sees of a batch: its graph, and both networks' embeddings before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from gnnkd.distillers.gkdfd import Seen
from gnnkd.images.drawings import NAMED, blank, colours
from gnnkd.images.layout import Classes, Points, Weights, first_two, padded, placed, strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_EDGES = 400
"""Edges of a picture, the strongest ones: more hide each other."""
MOST_PIXELS = 64
"""Images of more pixels a side are drawn as dots."""
SIDE = 0.72
"""Side of an image, times the root of their number, where all have a square of 2 x 2; nodes are `layout.ROOM` apart."""
BLACK = (0.0, 0.0, 0.0)


def draw_graph(seen: Seen, pixels: UInt8[np.ndarray, "B K S S"], classes: Sequence[object], title: str) -> Figure:
    """The teacher's graph of a batch and, where it has one of its own, the student's beside it.

    Nodes are the images, in the colours of their classes; edges are as wide as their weights are large, coloured within
    a class and black between two.

    Args:
        pixels: of the batch that `seen.rows` are places in.
        classes: names of all classes.
    """
    graphs = {"teacher's graph": _array(seen.adjacency)}
    own = _array(seen.adjacency_student)
    if np.array_equal(own, graphs["teacher's graph"]):
        graphs = {"the teacher's graph, which both networks share": own}
    else:
        graphs["student's graph"] = own
    y, images = _array(seen.y), pixels[_array(seen.rows)]
    figure = blank(7.4 * len(graphs) + 0.8, 8.1)
    figure.suptitle(title, fontsize=11)
    widest = max(float(np.triu(weights, 1).max()) for weights in graphs.values())
    for position, (name, weights) in enumerate(graphs.items(), start=1):
        axes = figure.add_subplot(1, len(graphs), position)
        edges, there = strongest(weights, MOST_EDGES)
        shown = f"the strongest {MOST_EDGES} of {there:,}" if there > MOST_EDGES else f"{there:,}"
        axes.set_title(f"{name}: {shown} edges, weights up to {weights[tuple(edges)].max(initial=0):.2f}", fontsize=9)
        at = placed(weights, y)
        _draw_edges(axes, at, edges, weights / max(widest, 1e-9), y, classes)
        _draw_nodes(axes, at, images, y, classes)
        _bare(axes)
    _legend(figure, y, classes)
    return figure


def _draw_edges(
    axes: Axes, at: Points, edges: Int[np.ndarray, "2 E"], share: Weights, y: Classes, classes: Sequence[object]
) -> None:
    from matplotlib.collections import LineCollection

    i, j = edges
    w = np.maximum(share, share.T)[i, j]
    within = y[i] == y[j]
    drawn = np.where(within[:, None], _of_class(y, classes)[i, :3], np.array(BLACK))
    drawn = np.concatenate([drawn, (0.15 + 0.4 * w**2)[:, None]], 1)
    axes.add_collection(LineCollection([*np.stack([at[i], at[j]], 1)], linewidths=0.4 + 2 * w**2, colors=drawn))


def _draw_nodes(
    axes: Axes, at: Points, images: UInt8[np.ndarray, "N K S S"], y: Classes, classes: Sequence[object]
) -> None:
    of_class = _of_class(y, classes)
    if images.shape[-1] > MOST_PIXELS:
        axes.scatter(at[:, 0], at[:, 1], c=of_class, s=70, edgecolors="white", linewidths=0.8, zorder=3)
        return
    half = SIDE / 2 / np.sqrt(len(y))
    for (x, up), image, colour in zip(at, images, of_class, strict=True):
        axes.imshow(
            _thumbnail(image, colour[:3]), extent=(x - half, x + half, up - half, up + half), zorder=3,
            interpolation="nearest",
        )  # fmt: skip
        axes.add_patch(_frame(x, up, half, colour))


def _thumbnail(image: UInt8[np.ndarray, "K S S"], colour: Float[np.ndarray, "3"]) -> Float[np.ndarray, "S S 3"]:
    """A grey image in shades of its class on white; another as it is."""
    values = np.moveaxis(image, 0, 2) / 255
    return values if image.shape[0] == 3 else 1 - values[:, :, :1] * (1 - colour)


def _frame(x: float, up: float, half: float, colour: Float[np.ndarray, "4"]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - half, up - half), 2 * half, 2 * half, fill=False, edgecolor=colour, linewidth=1.6, zorder=4)


def draw_spaces(before: Seen, after: Seen, classes: Sequence[object], title: str) -> Figure:
    """Both networks' embeddings of a batch: columns before and after training, rows two spaces.

    The upper row is the graph embedding along the first two principal axes of both networks' rows together, the lower
    one the first two directions of the discriminative space. A thin line joins what is one image.
    """
    figure = blank(10.6, 9.4)
    figure.suptitle(title, fontsize=11)
    y = _array(before.y)
    for column, (when, seen) in enumerate((("before training", before), ("after the last epoch", after))):
        both = _array(seen.teacher), _array(seen.student)
        low = _array(seen.teacher_low), _array(seen.student_low)
        spaces = {
            "graph embedding, principal axes": np.split(first_two(np.concatenate(both)), 2),
            "discriminative space, first directions": [padded(rows) for rows in low],
        }
        for row, ((name, points), rows) in enumerate(zip(spaces.items(), (both, low), strict=True)):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            apart = float(np.linalg.norm(rows[0] - rows[1], axis=1).mean())
            axes.set_title(f"{when}: {name}\nmean distance of teacher and student {apart:.3g}", fontsize=9)
            _draw_pairs(axes, points[0], points[1], y, classes)
    _legend(figure, y, classes, {"teacher": "o", "student": "x"})
    return figure


def _draw_pairs(axes: Axes, teacher: Points, student: Points, y: Classes, classes: Sequence[object]) -> None:
    from matplotlib.collections import LineCollection

    of_class = _of_class(y, classes)
    axes.add_collection(LineCollection([*np.stack([teacher, student], 1)], linewidths=0.5, colors="0.75", zorder=1))
    axes.scatter(teacher[:, 0], teacher[:, 1], c=of_class, s=34, marker="o", linewidths=0, alpha=0.75, zorder=2)
    axes.scatter(student[:, 0], student[:, 1], c=of_class, s=30, marker="x", linewidths=1.4, zorder=3)
    axes.set_aspect("equal", "datalim")
    axes.tick_params(labelsize=7)
    axes.spines[:].set_color("0.7")


def _array(x: Any) -> Any:
    return x.detach().cpu().numpy()


def _of_class(y: Classes, classes: Sequence[object]) -> Float[np.ndarray, "N 4"]:
    """The colour of each row: that of its class among all, or among those in the batch where all are too many."""
    if len(classes) <= NAMED:
        kinds, kind = np.arange(len(classes)), y
    else:
        kinds, kind = np.unique(y, return_inverse=True)
    found: Float[np.ndarray, "N 4"] = colours(len(kinds))[kind]
    return found


def _legend(figure: Figure, y: Classes, classes: Sequence[object], markers: dict[str, str] | None = None) -> None:
    from matplotlib.lines import Line2D

    def entry(marker: str, colour: Any, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, label=label, markersize=6)

    found = [entry(marker, "0.3", name) for name, marker in (markers or {}).items()]
    kinds, first = np.unique(y, return_index=True)
    if len(kinds) <= NAMED:
        of_class = _of_class(y, classes)[first]
        found += [entry("o", c, str(classes[k])) for k, c in zip(kinds, of_class, strict=True)]
    if found:
        figure.legend(handles=found, loc="outside right center", fontsize=9, frameon=False)


def _bare(axes: Axes) -> None:
    axes.set_xlim(-1.12, 1.12)
    axes.set_ylim(-1.12, 1.12)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
