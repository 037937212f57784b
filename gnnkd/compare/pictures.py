"""Panels side by side, as SVG that stands inside a page.

Text and axes take the colour of the text around them, so they can be read on light and on dark paper. Equal panels give
equal bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from gnnkd.curves import COLOURS
from gnnkd.images.drawings import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#0a0b0c"
"""Stands for the colour of the text around a picture."""
PALETTE = (*COLOURS[:6], INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
COLUMNS = 3
"""Panels side by side."""
_STYLE = {
    "svg.hashsalt": "gnnkd",
    "svg.fonttype": "path",
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "grid.color": "#808080",
    "legend.frameon": False,
}
Panel = Callable[["Axes"], None]


def numbered(i: int, colours: Sequence[str] = PALETTE) -> dict[str, Any]:
    """A colour, with a marker and a line that repeat what it says; they go with another colour in the next round."""
    at = i % len(colours) + i // len(colours)
    return {
        "color": colours[i % len(colours)],
        "marker": MARKERS[at % len(MARKERS)],
        "linestyle": LINES[at % len(LINES)],
    }


def panelled(
    panels: Mapping[str, Panel], *, height: float, legend: Sequence[tuple[str, dict[str, Any]]] = ()
) -> Figure:
    """A figure of panels by title.

    Args:
        panels: at least one.
        height: of a panel, in inches.
        legend: names and styles, below all panels.
    """
    from matplotlib import rc_context
    from matplotlib.lines import Line2D

    with rc_context(_STYLE):
        columns = min(COLUMNS, len(panels))
        rows = math.ceil(len(panels) / columns)
        below = 0.25 * math.ceil(len(legend) / (2 * columns)) + 0.1 if legend else 0.0
        figure = blank(1.2 + 3.5 * columns, rows * height + 0.2 + below)
        figure.patch.set_alpha(0)
        for position, (name, panel) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(rows, columns, position)
            axes.patch.set_alpha(0)
            panel(axes)
            axes.set_title(name, fontsize=10)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        if legend:
            handles = [Line2D([], [], markersize=6, linewidth=1.4, label=name, **style) for name, style in legend]
            figure.legend(handles=handles, loc="outside lower center", ncols=2 * columns, fontsize=8)
        return figure


def svg(figure: Figure, name: str) -> str:
    """The picture for the inside of an HTML page; `name` is a prefix that makes its ids differ from others'."""
    from matplotlib import rc_context

    picture = BytesIO()
    with rc_context(_STYLE):
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    text = picture.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace(INK, "currentColor").strip()
