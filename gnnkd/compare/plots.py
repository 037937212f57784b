"""The pictures of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gnnkd.compare.histories import Band, band, histories, keys
from gnnkd.compare.pictures import COLUMNS, INK, PALETTE, Panel, numbered, panelled
from gnnkd.compare.sections import TEACHER, Cell, Section
from gnnkd.curves import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy(section: Section) -> Figure:
    """Test accuracies: each seed a dot, above it the mean with its standard deviation; a panel for each data set."""
    panels = {name: _dots(section, name, names=i % COLUMNS == 0) for i, name in enumerate(section.datasets)}
    return panelled(panels, height=0.9 + 0.26 * len(section.cells))


def _dots(section: Section, dataset: str, *, names: bool) -> Panel:
    def panel(axes: Axes) -> None:
        for place, (label, cells) in enumerate(section.cells.items()):
            if dataset in cells:
                _dotted(axes, place, cells[dataset], _style(section, label))
        axes.set_yticks(range(len(section.cells)), [section.named(label) if names else "" for label in section.cells])
        axes.set_ylim(len(section.cells) - 0.4, -0.6)
        axes.set_xlabel("test accuracy (%)")
        axes.grid(alpha=0.3)

    return panel


def _dotted(axes: Axes, place: int, cell: Cell, style: Mapping[str, Any]) -> None:
    found = cell.spread("test_acc")
    if found is None:
        axes.text(0.02, place, _status(cell), transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        return
    values = [100 * value for value in cell.values("test_acc").values()]
    faint: dict[str, Any] = {"alpha": 0.4, "markersize": 3, "markeredgewidth": 0}
    axes.plot(values, [place + 0.27] * len(values), "o", color=style["color"], **faint)
    mark: dict[str, Any] = {"fmt": style["marker"], "color": style["color"], "capsize": 3, "markersize": 5.5}
    axes.errorbar(100 * found.mean, place - 0.08, xerr=100 * (found.std or 0.0), **mark)


def _status(cell: Cell) -> str:
    return next(iter(cell.reasons), "not run").partition(":")[0]


def against_parameters(section: Section) -> Figure | None:
    """Accuracy against the number of parameters; None where no cell has a number."""
    return _against(section, "parameters", _parameters)


def against_latency(section: Section) -> Figure | None:
    """Accuracy against the median milliseconds of an answer about one node, the fetch included."""
    return _against(section, "milliseconds for one node, fetch included", _latency)


def _parameters(cell: Cell) -> float | None:
    found = cell.spread("n_parameters")
    return None if found is None else found.mean


def _latency(cell: Cell) -> float | None:
    forward = cell.costs.get("latency_ms", {}).get("1")
    fetch = cell.costs.get("fetch_ms", {}).get("1")
    return None if forward is None else forward["p50"] + (fetch["p50"] if fetch else 0.0)


def _against(section: Section, what: str, x: Callable[[Cell], float | None]) -> Figure | None:
    panels, labels = {}, []
    for name in section.datasets:
        there = [(label, cells[name]) for label, cells in section.cells.items() if name in cells]
        points = [(label, x(cell), cell) for label, cell in there if x(cell) is not None and cell.finished]
        if points:
            panels[name] = _points(section, points, what)
            labels += [label for label, _, _ in points]
    if not panels:
        return None
    return panelled(panels, height=2.9, legend=_legend(section, labels, lines=False))


def _points(section: Section, points: Sequence[tuple[str, float | None, Cell]], what: str) -> Panel:
    def panel(axes: Axes) -> None:
        places = [x for _, x, _ in points if x]
        low, high = min(places), max(places)
        wide = high >= 10 * low
        if wide:
            axes.set_xscale("log")
            axes.set_xlim(low / 1.8, high * 1.8)
        else:
            axes.set_xlim(left=0, right=1.15 * high)
        for (label, _, cell), x in zip(points, _apart([x or 0.0 for _, x, _ in points], log=wide), strict=True):
            found, style = cell.spread("test_acc"), _style(section, label)
            assert found is not None
            spread = 100 * (found.std or 0.0)
            mark: dict[str, Any] = {"fmt": style["marker"], "color": style["color"], "markersize": 5, "elinewidth": 0.9}
            axes.errorbar(x, 100 * found.mean, yerr=spread, **mark)
        axes.xaxis.set_major_formatter(_counted)
        axes.set_xlabel(what)
        axes.set_ylabel("test accuracy (%)")
        axes.grid(alpha=0.3)

    return panel


def _apart(places: Sequence[float], *, log: bool) -> list[float]:
    """Where marks stand: those that would lie upon one another are put side by side, a fiftieth of the axis apart."""
    low, high = (math.log(min(places) / 1.8), math.log(max(places) * 1.8)) if log else (0.0, 1.15 * max(places))
    step, found = (high - low) / 50, list(map(math.log, places)) if log else list(places)
    order = sorted(range(len(found)), key=lambda i: found[i])
    crowds: list[list[int]] = []
    for i in order:
        if crowds and found[i] - found[crowds[-1][-1]] < step:
            crowds[-1].append(i)
        else:
            crowds.append([i])
    for crowd in crowds:
        middle = sum(found[i] for i in crowd) / len(crowd)
        for place, i in enumerate(sorted(crowd)):
            found[i] = middle + step * (place - (len(crowd) - 1) / 2)
    return [math.exp(x) for x in found] if log else found


def _counted(x: float, position: float) -> str:  # noqa: ARG001
    """A number with its thousands and millions as letters."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.4g} {letter}"
    return f"{x:.4g}"


