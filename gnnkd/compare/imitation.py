"""How well a teacher's generators imitate its gradients, over windows of its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from gnnkd.compare.grid import Grid, Item, number
from gnnkd.compare.histories import History, histories, keys, window
from gnnkd.compare.sections import Cell
from gnnkd.compare.statistics import spread
from gnnkd.paired import wilcoxon

WINDOWS = {"0-50": (0, 50), "50-150": (50, 150), "last 100": (-100, None)}
"""Epochs of the teacher's training."""
KINDS = {
    "generator": "generator",
    "shuffled": "shuffled",
    "persistence": "persistence",
    "ceiling": "noise ceiling",
    "generator_raw": "generator, raw",
    "persistence_raw": "persistence, raw",
}
"""Cosines by their names in a history: of the guess, and of what it must be compared with."""


def cosines(teachers: Mapping[tuple[str, str, str], Cell]) -> Grid | None:
    """Cosines by weight and window, means over seeds; None where no teacher has any.

    Args:
        teachers: by setting, network and data set.
    """
    body = [
        (Item(dataset), Item(setting), Item(teacher), *line)
        for (setting, teacher, dataset), cell in teachers.items()
        for line in _lines(histories(cell))
    ]
    if not body:
        return None
    caption = (
        "Cosines, mean over the epochs of a window, then over seeds (the first +- standard deviation, ddof 1). "
        "generator: its guess with the target it learns; shuffled: the guess with its living channels permuted; "
        "persistence: the last target with this one; raw: with the epoch's single gradient, which the noise ceiling "
        "bounds. p: Wilcoxon's exact signed-rank test over seeds, one-sided, generator > shuffled."
    )
    head = ("data", "setting", "teacher", "weight", "epochs", *KINDS.values(), "p")
    return Grid("imitation", head, tuple(body), caption, names=5)


def _lines(found: Mapping[int, History]) -> Iterator[tuple[Item, ...]]:
    weights = dict.fromkeys(key.split("/")[1] for key in keys(found, "imitation/") if key.count("/") == 2)
    for weight, (name, (start, stop)) in product(weights, WINDOWS.items()):
        means = {
            kind: [window(history, f"imitation/{weight}/{kind}", start, stop) for history in found.values()]
            for kind in KINDS
        }
        if all(value is None for value in means["generator"]):
            continue
        pairs = zip(means["generator"], means["shuffled"], strict=True)
        ahead = [guess - other for guess, other in pairs if guess is not None and other is not None]
        cells = [_mean(values, wide=kind == "generator") for kind, values in means.items()]
        yield Item(weight), Item(name), *cells, Item(f"{wilcoxon(ahead, 'greater'):.4f}" if ahead else "")


def _mean(values: list[float | None], *, wide: bool) -> Item:
    found = spread([value for value in values if value is not None])
    if found is None:
        return Item("")
    return Item(number(found, 1, ".3f", ".3f") if wide else f"{found.mean:.3f}")
