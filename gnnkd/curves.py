"""One run's history as a picture: validation accuracy, loss terms, and what the method measures of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd.train.checkpoint import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[Mapping[str, float]]
Panel = Callable[["Axes"], None]

# Okabe and Ito's palette, told apart with any colour vision; line styles repeat what the colours say.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
COLUMNS = 3
KINDS = {
    "generator": "guess",
    "persistence": "persistence",
    "shuffled": "shuffled",
    "ceiling": "ceiling*",
}
"""Imitation cosines that are drawn, where a history has them. *The ceiling of one gradient, not of an average."""


def draw(history: History, file: Path, *, title: str, best_epoch: int | None = None) -> None:
    """Draw the rows of `metrics.jsonl` into a PNG file.

    Args:
        history: a row an epoch: `epoch`, `val_acc`, of images also `train_acc`, `lr` and perhaps `test_acc`, loss terms
            by bare names, `bias/<weight>`, `imitation/<weight>/<kind>`.
        file: written whole or not at all.
        title: above the panels.
        best_epoch: the epoch whose weights are kept, marked.
    """
    draw_panels(_panels(history, best_epoch), file, title=title)


def draw_panels(panels: Sequence[Panel], file: Path, *, title: str) -> None:
    """Draw panels over the epochs, side by side, into a PNG file, written whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = math.ceil(len(panels) / COLUMNS)
    columns = min(len(panels), COLUMNS)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows + 0.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    for position, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, position)
        panel(axes)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    # No date and no version inside: equal histories give equal bytes.
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_bytes(file, picture.getvalue())


def _panels(history: History, best_epoch: int | None) -> list[Panel]:
    keys = list(dict.fromkeys(key for row in history for key in row))
    terms = [key for key in keys if "/" not in key and key not in ("epoch", "lr") and not key.endswith("_acc")]
    biases = [key for key in keys if key.startswith("bias/")]
    weights = list(
        dict.fromkeys(key.split("/")[1] for key in keys if key.startswith("imitation/") and key.count("/") == 2)
    )
    panels = [_accuracy(history, best_epoch)]
    if terms:
        panels.append(_losses(history, terms))
    if "lr" in keys:
        panels.append(lambda axes: _rate(axes, history))
    if biases:
        panels.append(_biases(history, biases))
    return panels + [_imitation(history, weight, keys) for weight in weights]


def series(history: History, key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a key, where they are finite."""
    points = [(row["epoch"], row[key]) for row in history if key in row and math.isfinite(row[key])]
    return [epoch for epoch, _ in points], [value for _, value in points]


def lines(axes: Axes, history: History, named: Iterable[tuple[str, str]]) -> None:
    """A line for each key, by its name in the legend."""
    for i, (key, name) in enumerate(named):
        epochs, values = series(history, key)
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
        axes.plot(epochs, values, linewidth=1.4, label=name, **style)
    # Above the axes, where no line can run through it.
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)


def _accuracy(history: History, best_epoch: int | None) -> Panel:
    """Accuracies: validation alone where a history has nothing else."""
    names = {"val_acc": "validation", "train_acc": "training", "test_acc": "test (chooses nothing)"}
    there = [(key, words) for key, words in names.items() if any(key in row for row in history)]
    percent = [{key: 100 * value if key in names else value for key, value in row.items()} for row in history]

    def panel(axes: Axes) -> None:
        if len(there) > 1:
            lines(axes, percent, there)
        else:
            axes.plot(*series(percent, "val_acc"), color=COLOURS[0], linewidth=1.4)
        axes.set_ylabel("accuracy (%)" if len(there) > 1 else "validation accuracy (%)")
        if best_epoch is not None:
            axes.axvline(best_epoch, color=COLOURS[-1], linewidth=1, linestyle=":")
            axes.set_title(f"kept: epoch {best_epoch}", fontsize=9, loc="right" if len(there) > 1 else "center")

    return panel


def _rate(axes: Axes, history: History) -> None:
    axes.plot(*series(history, "lr"), color=COLOURS[0], linewidth=1.4, drawstyle="steps-post")
    axes.set_yscale("log")
    axes.set_ylabel("learning rate")


def _losses(history: History, terms: list[str]) -> Panel:
    """Loss terms, on a logarithmic axis unless one of them reaches zero."""

    def panel(axes: Axes) -> None:
        lines(axes, history, [(term, term) for term in terms])
        values = [value for term in terms for value in series(history, term)[1]]
        if min(values, default=0) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            # Powers of ten alone would leave a short axis without a number.
            axes.yaxis.set_minor_formatter("{x:g}" if max(values) < 30 * min(values) else "")
        axes.set_ylabel("loss term" if "lr" in history[0] else "loss term (nats)")

    return panel


def _biases(history: History, keys: list[str]) -> Panel:
    def panel(axes: Axes) -> None:
        lines(axes, history, [(key, key.removeprefix("bias/")) for key in keys])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("size of bias / size of gradient")

    return panel


def _imitation(history: History, weight: str, keys: list[str]) -> Panel:
    def panel(axes: Axes) -> None:
        named = [(f"imitation/{weight}/{kind}", words) for kind, words in KINDS.items()]
        lines(axes, history, [(key, words) for key, words in named if key in keys])
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set_ylim(top=1.02)
        axes.set_ylabel(f"imitation (cosine; *: one gradient)\n{weight}")

    return panel
