"""One point of `bench_scale.py`, in a process of its own, so that its peak memory is its own.

The floor counts the bytes that neighbour sums must move if no row of features stays in a cache: for each edge an index,
a weight and a row of features, for each node a pointer and a row of the result; divided by the bytes a second of a
streaming copy, measured in the same process after the work (bytes that are read and bytes that are written both count).
Graphs that fit into a cache are faster than that.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnnkd.allocator import keep_freed_memory
from gnnkd.data.mapped import read
from gnnkd.data.row_store import RowStore
from gnnkd.distillers import Distiller
from gnnkd.distillers.dgd import Dgd
from gnnkd.distillers.dgd.bank import Bank, Layers
from gnnkd.distillers.dgd.settings import GeneratorSettings
from gnnkd.distillers.glnn import Glnn
from gnnkd.distillers.supervised import Supervised
from gnnkd.graph import normalise
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.nn import gcn, mlp, sage
from gnnkd.nn.layerwise import Layerwise
from gnnkd.train.probe import NODES
from gnnkd.train.rows import Rows
from gnnkd.train.sampled import Sampled
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import update
from gnnkd.types import Batch, Step

WIDTH, LAYERS, RATE, CLASSES = 256, 3, 0.5, 10
MOST = 20
"""Repeats at most."""
COPIED = 1 << 28
"""Bytes of the streaming copy, more than any cache holds."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is measured: a name of `WORKS` on the graph of `folder`.

    `steps` bounds an epoch of batches, which is scaled to all rows; `seconds` end the repeats; `table_bytes` may be in
    memory between two layers of inference.
    """

    work: str
    folder: str
    threads: int
    device: str
    seconds: float
    steps: int
    fanouts: tuple[int, ...]
    batch_size: int
    rows: int
    table_bytes: int


@dataclass(frozen=True)
class Ready:
    """Work that can be repeated; `share` of an epoch is done each time, and `floor` bytes must move."""

    run: Callable[[], object]
    share: float = 1.0
    floor: int | None = None


def sums(nodes: int, entries: int, widths: Iterable[int]) -> int:
    """Bytes that neighbour sums of these widths move at least, if nothing stays in a cache."""
    return sum(4 * (entries * (2 + k) + nodes * (1 + k)) for k in widths)


def _propagation(width: int) -> Callable[[Point, torch.device], Ready]:
    def ready(point: Point, device: torch.device) -> Ready:
        graph = read(point.folder).graph.to(device)
        a = graph.derived(normalise.symmetric)
        x = torch.randn(graph.n_nodes, width, device=device)
        return Ready(lambda: neighbour_sum(a, x), floor=sums(graph.n_nodes, graph.n_edges, [width]))

    return ready


def _whole(point: Point, device: torch.device) -> Ready:
    data = read(point.folder)
    x, y, graph = data.x.to(device), data.y.to(device), data.graph.to(device)
    net = gcn(x.shape[1], CLASSES, layers=LAYERS, width=WIDTH, dropout=RATE).to(device)
    batch = Batch.of(x, y, graph, data.split.train.to(device))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
    n, entries = graph.n_nodes, graph.n_edges + graph.n_nodes
    forward, backward = [min(x.shape[1], WIDTH), WIDTH, CLASSES], [WIDTH, CLASSES]
    return Ready(
        lambda: update(net, optimizer, Supervised(), batch, None, Step(0, 1)),
        floor=sums(n, entries, [*forward, *backward]),
    )


def _sampled(point: Point, device: torch.device) -> Ready:
    data = read(point.folder)
    x, y, graph = data.x.to(device), data.y.to(device), data.graph.to(device)
    train = data.split.train.to(device)
    seeds = train.nonzero().flatten()[: point.steps * point.batch_size]
    labelled = torch.zeros_like(train).index_fill(0, seeds, True)
    net = sage(x.shape[1], CLASSES, layers=LAYERS, width=WIDTH, dropout=RATE).to(device)
    course = Sampled(
        net,
        Batch.of(x, y, graph, labelled),
        Supervised(),
        None,
        (y, torch.zeros_like(train)),
        TrainSettings(),
        fanouts=point.fanouts,
        batch_size=point.batch_size,
    )
    return Ready(lambda: course.epoch(Step(0, 1)), share=seeds.numel() / int(train.sum()))


def _students(dgd: bool) -> Callable[[Point, torch.device], Ready]:
    def ready(point: Point, device: torch.device) -> Ready:
        folder = Path(point.folder)
        x, y = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "y"))
        n = len(y)
        learn = np.zeros(n, dtype=bool)
        learn[: point.steps * point.rows] = True
        labelled = np.load(folder / "train_mask.npy", mmap_mode="r")
        labelled = labelled if labelled[learn].any() else learn
        store = RowStore(x, y, learn, labelled, teacher_logits(folder, n), seed=0, device=device)
        net = mlp(x.shape[1], CLASSES, layers=LAYERS, width=WIDTH, dropout=RATE).to(device)
        method = _dgd(n) if dgd else Glnn()
        course = Rows(net, store, method, np.zeros(n, dtype=bool), TrainSettings(), batch_size=point.rows)
        return Ready(lambda: course.epoch(Step(0, 1)), share=store.count / n)

    return ready


def _dgd(n: int) -> Distiller:
    """DGD on GLNN with untrained generators, since no work depends on what they say, and a probe as a teacher's is."""
    names = tuple(f"layers.{i}.lin.weight" for i in range(LAYERS))
    layers = Layers(names, (*[64] * (LAYERS - 1), CLASSES), (1,) * LAYERS, min(n, 2048), n)
    bank = Bank(layers, GeneratorSettings().resolved(), probe=torch.arange(min(n, NODES)))
    bank.offer(1.0, 0, bank.untrained(seed=0))
    return Dgd(Glnn(), bank)


