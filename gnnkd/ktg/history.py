"""The history of a graph of networks as a picture: everybody's accuracy, and what each hears."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gnnkd.curves import COLOURS, History, Panel, draw_panels, lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(history: History, file: Path, names: Sequence[str], *, title: str, best_epoch: int | None) -> None:
    """Draw the rows of `metrics.jsonl` into a PNG file.

    Args:
        history: a row an epoch: `val_acc` of node 0 and `val_acc_<i>` of others, terms `node<i>/...`, of images also
            `train_acc` and `lr` (of others `node<i>/lr`).
        file: written whole or not at all.
        names: of the nodes, as legends call them.
        title: above the panels.
        best_epoch: of node 0, marked.
    """
    keys = list(dict.fromkeys(key for row in history for key in row))
    panels = [_accuracies(history, keys, names, best_epoch)]
    panels += [_heard(history, keys, i, name) for i, name in enumerate(names) if _terms(keys, i)]
    rates = [(f"node{i}/lr" if i else "lr", name) for i, name in enumerate(names)]
    there = [(key, name) for key, name in rates if key in keys]
    draw_panels([*panels, _rates(history, there)] if there else panels, file, title=title)


def _accuracies(history: History, keys: Sequence[str], names: Sequence[str], best_epoch: int | None) -> Panel:
    """Of validation; where nothing validates, of training, if there is one."""
    wanted = [(f"val_acc_{i}" if i else "val_acc", name) for i, name in enumerate(names)]
    words = "validation accuracy (%)"
    if "val_acc" not in keys:
        wanted = [(f"node{i}/train_acc" if i else "train_acc", name) for i, name in enumerate(names)]
        words = "training accuracy (%)"
    there = [(key, name) for key, name in wanted if key in keys]
    percent = [{"epoch": row["epoch"]} | {key: 100 * row[key] for key, _ in there if key in row} for row in history]

    def panel(axes: Axes) -> None:
        if there:
            lines(axes, percent, there)
        axes.set_ylabel(words)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=COLOURS[-1], linewidth=1, linestyle=":")
            axes.set_title(f"node 0 kept: epoch {best_epoch}", fontsize=9, loc="right")

    return panel


def _terms(keys: Sequence[str], node: int) -> list[str]:
    """The loss terms of a node."""
    start = f"node{node}/"
    return [key for key in keys if key.startswith(start) and key not in (f"{start}lr", f"{start}train_acc")]


def _heard(history: History, keys: Sequence[str], node: int, name: str) -> Panel:
    terms = [(key, key.removeprefix(f"node{node}/").replace("/", ": ")) for key in _terms(keys, node)]

    def panel(axes: Axes) -> None:
        lines(axes, history, terms)
        axes.set_ylabel(f"loss terms of {name}, gated")

    return panel


def _rates(history: History, there: Sequence[tuple[str, str]]) -> Panel:
    def panel(axes: Axes) -> None:
        lines(axes, history, there)
        axes.set_yscale("log")
        axes.set_ylabel("learning rate")

    return panel
