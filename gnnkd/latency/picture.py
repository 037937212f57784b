"""Milliseconds against the number of nodes asked about, both on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gnnkd.compare.latency import ALL
from gnnkd.curves import COLOURS
from gnnkd.images.drawings import blank
from gnnkd.latency.contenders import STUDENT, TEACHER
from gnnkd.latency.rows import MEASURED, Row
from gnnkd.latency.writing import ms, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT = "#222222", "#8a8f98"
_STYLES = {
    (TEACHER, "eager"): (COLOURS[1], "o"),
    (STUDENT, "eager"): (COLOURS[0], "s"),
    (STUDENT, "compiled"): (COLOURS[2], "D"),
    (STUDENT, "onnx"): (COLOURS[3], "^"),
}
_BESIDE = 0.008
"""Of the width of the picture, between the marks of two lines."""
_SAID = {"eager": "as it is", "compiled": "compiled", "onnx": "ONNX Runtime"}


def picture(report: Mapping[str, Any]) -> Figure:
    """Medians as lines, strokes up to the 95th percentile; of the teacher also the part that is its fetch."""
    from matplotlib import rc_context

    with rc_context({"font.size": 9.5, "axes.edgecolor": _FAINT, "xtick.color": _INK, "ytick.color": _INK}):
        figure = blank(8.6, 4.9)
        axes = figure.add_subplot()
        rows = [row for row in report["rows"] if row["status"] == MEASURED]
        places = _places(report)
        ends = []
        for at, ((side, engine), (colour, marker)) in enumerate(_STYLES.items()):
            mine = [row for row in rows if (row["side"], row["engine"]) == (side, engine)]
            if mine:
                _line(axes, mine, places, colour, marker, at)
                name = f"{side}, {_SAID[engine]}" if side == STUDENT else f"{side}, {report[side]['model']}"
                ends.append((mine[-1], name, colour))
        _fetches(axes, [row for row in rows if row["side"] == TEACHER], places)
        _frame(axes, report, places)
        _named(axes, ends, places)
        if not rows:
            axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", color=_FAINT)
        return figure


def _places(report: Mapping[str, Any]) -> dict[int | str, int]:
    """Where each size stands: at its number of nodes, all at that of the graph's; larger ones nowhere."""
    sizes = {size: report["nodes"] if size == ALL else size for size in report["sizes"]}
    return {size: place for size, place in sizes.items() if place <= report["nodes"]} or {ALL: report["nodes"]}


def _line(axes: Axes, mine: list[Row], places: Mapping[int | str, int], colour: str, marker: str, at: int) -> None:
    mine.sort(key=lambda row: places[row["size"]])
    middle, late = ([row["total_ms"][part] for row in mine] for part in ("p50", "p95"))
    # A little beside one another, or strokes would cover each other.
    x = [places[row["size"]] * _span(places) ** (_BESIDE * (at - 1.5)) for row in mine]
    axes.vlines(x, middle, late, color=colour, alpha=0.35, linewidth=2.2, zorder=2)
    axes.plot(x, middle, color=colour, marker=marker, markersize=6, linewidth=1.8, markeredgecolor="white", zorder=3)
    if mine[0]["side"] == TEACHER:
        for place, low, high in zip(x[:-1], middle, late, strict=False):  # the last one's is beside its name
            axes.annotate(
                f"{ms(low)} ms",
                (place, high),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                color=colour,
                fontsize=8.5,
                fontweight="bold",
            )


def _fetches(axes: Axes, taught: Sequence[Row], places: Mapping[int | str, int]) -> None:
    """What of the teacher's answers is the fetch, where that is known of two sizes or more."""
    there = sorted((places[row["size"]], row["fetch_ms"]["p50"]) for row in taught if row["fetch_ms"])
    if len(there) > 1:  # one dot alone would hide among the lines of the student
        x, y = zip(*there, strict=True)
        colour = _STYLES[TEACHER, "eager"][0]
        axes.plot(x, y, color=colour, linestyle=(0, (1, 1.6)), marker=".", markersize=4, linewidth=1.4, zorder=2)
        axes.annotate(
            "of it the fetch",
            (x[-1], y[-1]),
            xytext=(7, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
            style="italic",
            color=colour,
        )


def _frame(axes: Axes, report: Mapping[str, Any], places: Mapping[int | str, int]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(places.values()), [_tick(size, report["nodes"]) for size in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.3, high * 1.9)
    span = _span(places)
    axes.set_xlim(min(places.values()) / span**0.07, max(places.values()) * span**0.3)
    axes.set_xlabel("nodes asked about at once", color=_INK)
    axes.set_ylabel("milliseconds of an answer", color=_INK)
    axes.set_title(title(report), loc="left", fontsize=11, fontweight="bold", color=_INK, pad=24)
    said = f"median of up to {report['repeats']} answers, strokes up to the 95th percentile; {report['device']}"
    axes.text(0, 1.025, said, transform=axes.transAxes, fontsize=8.5, color=_FAINT)
    axes.grid(axis="y", which="major", alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def _tick(size: int | str, nodes: int) -> str:
    return f"all\n({nodes:,})" if size == ALL else f"{size:,}"


def _named(axes: Axes, ends: Sequence[tuple[Row, str, str]], places: Mapping[int | str, int]) -> None:
    """Names to the right of the lines, moved apart where they would lie on one another."""
    ends = sorted(ends, key=lambda end: end[0]["total_ms"]["p50"])
    low, high = (math.log10(value) for value in axes.get_ylim())
    heights = _apart([math.log10(row["total_ms"]["p50"]) for row, _, _ in ends], 0.1 * (high - low), high)
    x = max(places.values()) * _span(places) ** 0.04
    for (row, name, colour), height in zip(ends, heights, strict=True):
        said = f"{name}\n{ms(row['total_ms']['p50'])} ms"
        axes.text(x, 10**height, said, color=colour, fontsize=8.8, va="center", linespacing=1.15)


def _apart(wanted: Sequence[float], gap: float, top: float) -> list[float]:
    """Ascending heights, at least `gap` from one another and at most `top`, as a whole where they want to be."""
    found: list[float] = []
    for height in wanted:
        found.append(height if not found else max(height, found[-1] + gap))
    shift = sum(a - b for a, b in zip(found, wanted, strict=True)) / max(1, len(found))
    shift = max(shift, found[-1] - top) if found else 0.0
    return [height - shift for height in found]


def _span(places: Mapping[int | str, int]) -> float:
    """The largest number of nodes by the smallest; ten where they are one."""
    least, most = min(places.values()), max(places.values())
    return most / least if most > least else 10.0
