"""What a student learns from a teacher of the same classes that is surer of them.

    python scripts/sharper_teacher.py runs --dataset citeseer --teacher sage --seeds 1,4,9 --methods glnn,ffg2m,hgmd

A teacher whose best epoch is one of the first says little: its soft labels are nearly uniform. Here its logits are
multiplied until its mean largest probability is `--confidence`, which changes no class that it names, and students
learn from both. Test accuracies in percent; nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jaxtyping import Float
from printed import table
from torch import Tensor

from gnnkd.places import Branch
from gnnkd.request import seeds_of
from gnnkd.results import cached_outputs
from gnnkd.run import resolve
from gnnkd.scores import of_network
from gnnkd.stages import train_student
from gnnkd.train.progress import Silent


def confidence(logits: Float[Tensor, "N C"]) -> float:
    """Mean over rows of the largest probability, in [1 / C, 1]."""
    return float(logits.softmax(1).max(1).values.mean())


def sharpened(logits: Float[Tensor, "N C"], wanted: float) -> tuple[Float[Tensor, "N C"], float]:
    """The logits times the factor that brings them to a confidence, and the factor, by bisection in [.01, 10000]."""
    low, high = 1e-2, 1e4
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if confidence(logits * middle) < wanted else (low, middle)
    return logits * low, low


def main() -> None:
    """Print a line for each seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of finished teachers")
    parser.add_argument("--dataset", default="citeseer")
    parser.add_argument("--teacher", default="sage")
    parser.add_argument("--split", default="cpf")
    parser.add_argument("--seeds", default="10", help="as in gnnkd.main: 10, or 1,4,9")
    parser.add_argument("--methods", default="glnn,ffg2m,hgmd,adagmlp", help="that read logits alone")
    parser.add_argument("--confidence", type=float, default=0.75, help="in (1 / classes, 1)")
    parser.add_argument("--data_root")
    said = parser.parse_args()
    methods, data, lines = said.methods.split(","), None, []
    for seed in seeds_of({"seeds": said.seeds}):
        cells = [str(seed)]
        for method in methods:
            config = resolve(said.dataset, split=said.split, teacher_model=said.teacher, method=method)
            data = config.load(said.data_root) if data is None else data
            task = config.task(data, seed)
            place = Branch.of(said.out, task.name, task.protocol, task.setting, said.teacher).teacher(seed)
            logits = cached_outputs(place.outputs, task)
            sharp, factor = sharpened(logits, said.confidence)
            found = [train_student(task, config, told, None, Silent()).predictor.network for told in (logits, sharp)]
            before, after = (100 * of_network(network, task)["test_acc"] for network in found)
            if method == methods[0]:
                cells += [f"{confidence(logits):.3f}", f"{factor:.1f}"]
            cells.append(f"{before:.1f} -> {after:.1f}")
        lines.append(cells)
        print(f"seed {seed}: {', '.join(cells[1:])}", file=sys.stderr)
    print(table(["seed", "confidence", "factor", *methods], lines))


if __name__ == "__main__":
    main()
