"""A graph of networks as a picture: nodes with their networks and accuracies, edges with their gates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd.curves import COLOURS
from gnnkd.images.drawings import blank
from gnnkd.ktg.spec import EdgeSpec, Spec
from gnnkd.ktg.written import KL
from gnnkd.train.checkpoint import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse

Point = tuple[float, float]
STYLES: dict[str, tuple[str, str]] = {
    "through": (COLOURS[0], "-"),
    "positive": (COLOURS[2], "-"),
    "negative": (COLOURS[1], "--"),
    "correct": (COLOURS[3], "-."),
}
"""Colour and line of a gate; lines repeat what the colours say."""
WIDTH, HEIGHT = 1.7, 0.9
"""Of a node, in the units of the picture."""
MARGIN, SIDE = 1.6, 2.2
"""Above and beside the middle of an outer node, for its loop."""
INCHES = 0.9
"""Of a unit."""
BEND = 0.2
"""How far an edge bends to its left, as a share of its length: the two directions of a pair lie side by side."""
ALONG = 0.6
"""Where on an edge its name stands, as a share of the way from its source; past the middle, so that those of a pair do
not lie side by side."""
WRAPPED = 14
"""Letters that fit beside a number in a node."""


def draw(spec: Spec, *, title: str, accuracies: Sequence[float | None] = ()) -> Figure:
    """The graph, node 0 on top and the others clockwise; edges that are cut are not drawn.

    An arrow goes from who is heard to who hears; its name is its gate, and its method where that is not `kl`. Dotted
    borders are of frozen nodes.

    Args:
        spec: what is drawn.
        title: above the graph.
        accuracies: of each node on the test set, in [0, 1]; none, or None for a node, leaves it out.
    """
    n = len(spec.nodes)
    radius = 0.0 if n == 1 else max(1.9, 0.62 * n)
    places = [_place(i, n, radius) for i in range(n)]
    sides, low, high = max(x for x, _ in places) + SIDE, min(y for _, y in places), max(y for _, y in places)
    below = HEIGHT if n <= 2 else MARGIN - low
    figure = blank(INCHES * 2 * sides, INCHES * (high + MARGIN + below) + 0.4)
    figure.suptitle(title, fontsize=10)
    axes = figure.add_subplot()
    bodies = [_node(axes, spec, i, places[i], accuracies) for i in range(n)]
    for i, j, gate in spec.links():
        name = _name(spec, i, j, gate)
        if i == j:
            _loop(axes, places[i], _outwards(places[i], n), gate, name)
        else:
            _arrow(axes, places, bodies, (i, j), gate, name)
    axes.set_xlim(-sides, sides)
    axes.set_ylim(-below, high + MARGIN)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def write(figure: Figure, svg: Path, png: Path) -> None:
    """Write both files, each whole or not at all.

    Raises:
        UserError: one cannot be written.
    """
    from matplotlib import rc_context

    # No date, no version and no random names inside: equal graphs give equal bytes.
    for file, kind, meta in ((svg, "svg", {"Date": None, "Creator": None}), (png, "png", {"Software": None})):
        picture = BytesIO()
        with rc_context({"svg.hashsalt": "gnnkd"}):
            figure.savefig(picture, format=kind, metadata=meta)
        write_bytes(file, picture.getvalue())


def _place(i: int, n: int, radius: float) -> Point:
    if n == 2:
        return (-radius if i == 0 else radius, 0.0)
    angle = math.pi / 2 - 2 * math.pi * i / n
    return (radius * math.cos(angle), radius * math.sin(angle))


def _outwards(place: Point, n: int) -> float:
    """The direction of a node's loop, in radians: away from the others."""
    return math.pi / 2 if n <= 2 else math.atan2(place[1], place[0])


def _name(spec: Spec, i: int, j: int, gate: str) -> str:
    edge = spec.edges.get((i, j), EdgeSpec())
    method = "labels" if i == j else edge.method or spec.loss
    named = gate if method == KL else f"{method}: {gate}"
    return named if edge.factor == 1 else f"{named} x {edge.factor:g}"


