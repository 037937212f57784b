"""The numbers of `bench_scale.py` as a table and as plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from printed import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

PANELS = {
    "Propagation, A H": {"sum-64": "64 columns", "sum-256": "256 columns"},
    "Full batch and layer by layer": {"gcn-step": "GCN training step", "layerwise": "SAGE inference, all nodes"},
    "Epochs of batches": {"sage-epoch": "SAGE, sampled", "glnn-epoch": "MLP, GLNN", "dgd-epoch": "MLP, DGD"},
}
COLOURS = {
    "sum-64": "#4477aa",
    "sum-256": "#ee6677",
    "gcn-step": "#228833",
    "layerwise": "#aa3377",
    "sage-epoch": "#66ccee",
    "glnn-epoch": "#bb8800",
    "dgd-epoch": "#555555",
}


def bandwidth(records: Iterable[Record], *, processor: bool) -> float:
    """Bytes a second of a streaming copy: the median over the points, each of which measured it."""
    key = f"copied_bytes_per_{'processor_' if processor else ''}second"
    return statistics.median([r[key] for r in records if key in r] or [math.nan])


def markdown(records: Sequence[Record]) -> str:
    """A row for each point, in the order of works and edges."""
    order, rows = list(COLOURS), []
    clock, processors = (bandwidth(records, processor=p) for p in (False, True))
    for r in sorted(records, key=lambda r: (order.index(r["work"]), r["edges"])):
        start = [r["work"], f"{r['edges']:,}", f"{r['nodes']:,}" if "nodes" in r else ""]
        if "seconds" not in r:
            rows.append([*start, r.get("skipped") or f"failed: {r['failed']}", "", "", "", "", ""])
            continue
        moved = r["floor_bytes"]
        rows.append(
            [
                *start,
                f"{r['seconds']:.3g}",
                f"{r['processor_seconds']:.3g}",
                f"{1e9 * r['seconds'] / r['edges']:.3g}",
                f"{1e9 * r['processor_seconds'] / r['edges']:.3g}",
                f"{r['seconds'] * clock / moved:.2g}, {r['processor_seconds'] * processors / moved:.2g}"
                if moved
                else "",
                f"{r['peak_bytes'] / 1e9:.2f}",
            ]
        )
    head = ["work", "edges", "nodes", "seconds", "of the processors", "ns an edge", "of the processors"]
    return table([*head, "times the floor: clock, processors", "peak GB"], rows)


def draw(records: Iterable[Record], *, processor: bool) -> dict[str, Figure]:
    """Time an edge with its floors, and peak memory, by name of the picture."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    mpl.use("agg")
    done = [r for r in records if "seconds" in r]
    first = Figure(figsize=(12, 4.4), layout="constrained")
    axes = first.subplots(1, len(PANELS), sharex=True, sharey=True)
    for ax, (title, works) in zip(axes, PANELS.items(), strict=True):
        _panel(ax, title, works, done, processor)
    axes[0].set_ylabel(f"{'processor time' if processor else 'time'} for each directed edge, ns")
    _widen(axes[0])
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, 2.5 * high)  # room for the legends
    second = Figure(figsize=(7.2, 4.6), layout="constrained")
    ax = second.subplots()
    for works in PANELS.values():
        for work, label in works.items():
            of = _of(work, done)
            _line(ax, [r["edges"] for r in of], [r["peak_bytes"] / 1e9 for r in of], work, _full(work, label))
    before = [r["peak_before_bytes"] / 1e9 for r in done]
    if before:
        ax.axhline(max(before), color="0.5", linewidth=1, linestyle=":", label="before the graph is read")
    _dress(ax, "Peak memory of a process", "directed edges")
    _widen(ax)
    ax.set_ylabel("peak resident memory, GB")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return {"scale_time": first, "scale_memory": second}


def _panel(ax: Axes, title: str, works: Mapping[str, str], done: list[Record], processor: bool) -> None:
    kind, copied = "processor_seconds" if processor else "seconds", bandwidth(done, processor=processor)
    for work, label in works.items():
        of = _of(work, done)
        edges = [r["edges"] for r in of]
        _line(ax, edges, [1e9 * r[kind] / r["edges"] for r in of], work, label)
        floors = [(r["edges"], 1e9 * r["floor_bytes"] / copied / r["edges"]) for r in of if r["floor_bytes"]]
        if floors:
            ax.plot(*zip(*floors, strict=True), color=COLOURS[work], linestyle="--", linewidth=1)
    _dress(ax, title, "directed edges")
    if any(r["floor_bytes"] for work in works for r in _of(work, done)):
        ax.plot([], [], color="0.4", linestyle="--", linewidth=1, label="bandwidth floors")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _of(work: str, done: list[Record]) -> list[Record]:
    return sorted((r for r in done if r["work"] == work), key=lambda r: r["edges"])


def _full(work: str, label: str) -> str:
    return f"A H, {label}" if work.startswith("sum") else label


def _line(ax: Axes, x: list[float], y: list[float], work: str, label: str) -> None:
    if x:
        ax.plot(x, y, color=COLOURS[work], marker="o", markersize=4, linewidth=1.6, label=label)


def _widen(ax: Axes) -> None:
    """Limits that can be drawn: of equal values, rounding may leave a range of their last bits."""
    for limits, limit in ((ax.get_xlim, ax.set_xlim), (ax.get_ylim, ax.set_ylim)):
        low, high = limits()
        if high < 1.5 * low:
            limit(low / 1.5, 1.5 * high)


def _dress(ax: Axes, title: str, across: str) -> None:
    ax.set(xscale="log", yscale="log", xlabel=across)
    ax.set_title(title, fontsize=10, loc="left")
    ax.grid(visible=True, which="major", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
