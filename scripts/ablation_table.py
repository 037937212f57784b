"""The table of an ablation of GK-DFD: what its metric, its class-aware edges and its two terms are each worth.

    python scripts/ablation_table.py runs/ablation
    python scripts/ablation_table.py runs/ablation --dataset cifar100 --against kd kd@balanced

Runs are those of scripts/ablate_gkdfd.sh: 18 cells, `gkdfd@<metric>-<classes>-<terms>`. The first table has a line for
each cell, with differences from other students paired by seed; its columns `spread` and `between` are the student's
`gkdfd/spread_student` (0 if it collapsed) and `gkdfd/between_student` (1 then) of the last epoch, mean over seeds. The
second table has what a choice gains over another: seed by seed the mean over all cells that differ in nothing else.
Spread of accuracies and of gains is the standard deviation over seeds with ddof 1, p Wilcoxon's exact signed-rank test,
two-sided (zero differences dropped), uncorrected.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from image_tables import Seeds, branches, names, pairs, tested
from paired import runs, students
from printed import spread, table

CHOICES = {
    "metric": ("cosine", "euclidean", "both"),
    "class-aware": ("cac", "nocac"),
    "terms": ("graph", "dfd", "both"),
}
"""What varies; a cell takes one of each, and its tag names them."""
CONTRASTS = {
    "metric": (("both", "cosine"), ("both", "euclidean"), ("euclidean", "cosine")),
    "class-aware": (("cac", "nocac"),),
    "terms": (("both", "graph"), ("both", "dfd"), ("graph", "dfd")),
}
"""Which choices are compared, the second one taken from the first."""
SCORES = {"last": "test_acc_last", "best": "test_acc"}
COLLAPSE = {"spread": "gkdfd/spread_student", "between": "gkdfd/between_student"}
"""Columns that tell a collapse, and what they are called in the history of a run."""
Cell = tuple[str, ...]


def cells(student: Path) -> dict[Cell, Seeds]:
    """Finished runs of each cell that has some."""
    found = {cell: runs(student / f"gkdfd@{'-'.join(cell)}") for cell in product(*CHOICES.values())}
    return {cell: seeds for cell, seeds in found.items() if seeds}


def lines(student: Path, rivals: list[str], which: str) -> Iterator[list[str]]:
    """A line for each rival and each cell."""
    others = {rival: runs(student / rival) for rival in rivals}
    shown = {(rival, *[""] * (len(CHOICES) - 1)): seeds for rival, seeds in others.items()} | cells(student)
    for cell, seeds in shown.items():
        accuracies = [spread([run[key] for run in seeds.values() if run[key] is not None]) for key in SCORES.values()]
        gains = [gain for rival in rivals for gain in _gain(seeds, others[rival], which, itself=cell[0] == rival)]
        yield [*cell, *accuracies, str(len(seeds)), *gains, *(_at_the_end(seeds, name) for name in COLLAPSE.values())]


def _at_the_end(seeds: Seeds, name: str) -> str:
    """A measure in the last epoch, mean over the seeds that have it."""
    last = [run["history"][-1] for run in seeds.values() if run["history"]]
    found = [epoch[name] for epoch in last if name in epoch]
    return f"{statistics.fmean(found):.3f}" if found else ""


def _gain(seeds: Seeds, other: Seeds, which: str, *, itself: bool) -> list[str]:
    found = tested([] if itself else pairs(seeds, other, which))
    return [found[0], found[1], found[3]]


def effects(student: Path, which: str) -> Iterator[list[str]]:
    """A line for each contrast whose cells are there."""
    found = cells(student)
    for place, (factor, contrasts) in enumerate(CONTRASTS.items()):
        for first, second in contrasts:
            twins = {cell: (*cell[:place], second, *cell[place + 1 :]) for cell in found if cell[place] == first}
            both = [(found[cell], found[twin]) for cell, twin in twins.items() if twin in found]
            if both:
                shared = set.intersection(*(one.keys() & other.keys() for one, other in both))
                means = (_mean(both, seed, which) for seed in sorted(shared))
                yield [factor, f"{first} - {second}", str(len(both)), *tested([m for m in means if m is not None])]


def _mean(both: Sequence[tuple[Seeds, Seeds]], seed: int, which: str) -> float | None:
    points = [gain for one, other in both for gain in pairs({seed: one[seed]}, other, which)]
    return statistics.fmean(points) if len(points) == len(both) else None


def main() -> None:
    """Print both tables, for every teacher and student that has such runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs (--out)")
    parser.add_argument("--dataset", default="*", help="name of its folder")
    parser.add_argument(
        "--against", nargs="+", default=["supervised", "kd"], help="students that cells are compared with"
    )
    parser.add_argument("--score", default="last", choices=SCORES, help="whose differences are shown")
    args = parser.parse_args()
    found = [
        (b, s) for b in branches(args.out, args.dataset) for s in sorted({f.parent for f in students(b)}) if cells(s)
    ]
    if not found:
        parser.error(f"no cell of an ablation in {args.out}/{args.dataset}; scripts/ablate_gkdfd.sh makes them")
    for branch, student in found:
        for rival in args.against:
            if not runs(student / rival):
                parser.error(f"no run is called '{rival}' in {student}")
        dataset, teacher = names(branch, student)[:2]
        print(f"\n### {dataset}, {teacher} -> {student.name}\n")
        gains = [head for rival in args.against for head in (f"{args.score} - {rival}'s, points", "p", "n")]
        rows = list(lines(student, args.against, args.score))
        print(table([*CHOICES, *(f"{which} %" for which in SCORES), "seeds", *gains, *COLLAPSE], rows))
        print(f"\n#### One choice against another, {args.score}, mean over the cells that differ in it alone\n")
        head = ["choice", "difference", "cells", "points", "p", "wins/ties/losses", "n"]
        print(table(head, list(effects(student, args.score))))


if __name__ == "__main__":
    main()
