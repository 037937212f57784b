"""The tables of docs/results.md, from finished runs: accuracy, imitation per layer, gain against base and controls.

    python scripts/tables.py runs --split cpf
    python scripts/tables.py runs --split cpf --teacher gat,sage,appnp,gcnii
    python scripts/tables.py runs --split cpf --setting ind --teacher sage
    python scripts/tables.py runs --split cpf --against glnn,kd

Spread is the standard deviation over seeds with ddof 1. Gains are paired by seed; p is Wilcoxon's exact signed-rank
test, two-sided (zero differences dropped); one-sided where a table says so.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from paired import Run, outcomes, runs, students, wilcoxon
from printed import spread, table

WINDOWS = ((0, 50), (50, 150), (-100, None))
KINDS = ("generator", "shuffled", "persistence", "ceiling", "generator_raw", "persistence_raw")
CONTROLS = ("untrained", "shuffled", "uniform", "flat")


def epochs_to(history: list[dict[str, float]], share: float = 0.95) -> int:
    """First epoch at which validation accuracy reaches a share of its mean over the last ten epochs."""
    final = statistics.fmean(row["val_acc"] for row in history[-10:])
    return next(i for i, row in enumerate(history) if row["val_acc"] >= share * final)


def accuracies(branch: Path) -> Iterator[list[str]]:
    """A line for the teacher and one for each student configuration."""
    for folder in [branch / "teacher", *students(branch)]:
        found = runs(folder)
        if found:
            test, val = ([r[k] for r in found.values()] for k in ("test_acc", "val_acc"))
            seconds = statistics.median(r["seconds"] for r in found.values())
            size = next(iter(found.values()))["n_parameters"]
            yield [*_names(branch, folder), spread(test), spread(val), str(len(found)), f"{size:,}", f"{seconds:.1f}"]


def inductive(branch: Path) -> Iterator[list[str]]:
    """As `accuracies`, in parts: production (.8 tran + .2 ind), observed and unseen nodes, unseen ones cold."""
    for folder in [branch / "teacher", *students(branch)]:
        found = runs(folder)
        if found:
            keys = ("test_acc", "test_acc_tran", "test_acc_ind", "test_acc_cold")
            parts = (spread([r[key] for r in found.values()]) for key in keys)
            yield [*_names(branch, folder), *parts, str(len(found))]


def _names(branch: Path, folder: Path) -> list[str]:
    student = "" if folder.parent == branch else folder.parent.name
    return [branch.parents[1].name, branch.name, student, folder.name]


def imitation(folder: Path) -> Iterator[list[str]]:
    """Cosines by layer and window, means over seeds, and p of generator > shuffled over seeds."""
    found = runs(folder)
    keys = dict.fromkeys(k for r in found.values() for row in r["history"] for k in row if k.count("/") == 2)
    layers = list(dict.fromkeys(k.split("/")[1] for k in keys if k.startswith("imitation/")))
    for layer in layers:
        for start, stop in WINDOWS:
            means = {
                kind: [window_mean(r["history"], f"imitation/{layer}/{kind}", start, stop) for r in found.values()]
                for kind in KINDS
            }
            ahead = [g - s for g, s in zip(means["generator"], means["shuffled"], strict=True)]
            names = [folder.parents[2].name, folder.parent.name]
            window = f"{start}-{stop}" if stop else "last 100"
            cells = [spread(means["generator"], 1, 3), *(f"{np.mean(means[kind]):.3f}" for kind in KINDS[1:])]
            yield [*names, layer, window, *cells, f"{wilcoxon(ahead, 'greater'):.4f}"]


def window_mean(history: list[dict[str, float]], key: str, start: int, stop: int | None) -> float:
    """Mean over the epochs of a window that have the key."""
    return float(np.mean([row[key] for row in history[start:stop] if key in row]))


def gains(branch: Path) -> Iterator[list[str]]:
    """DGD against its base, the plain student and each control, paired by seed, for every student model."""
    for student in sorted({folder.parent for folder in students(branch)}):
        method = runs(student / "dgd")
        base = next((r["base"] for r in method.values()), "glnn")
        rivals = {f"base ({base})": student / base, "supervised": student / "supervised"}
        rivals |= {f"control: {c}": student / f"dgd@{c}" for c in CONTROLS}
        rivals |= {"paper preset": student / "dgd@paper"}
        for name, folder in rivals.items():
            other = runs(folder)
            shared = sorted(method.keys() & other.keys())
            if shared:
                names = [branch.parents[1].name, branch.name, student.name, name]
                yield [*names, *_against([method[s] for s in shared], [other[s] for s in shared])]


def rivals(branch: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """Every student configuration against those of the same network that are called `names`."""
    for folder in students(branch):
        for name in names:
            mine, other = runs(folder), runs(folder.parent / name)
            shared = sorted(mine.keys() & other.keys())
            if shared and folder.name != name:
                against = _against([mine[s] for s in shared], [other[s] for s in shared])
                yield [*_names(branch, folder), name, *against]


def _against(method: Sequence[Run], other: Sequence[Run]) -> list[str]:
    pairs = list(zip(method, other, strict=True))
    points = [100 * (a["test_acc"] - b["test_acc"]) for a, b in pairs]
    early = [epochs_to(a["history"]) - epochs_to(b["history"]) for a, b in pairs]
    return [spread(points, 1), f"{wilcoxon(points):.3f}", outcomes(points), spread(early, 1, 1), str(len(points))]


def biases(folder: Path) -> Iterator[list[str]]:
    """Size of the bias relative to the gradient, by weight: mean over epochs, then mean and spread over seeds."""
    found = runs(folder)
    keys = dict.fromkeys(k for r in found.values() for row in r["history"] for k in row if k.startswith("bias/"))
    for key in keys:
        means = [window_mean(r["history"], key, 0, None) for r in found.values()]
        yield [*_names(folder.parents[1], folder), key.removeprefix("bias/"), spread(means, 100, 3)]


def main() -> None:
    """Print all tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs (--out)")
    parser.add_argument("--split", default="cpf")
    parser.add_argument("--setting", default="tran")
    parser.add_argument("--teacher", default="gcn", help="one or more, as gcn,gat")
    parser.add_argument("--against", metavar="NAMES", help="print differences from these students alone, as glnn,kd")
    args = parser.parse_args()
    found = (args.out.glob(f"*/{args.split}-{args.setting}/{teacher}") for teacher in args.teacher.split(","))
    branches = sorted(branch for some in found for branch in some if branch.is_dir())
    head = ["dataset", "teacher", "student", "run"]
    if args.setting == "ind":
        parts = ["prod %", "tran %", "ind %", "cold %", "seeds"]
        print(table([*head, *parts], [row for b in branches for row in inductive(b)]))
        return
    gained = ["points of test accuracy", "p", "wins/ties/losses", "epochs to 95 %", "n"]
    if args.against is not None:
        rows = [row for b in branches for row in rivals(b, args.against.split(","))]
        print(table([*head, "against", *gained], rows))
        return
    columns = ["test accuracy %", "validation %", "seeds", "parameters", "seconds"]
    print(table([*head, *columns], [row for b in branches for row in accuracies(b)]))
    kinds = ["generator", "shuffled", "persistence", "noise ceiling", "generator, raw", "persistence, raw"]
    for preset in ("teacher", "teacher@paper"):
        rows = [row for b in branches for row in imitation(b / preset)]
        if rows:
            print(f"\n### Imitation, {'paper' if '@' in preset else 'tuned'} preset\n")
            print(table(["dataset", "teacher", "weight", "epochs", *kinds, "p (generator > shuffled)"], rows))
    print("\n### DGD, tuned, against\n")
    print(table([*head[:3], "against", *gained], [row for b in branches for row in gains(b)]))
    print("\n### Size of the bias, % of the gradient\n")
    rows = [row for b in branches for folder in students(b) for row in biases(folder)]
    print(table([*head, "weight", "bias / gradient, %"], rows))


if __name__ == "__main__":
    main()
