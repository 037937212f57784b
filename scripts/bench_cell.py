"""Seconds of a whole cell, GCN teacher and GLNN student of every seed: ours, and a plain PyG loop that does the same.

    python scripts/bench_cell.py --data_root ../shared/data --seeds 10

The plain loop is what one writes by hand: PyG's `GCNConv` on `edge_index`, dense features, `F.dropout`, Adam,
validation after each epoch, the best weights kept. Both train without generators, with the settings of our presets, and
alternate seed by seed, so that a busy machine slows both. Ours includes the checks of a real run, but not its files.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from printed import table
from torch import Tensor, nn

from gnnkd.data.graphs import load
from gnnkd.data.task import NodeTask, task
from gnnkd.run import Config, resolve
from gnnkd.stages import train_student, train_teacher
from gnnkd.train.progress import Silent
from gnnkd.train.settings import TrainSettings

Seconds = dict[str, float]


class PlainGCN(nn.Module):
    """PyG's convolutions as its examples stack them."""

    def __init__(self, sizes: list[int], rates: list[float]) -> None:
        from torch_geometric.nn import GCNConv

        super().__init__()
        self.convs = nn.ModuleList(GCNConv(i, o) for i, o in pairwise(sizes))
        self.rates = rates

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for i, (conv, rate) in enumerate(zip(self.convs, self.rates, strict=True)):
            x = F.dropout(x if i == 0 else x.relu(), rate, self.training)
            x = conv(x, edge_index)
        return x


class PlainMLP(nn.Module):
    """Linear layers, ReLU and dropout."""

    def __init__(self, sizes: list[int], rates: list[float]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.rates = rates

    def forward(self, x: Tensor) -> Tensor:
        for i, (linear, rate) in enumerate(zip(self.maps, self.rates, strict=True)):
            x = linear(F.dropout(x if i == 0 else x.relu(), rate, self.training))
        return x


def train(
    model: nn.Module,
    forward: Callable[[], Tensor],
    loss: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], float],
    settings: TrainSettings,
) -> Tensor:
    """Full-batch Adam; the logits of the first best epoch by validation."""
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    best, kept = -1.0, copy.deepcopy(model.state_dict())
    for _ in range(settings.epochs):
        model.train()
        optimizer.zero_grad()
        loss(forward()).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            found = score(forward())
        if found > best:
            best, kept = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    with torch.no_grad():
        return forward()


def shape(options: Mapping[str, Any], data: NodeTask) -> tuple[list[int], list[float]]:
    """Widths and dropout shares of a network of these options."""
    layers = options["layers"]
    sizes = [data.n_features, *[options["width"]] * (layers - 1), data.n_classes]
    return sizes, [options["input_dropout"], *[options["dropout"]] * (layers - 1)]


def accuracy(logits: Tensor, y: Tensor, mask: Tensor) -> float:
    """Share of the masked rows that are right."""
    return float((logits[mask].argmax(1) == y[mask]).float().mean())


def plain(data: NodeTask, config: Config) -> tuple[Seconds, float]:
    """Teacher and student by hand; seconds of each, and the student's test accuracy."""
    torch.manual_seed(data.seed)
    x = data.x if isinstance(data.x, Tensor) else data.x.dense()
    edge_index, y, split = data.graph.edge_index, data.y, data.split
    start = time.perf_counter()
    teacher = PlainGCN(*shape(config.teacher, data))
    taught = train(
        teacher,
        lambda: teacher(x, edge_index),
        lambda logits: F.cross_entropy(logits[split.train], y[split.train]),
        lambda logits: accuracy(logits, y, split.val),
        config.teacher_train,
    )
    middle = time.perf_counter()
    student, target = PlainMLP(*shape(config.student, data)), taught.log_softmax(1)
    learned = train(
        student,
        lambda: student(x),
        lambda logits: F.kl_div(logits.log_softmax(1), target, reduction="batchmean", log_target=True),
        lambda logits: accuracy(logits, y, split.val),
        config.student_train,
    )
    seconds = {"teacher": middle - start, "student": time.perf_counter() - middle}
    return seconds, accuracy(learned, y, split.test)


def ours(data: NodeTask, config: Config) -> tuple[Seconds, float]:
    """The same with gnnkd."""
    start = time.perf_counter()
    taught = train_teacher(data, config, Silent())
    middle = time.perf_counter()
    student = train_student(data, config, taught.logits, None, Silent()).predictor
    seconds = {"teacher": middle - start, "student": time.perf_counter() - middle}
    x, graph = data.x, data.graph
    with torch.no_grad():
        return seconds, accuracy(student.network(x, graph).logits, data.y, data.split.test)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cora")
    parser.add_argument("--data_root", help="folder of the raw data")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--epochs", type=int, help="of both stages, fewer than the preset's, where the ratio is enough")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
    print(f"torch {torch.__version__}, {platform.machine()}, {args.threads} threads, {args.dataset}, cpf\n")
    data = load(args.dataset, root=args.data_root)
    level = {"method": {"generators": False}, "train": {} if args.epochs is None else {"epochs": args.epochs}}
    config = resolve(args.dataset, split="cpf", method="glnn", levels=(level,))
    ways = {"gnnkd": ours, "plain PyG": plain}
    seen: dict[str, list[tuple[Seconds, float]]] = {way: [] for way in ways}
    for seed in range(args.seeds):
        one = task(data, protocol="cpf", seed=seed)
        for way, run in ways.items():
            seen[way].append(run(one, config))
        spent = ", ".join(f"{way} {sum(runs[-1][0].values()):.1f} s" for way, runs in seen.items())
        print(f"seed {seed}: {spent}", file=sys.stderr, flush=True)
    rows = []
    totals = {way: sum(sum(seconds.values()) for seconds, _ in runs) for way, runs in seen.items()}
    for way, runs in seen.items():
        parts = [sum(seconds[part] for seconds, _ in runs) for part in ("teacher", "student")]
        test = [100 * found for _, found in runs]
        spread = f"{statistics.fmean(test):.2f} +- {statistics.stdev(test) if len(test) > 1 else float('nan'):.2f}"
        rows.append(
            [
                way,
                *(f"{part:.1f}" for part in parts),
                f"{totals[way]:.1f}",
                f"{totals[way] / totals['gnnkd']:.2f}",
                spread,
            ]
        )
    print(table(["way", "teachers, s", "students, s", "together, s", "ratio", "student's test accuracy %"], rows))


if __name__ == "__main__":
    main()