def _node(axes: Axes, spec: Spec, i: int, place: Point, accuracies: Sequence[float | None]) -> Ellipse:
    from matplotlib.patches import Ellipse

    frozen, found = spec.frozen(i), accuracies[i] if i < len(accuracies) else None
    body = Ellipse(
        place,
        WIDTH,
        HEIGHT,
        facecolor="#FFF3C4" if i == 0 else "#EEEEEE" if frozen else "white",
        edgecolor="black",
        linewidth=1.8 if i == 0 else 1.1,
        linestyle=":" if frozen else "-",
        zorder=2,
    )
    axes.add_patch(body)
    model = spec.nodes[i].model
    rows = [f"{i}: {model}" if len(model) <= WRAPPED else f"{i}:\n{model}"]
    rows += [f"test {found:.2%}"] if found is not None else []
    rows += ["frozen"] if frozen else []
    axes.text(*place, "\n".join(rows), ha="center", va="center", fontsize=9, zorder=4, linespacing=1.25)
    return body


def _drawn(gate: str) -> dict[str, Any]:
    colour, line = STYLES[gate]
    return {
        "arrowstyle": "-|>",
        "mutation_scale": 12,
        "color": colour,
        "linestyle": line,
        "linewidth": 1.4,
        "zorder": 1,
    }


def _say(axes: Axes, place: Point, name: str, gate: str) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
    axes.text(*place, name, ha="center", va="center", fontsize=8.5, color=STYLES[gate][0], bbox=box, zorder=3)


def _arrow(
    axes: Axes, places: Sequence[Point], bodies: Sequence[Ellipse], ends: tuple[int, int], gate: str, name: str
) -> None:
    from matplotlib.patches import FancyArrowPatch

    i, j = ends
    (x0, y0), (x1, y1) = places[j], places[i]
    style = f"arc3,rad={-BEND}"
    arrow = FancyArrowPatch(
        (x0, y0),
        (x1, y1),
        connectionstyle=style,
        patchA=bodies[j],
        patchB=bodies[i],
        shrinkA=1,
        shrinkB=1,
        **_drawn(gate),
    )
    axes.add_patch(arrow)
    # The curve of arc3: quadratic, its middle control point beside the middle of the line.
    middle = ((x0 + x1) / 2 - BEND * (y1 - y0), (y0 + y1) / 2 + BEND * (x1 - x0))
    t, s = ALONG, 1 - ALONG
    x = s * s * x0 + 2 * s * t * middle[0] + t * t * x1
    y = s * s * y0 + 2 * s * t * middle[1] + t * t * y1
    _say(axes, (x, y), name, gate)


def _loop(axes: Axes, place: Point, outwards: float, gate: str, name: str) -> None:
    """An arrow from a node to itself, on the side where no other node is."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    def at(angle: float, times: float) -> Point:
        return (place[0] + times * WIDTH / 2 * math.cos(angle), place[1] + times * HEIGHT / 2 * math.sin(angle))

    # Wide enough that the arrow does not hide under its own name, on the flat sides as on the narrow ones.
    opening = 0.42
    far = 1.0 + 1.25 / math.hypot(WIDTH / 2 * math.cos(outwards), HEIGHT / 2 * math.sin(outwards))
    points = [
        at(outwards + opening, 1.0),
        at(outwards + 0.6, far),
        at(outwards - 0.6, far),
        at(outwards - opening, 1.0),
    ]
    curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
    axes.add_patch(FancyArrowPatch(path=curve, shrinkA=0, shrinkB=0, **_drawn(gate)))
    ends = [0.125 * (points[0][k] + points[3][k]) + 0.375 * (points[1][k] + points[2][k]) for k in range(2)]
    _say(axes, (ends[0], ends[1]), name, gate)
