"""Tables of finished runs on images: accuracy of the best and the last epoch, and differences paired by seed.

    python scripts/image_tables.py runs/images --against supervised kd
    python scripts/image_tables.py runs --dataset cifar100 --runs 'gkdfd*' kd supervised --against kd

`best` is the test accuracy of the first best epoch by validation, `last` that of the last epoch. Spread is the standard
deviation over seeds with ddof 1; n is the number of seeds that both have. p is Wilcoxon's exact signed-rank test,
two-sided (zero differences dropped), of as many pairs; it is not corrected for the number of rows.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from paired import Run, outcomes, runs, students, wilcoxon
from printed import spread, table

SCORES = {"best": "test_acc", "last": "test_acc_last", "best on test": "test_acc_best_on_test"}
HEAD = ["dataset", "teacher", "student", "run"]
COMPARED = ("last", "best")
Seeds = dict[int, Run]


def score(run: Run, which: str) -> float | None:
    """One accuracy of a run in [0, 1]; None where there is none, as there is no best epoch where nothing validates."""
    unchosen = which == "best" and run["val_acc"] is None and "test_acc_last" in run
    return None if unchosen else run.get(SCORES[which])


def branches(out: Path, dataset: str) -> list[Path]:
    """Folders of a dataset, a protocol and a teacher that hold runs on images."""
    found = []
    for branch in sorted(out.glob(f"{dataset}/*/*")):
        first = next((run for folder in teachers(branch) for run in runs(folder).values()), {})
        if "images_per_second" in first:
            found.append(branch)
    return found


def teachers(branch: Path) -> list[Path]:
    """Folders of the finished teachers of a branch: one, and others by tag."""
    return sorted({file.parents[1] for file in branch.glob("teacher*/seed*/result.json")})


def chosen(branch: Path, patterns: Sequence[str]) -> list[Path]:
    """Folders of the students whose names match, the plain one first."""
    found = [folder for folder in students(branch) if any(fnmatchcase(folder.name, p) for p in patterns)]
    return sorted(found, key=lambda folder: (folder.parent, folder.name != "supervised", folder.name))


def names(branch: Path, folder: Path) -> list[str]:
    """Dataset with protocol, teacher, student and run."""
    student = "" if folder.parent == branch else folder.parent.name
    protocol = branch.parent.name.removesuffix("-tran")
    return [f"{branch.parents[1].name} ({protocol})", branch.name, student, folder.name]


def accuracies(branch: Path, patterns: Sequence[str], scores: Sequence[str]) -> Iterator[list[str]]:
    """A line for each teacher and each student."""
    for folder in [*teachers(branch), *chosen(branch, patterns)]:
        found = runs(folder)
        first = next(iter(found.values()))
        seconds = statistics.median(run["seconds"] for run in found.values())
        cells = [_cell(found, which) for which in scores]
        yield [*names(branch, folder), *cells, str(len(found)), f"{first['n_parameters']:,}", f"{seconds:.0f}"]


def _cell(found: Seeds, which: str) -> str:
    values = [score(run, which) for run in found.values()]
    known = [value for value in values if value is not None]
    return spread(known) if len(known) == len(values) else ""


def pairs(one: Seeds, other: Seeds, which: str) -> list[float]:
    """Points of accuracy by which `one` is ahead of `other`, for each seed that both have."""
    both = [(score(one[s], which), score(other[s], which)) for s in sorted(one.keys() & other.keys())]
    return [100 * (a - b) for a, b in both if a is not None and b is not None]


def against(branch: Path, patterns: Sequence[str], rival: str) -> Iterator[list[str]]:
    """What each student gains over the one called `rival`, of the same teacher and student networks."""
    for folder in chosen(branch, patterns):
        other = runs(folder.parent / rival)
        if folder.name == rival or not other:
            continue
        gains = {which: pairs(runs(folder), other, which) for which in COMPARED}
        if any(gains.values()):
            yield [*names(branch, folder), *(cell for points in gains.values() for cell in tested(points))]


def tested(points: Sequence[float]) -> list[str]:
    """Mean with spread, p, wins/ties/losses and n of paired differences; empty cells where there are none."""
    if not points:
        return [""] * 4
    return [spread(points, 1, sign="+"), f"{wilcoxon(points):.3f}", outcomes(points), str(len(points))]


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs (--out)")
    parser.add_argument("--dataset", default="*", help="name of its folder")
    parser.add_argument("--runs", nargs="+", default=["*"], help="names of students to show; * and ? stand for letters")
    parser.add_argument("--against", nargs="+", default=[], help="names of students that the others are compared with")
    args = parser.parse_args()
    found = branches(args.out, args.dataset)
    if not found:
        parser.error(f"no finished teacher on images in {args.out}/{args.dataset}")
    there = sorted({folder.name for branch in found for folder in students(branch)})
    for rival in args.against:
        if rival not in there:
            parser.error(f"no run is called '{rival}'; there are: {', '.join(there)}")
    every = [folder for b in found for folder in [*teachers(b), *chosen(b, args.runs)]]
    tracked = any(score(run, "best on test") is not None for folder in every for run in runs(folder).values())
    scores = list(SCORES) if tracked else list(COMPARED[::-1])
    rows = [row for branch in found for row in accuracies(branch, args.runs, scores)]
    print(table([*HEAD, *(f"{which} %" for which in scores), "seeds", "parameters", "seconds"], rows))
    columns = [head for which in COMPARED for head in (f"{which}, points", "p", "wins/ties/losses", "n")]
    for rival in args.against:
        print(f"\n### Against {rival}\n")
        print(table([*HEAD, *columns], [row for branch in found for row in against(branch, args.runs, rival)]))


if __name__ == "__main__":
    main()