def learning(section: Section) -> Figure | None:
    """Validation accuracy over the epochs, mean and standard deviation over seeds."""
    panels, labels = {}, []
    for name in section.datasets:
        there = [(label, cells[name]) for label, cells in section.cells.items() if name in cells]
        curves = [(label, one) for label, cell in there if (one := band(histories(cell), "val_acc")) is not None]
        if curves:
            panels[name] = _bands(
                [(one, _style(section, label)) for label, one in curves], "validation accuracy (%)", 100
            )
            labels += [label for label, _ in curves]
    if not panels:
        return None
    return panelled(panels, height=2.9, legend=_legend(section, labels, lines=True))


def imitation(cell: Cell) -> Figure | None:
    """Cosines between gradients of a teacher and what its generators guess, by weight; None where none learnt."""
    found = histories(cell)
    weights = dict.fromkeys(key.split("/")[1] for key in keys(found, "imitation/") if key.count("/") == 2)
    panels, shown = {}, []
    for weight in weights:
        curves = {kind: band(found, f"imitation/{weight}/{kind}") for kind in KINDS}
        named = [(kind, one) for kind, one in curves.items() if one is not None]
        panels[weight] = _bands([(one, _kind(kind)) for kind, one in named], "cosine", 1)
        shown += [kind for kind, _ in named]
    if not panels:
        return None
    legend = [(KINDS[kind], {**_kind(kind), "marker": ""}) for kind in dict.fromkeys(shown)]
    return panelled(panels, height=2.6, legend=legend)


def bias(cells: Mapping[str, Cell]) -> Figure | None:
    """Size of the bias beside that of the gradient, by weight, for each student that was taught with one."""
    panels: dict[str, Panel] = {}
    weights: list[str] = []
    drawn: dict[str, list[tuple[Band, str]]] = {}
    for label, cell in cells.items():
        found = histories(cell)
        for key in keys(found, "bias/"):
            one = band(found, key)
            if one is not None:
                drawn.setdefault(label, []).append((one, key.removeprefix("bias/")))
                weights.append(key.removeprefix("bias/"))
    place = {weight: i for i, weight in enumerate(dict.fromkeys(weights))}
    for label, curves in drawn.items():
        named = [(one, numbered(place[weight])) for one, weight in curves]
        panels[label] = _bands(named, "bias / gradient", 1, bottom=0.0)
    if not panels:
        return None
    return panelled(panels, height=2.6, legend=[(weight, {**numbered(i), "marker": ""}) for weight, i in place.items()])


def _bands(
    curves: Sequence[tuple[Band, Mapping[str, Any]]], what: str, scale: float, *, bottom: float | None = None
) -> Panel:
    def panel(axes: Axes) -> None:
        for one, style in curves:
            mean, low, high = ([scale * v for v in values] for values in (one.mean, one.low, one.high))
            axes.plot(one.epochs, mean, color=style["color"], linestyle=style["linestyle"], linewidth=1.3)
            axes.fill_between(one.epochs, low, high, color=style["color"], alpha=0.13, linewidth=0)
        axes.set_ylim(bottom=bottom)
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.grid(alpha=0.3)

    return panel


# -- colours -------------------------------------------------------------------------------------------------------


def _style(section: Section, label: str) -> dict[str, Any]:
    """The teacher in the colour of the text, methods in the other colours."""
    if label == TEACHER:
        return {"color": INK, "marker": "*", "linestyle": ":"}
    return numbered(section.labels.index(label), PALETTE[:-1])


def _kind(kind: str) -> dict[str, Any]:
    return numbered(list(KINDS).index(kind))


def _legend(section: Section, labels: Sequence[str], *, lines: bool) -> list[tuple[str, dict[str, Any]]]:
    order = [label for label in section.cells if label in labels]
    leave = "marker" if lines else "linestyle"
    return [(section.named(label), {**_style(section, label), leave: ""}) for label in order]