def teacher_logits(folder: Path, n: int) -> np.memmap[Any, Any]:
    """Random ones beside the graph, float16, mapped; no work depends on what they say."""
    file = folder.with_name(f"{folder.name}.logits.npy")
    if not file.exists():
        draft = file.with_suffix(".draft.npy")
        np.save(draft, np.random.default_rng(0).standard_normal((n, CLASSES), dtype=np.float32).astype(np.float16))
        draft.rename(file)
    found: np.memmap[Any, Any] = np.load(file, mmap_mode="r")
    return found


def _layerwise(point: Point, device: torch.device) -> Ready:
    data = read(point.folder)
    x, graph = data.x.to(device), data.graph.to(device)
    net = sage(x.shape[1], CLASSES, layers=LAYERS, width=WIDTH).to(device)
    inference = Layerwise(memory=point.table_bytes, folder=Path(point.folder).parent)
    widths = [min(x.shape[1], WIDTH), WIDTH, CLASSES]
    return Ready(lambda: inference.logits(net, x, graph), floor=sums(graph.n_nodes, graph.n_edges, widths))


WORKS: dict[str, Callable[[Point, torch.device], Ready]] = {
    "sum-64": _propagation(64),
    "sum-256": _propagation(256),
    "gcn-step": _whole,
    "layerwise": _layerwise,
    "sage-epoch": _sampled,
    "glnn-epoch": _students(dgd=False),
    "dgd-epoch": _students(dgd=True),
}
"""What can be measured, by name; the last three are epochs of batches."""


def times(work: Callable[[], object], device: torch.device, *, seconds: float) -> list[tuple[float, float]]:
    """Seconds of the clock and of the processors of each repeat, until `seconds` are used up.

    At least 3 are taken, or a single one where the one before them, which warms up, took longer than `seconds`.
    """
    found: list[tuple[float, float]] = []
    begin = time.perf_counter()
    work()
    least = 3 if time.perf_counter() - begin < seconds else 1
    while len(found) < least or (len(found) < MOST and time.perf_counter() - begin < seconds):
        _wait(device)
        start, spent = time.perf_counter(), time.process_time()
        work()
        _wait(device)
        found.append((time.perf_counter() - start, time.process_time() - spent))
    return found


def copying(device: torch.device, *, seconds: float) -> tuple[float, float]:
    """Bytes a second of a streaming copy, by the clock and by the processors' time."""
    source = torch.ones(COPIED // 4, device=device)
    goal = torch.empty_like(source)
    found = times(lambda: goal.copy_(source), device, seconds=seconds)
    clock, processor = (statistics.median(one[i] for one in found) for i in range(2))
    return 2 * COPIED / clock, 2 * COPIED / max(processor, 1e-9)


def peak(device: torch.device) -> dict[str, int]:
    """The most memory of this process by now, and of torch on a GPU; bytes."""
    found = {"peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    status = Path("/proc/self/status")
    if status.exists():  # what a parent held before this process began is not counted there
        (line,) = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        found["peak_bytes"] = 1024 * int(line.split()[1])
    if device.type == "cuda":
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(point: Point) -> dict[str, Any]:
    """What `bench_scale.py` writes down of a point; seconds are those of a whole epoch."""
    keep_freed_memory()
    torch.manual_seed(0)
    torch.set_num_threads(point.threads)
    device = torch.device(point.device)
    before = peak(device)["peak_bytes"]
    ready = WORKS[point.work](point, device)
    found = times(ready.run, device, seconds=point.seconds)
    memory = peak(device)
    clock, processor = (statistics.median(one[i] for one in found) / ready.share for i in range(2))
    copied = copying(device, seconds=point.seconds / 5)
    return {
        "seconds": clock,
        "fastest_seconds": min(one for one, _ in found) / ready.share,
        "processor_seconds": processor,
        "repeats": len(found),
        "share_measured": ready.share,
        **memory,
        "peak_before_bytes": before,
        "floor_bytes": ready.floor,
        "copied_bytes_per_second": copied[0],
        "copied_bytes_per_processor_second": copied[1],
        "torch": torch.__version__,
        "settings": asdict(point),
    }


def main() -> None:
    """Measure the point that standard input describes in JSON, and print what was found."""
    said = json.loads(sys.stdin.read())
    print(json.dumps(measured(Point(**{**said, "fanouts": tuple(said["fanouts"])}))))


if __name__ == "__main__":
    main()
