"""Time of training steps with and without `gnnkd.allocator`, each in processes of its own, in turn.

    python scripts/bench_allocator.py --data_root ../shared/data --threads 1

Prints medians over rounds of milliseconds an epoch (wall and CPU), page faults an epoch, and the largest resident size.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from printed import table

CHOICES = ("system", "auto")
EPOCHS = {"cora": 40, "amazon-photo": 8, "coauthor-physics": 3}
STAGES = ("teacher", "with generators", "student")


def measured(dataset: str, data_root: str | None, threads: int) -> dict[str, dict[str, float]]:
    """Costs of an epoch of a GCN teacher, of one with generators beside it, and of a GLNN student, in this process."""
    from gnnkd.allocator import keep_freed_memory

    keep_freed_memory()
    import torch

    from gnnkd.data.graphs import load, task
    from gnnkd.run import resolve
    from gnnkd.stages import train_student, train_teacher
    from gnnkd.train.progress import Silent

    torch.set_num_threads(threads)
    data = task(load(dataset, root=data_root), protocol="cpf", seed=0)
    epochs = EPOCHS[dataset]

    def config(generators: bool) -> object:
        return resolve(
            dataset,
            split="cpf",
            method="glnn",
            levels=({"train": {"epochs": epochs}, "method": {"generators": generators}},),
        )

    plain = config(False)
    logits = train_teacher(data, plain, Silent()).logits  # warms up
    work = {
        "teacher": lambda: train_teacher(data, plain, Silent()),
        "with generators": lambda: train_teacher(data, config(True), Silent()),
        "student": lambda: train_student(data, plain, logits, None, Silent()),
    }
    found = {}
    for stage, run in work.items():
        faults, wall, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter(), time.process_time()
        run()
        found[stage] = {
            "wall": 1e3 * (time.perf_counter() - wall) / epochs,
            "cpu": 1e3 * (time.process_time() - cpu) / epochs,
            "faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / epochs,
            "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    return found


def main() -> None:
    """Measure in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", help="folder of the raw data")
    parser.add_argument("--datasets", default=",".join(EPOCHS), help=f"some of {','.join(EPOCHS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measured(args.only, args.data_root, args.threads)))
        return
    rows = []
    for dataset in args.datasets.split(","):
        seen: dict[str, list[dict[str, dict[str, float]]]] = {choice: [] for choice in CHOICES}
        for _ in range(args.rounds):
            for choice in CHOICES:
                command = [sys.executable, __file__, "--only", dataset, "--threads", str(args.threads)]
                command += ["--data_root", args.data_root] if args.data_root else []
                here = str(Path(__file__).parents[1])
                answer = subprocess.run(
                    command, env={**os.environ, "GNNKD_ALLOCATOR": choice, "PYTHONPATH": here},
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                seen[choice].append(json.loads(answer.stdout))
        for stage in STAGES:
            middle = {
                choice: {key: statistics.median(run[stage][key] for run in runs) for key in runs[0][stage]}
                for choice, runs in seen.items()
            }
            for choice, cost in middle.items():
                ratio = middle["system"]["wall"] / cost["wall"]
                numbers = [
                    f"{cost['wall']:.1f}",
                    f"{cost['cpu']:.1f}",
                    f"{ratio:.2f}",
                    f"{cost['faults']:.0f}",
                    f"{cost['rss']:.0f}",
                ]
                rows.append([dataset, stage, choice, *numbers])
    head = ["dataset", "stage", "allocator", "wall ms", "CPU ms", "times faster", "page faults", "peak MB"]
    print(
        table(
            [*head[:3], *(f"{name} an epoch" if "ms" in name or "faults" in name else name for name in head[3:])], rows
        )
    )


if __name__ == "__main__":
    main()
