"""Time per epoch and peak memory of propagation, teachers, students and inference against the size of the graph.

    python scripts/bench_scale.py --cache /data/scale --max-edges 1e7 --threads 1
    python scripts/bench_scale.py --cache /data/scale --only sum-64,layerwise --table docs/table.md --plots docs

Graphs are drawn by `gnnkd.data.synthetic` into the cache folder, where they stay; random node ids, the worst case for
caches. Each point is measured in a process of its own and appended to a file of JSON lines; a finished one is not
repeated, so an interrupted command is continued by giving it again. A point that needs more memory than there is gets
skipped with the estimate. Works:

    sum-64, sum-256    one product A H of the whole graph with 64 and with 256 columns
    gcn-step           a full-batch training step, which is an epoch, of a 3 x 256 GCN
    layerwise          logits of all nodes of a 3 x 256 SAGE, layer by layer
    sage-epoch         an epoch of a 3 x 256 SAGE on sampled neighbours, from `--steps` of its steps
    glnn-epoch         an epoch of a 3 x 256 MLP on rows from disk, from `--steps` of its steps
    dgd-epoch          the same by DGD on GLNN
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scale_report import draw, markdown

from gnnkd.arguments import Parser, answered, whole
from gnnkd.data import room
from gnnkd.data.mapped import CARD
from gnnkd.data.plan import Plan
from gnnkd.data.synthetic import check_room, make, place
from gnnkd.errors import UserError, unknown
from gnnkd.train.progress import progress

HERE = Path(__file__).parent
FEATURES, CLASSES, WIDTH = 100, 10, 256
WORKS = ("sum-64", "sum-256", "gcn-step", "layerwise", "sage-epoch", "glnn-epoch", "dgd-epoch")
PROCESS = 300_000_000
"""Bytes of an interpreter with torch, and of what a small graph adds."""

Record = dict[str, Any]


def plan(edges: int, degree: int) -> Plan:
    """A graph of so many directed edges and edges a node; 10 communities, or one for each 5000 nodes.

    Raises:
        UserError: too few nodes for so many edges.
    """
    nodes = edges // degree
    return Plan(
        nodes=nodes,
        edges=edges // 2,
        features=FEATURES,
        classes=CLASSES,
        communities=max(CLASSES, nodes // 5000),
        fractions=(0.1, 0.02, 0.88),
    )


def memory(work: str, nodes: int, edges: int, args: argparse.Namespace) -> int:
    """Bytes that a point is expected to take; graphs and features that are mapped count as read."""
    graph, features = 4 * edges + 4 * nodes, 4 * FEATURES * nodes
    if work.startswith("sum"):
        return PROCESS + graph + 36 * edges + 8 * int(work.split("-")[1]) * nodes
    if work == "gcn-step":
        return PROCESS + graph + features + 72 * edges + 21 * 4 * WIDTH * nodes
    if work == "layerwise":
        tables = min(args.table_bytes, 4 * nodes * 3 * WIDTH)
        return PROCESS + graph + features + tables + 40 * nodes + 16 * (1 << 16) * 2 * WIDTH + 100 * (1 << 21)
    if work == "sage-epoch":
        met = min(nodes, args.batch_size * sum(math.prod(args.fanouts[:hop]) for hop in range(len(args.fanouts) + 1)))
        return PROCESS + graph + features + 24 * 4 * WIDTH * met
    return PROCESS + 64 * 1024 * 1000 + 48 * args.rows * (FEATURES + 3 * WIDTH)


def made(edges: int, args: argparse.Namespace) -> tuple[Path, Plan]:
    """The folder of the graph, drawn if it is not there.

    Raises:
        UserError: no room for it, or it cannot be written.
    """
    wanted = plan(edges, args.degree)
    folder = place(f"edges-{edges}-degree-{args.degree}", args.cache)
    if not (folder / CARD).exists():
        check_room(wanted, folder)
        make(wanted, folder)
    return folder, wanted


def measure(work: str, edges: int, args: argparse.Namespace) -> Record:
    """What was found at one point, or why there is nothing."""
    about: Record = {"work": work, "edges": edges, "degree": args.degree, "threads": args.threads}
    about["device"] = args.device
    try:
        folder, wanted = made(edges, args)
    except UserError as error:
        return {**about, "skipped": str(error)}
    about["nodes"] = wanted.nodes
    estimate, free = memory(work, wanted.nodes, edges, args), room.memory()
    limit = args.max_memory if free is None else min(args.max_memory, 0.9 * free)
    if args.device == "cpu" and estimate > limit:
        return {**about, "skipped": f"takes about {estimate / 1e9:.1f} GB of memory; {limit / 1e9:.1f} GB may be taken"}
    said = {
        **{name: getattr(args, name) for name in ("threads", "device", "seconds", "steps", "fanouts", "batch_size")},
        "rows": args.rows,
        "table_bytes": args.table_bytes,
        "work": work,
        "folder": str(folder),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "scale_work.py")],
        input=json.dumps(said),
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return {**about, "failed": last if done.returncode > 0 else f"killed by signal {-done.returncode}"}
    return {**about, "estimate_bytes": estimate, "machine": platform.machine(), **json.loads(done.stdout)}


def key(record: Record) -> tuple[object, ...]:
    """What makes two records be of one point."""
    return tuple(record[name] for name in ("work", "edges", "degree", "threads", "device"))


def known(file: Path) -> dict[tuple[object, ...], Record]:
    """The records of a file, of each point the last; a line that was cut short is no record."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found[key(record)] = record
    return found


def points(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Work and edges, small graphs first."""
    for edges in sorted(args.edges):
        if edges <= args.max_edges:
            for work in args.only:
                yield work, edges


def run(args: argparse.Namespace) -> list[Record]:
    """Measure what is not in the file yet; all records of the asked points."""
    args.results.parent.mkdir(parents=True, exist_ok=True)
    asked, records = list(points(args)), known(args.results)
    with progress().stage("points", len(asked)) as bar, args.results.open("a", encoding="utf-8") as file:
        if file.tell() and not args.results.read_bytes().endswith(b"\n"):
            file.write("\n")
        for number, (work, edges) in enumerate(asked):
            about = {"work": work, "edges": edges, "degree": args.degree, "threads": args.threads}
            place_of = key({**about, "device": args.device})
            if "seconds" not in records.get(place_of, {}):
                record = measure(work, edges, args)
                records[place_of] = record
                file.write(json.dumps(record) + "\n")
                file.flush()
                print(line(record), flush=True)
            bar.update(number, {})
    return [r for r in records.values() if (r["work"], r["edges"]) in asked and key(r)[2:] == place_of[2:]]


def line(record: Record) -> str:
    """A point as it is printed when it is done."""
    head = f"{record['work']:11} {record['edges']:>11,} edges: "
    if "seconds" not in record:
        return head + (f"skipped, {record['skipped']}" if "skipped" in record else f"failed, {record['failed']}")
    return (
        f"{head}{record['seconds']:.4g} s ({record['processor_seconds']:.4g} s of the processors), "
        f"{1e9 * record['seconds'] / record['edges']:.3g} ns an edge, peak {record['peak_bytes'] / 1e9:.2f} GB"
    )


def several(kind: Callable[[str], float]) -> Callable[[str], list[int]]:
    """A type for a flag: numbers of one type, comma separated, as integers."""
    return lambda text: [int(kind(word)) for word in text.split(",")]


def least(low: float) -> Callable[[str], float]:
    """A type for a flag: numbers from `low` on, inf among them."""

    def number(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not found >= low:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low:g} on")
        return found

    return number


def finite(text: str) -> float:
    """A type for a flag: numbers from 1 on that are not infinite."""
    found = least(1)(text)
    if math.isinf(found):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return found


def parsed() -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: an unknown work, or a number out of range.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of the graphs; 1e8 edges take 1.5 GB")
    parser.add_argument("--results", type=Path, help="file of JSON lines; by default CACHE/scale.jsonl")
    edges = "directed ones, comma separated"
    parser.add_argument("--edges", type=several(finite), default=[10**k for k in range(4, 9)], help=edges)
    parser.add_argument("--max-edges", type=least(1), default=1e8, help="leave larger graphs out")
    parser.add_argument("--degree", type=whole(1), default=40, help="directed edges a node")
    parser.add_argument("--only", default=",".join(WORKS), help="some of the works")
    parser.add_argument("--max-memory", type=least(0), default=math.inf, help="GB that a point may take")
    parser.add_argument("--threads", type=whole(1), default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=least(0), default=10, help="after which a point is repeated no more")
    parser.add_argument("--steps", type=whole(1), default=8, help="of an epoch of batches, scaled to a whole one")
    fanouts = "of the sampled teacher, one for each of three layers"
    parser.add_argument("--fanouts", type=several(whole(1)), default=[10, 5, 3], help=fanouts)
    parser.add_argument("--batch-size", type=whole(1), default=512, help="labelled nodes of a sampled step")
    parser.add_argument("--rows", type=whole(1), default=4096, help="of a student's step")
    parser.add_argument("--table-bytes", type=finite, default=8e9, help="kept in memory between layers of inference")
    parser.add_argument("--table", type=Path, help="file for the numbers as Markdown")
    parser.add_argument("--plots", type=Path, help="folder for scale_time.png and scale_memory.png")
    parser.add_argument("--time", choices=("clock", "processor"), default="clock", help="which one is drawn")
    args = parser.parse_args()
    args.only, args.max_memory = args.only.split(","), 1e9 * args.max_memory
    args.table_bytes = int(args.table_bytes)
    args.results = args.results or args.cache / "scale.jsonl"
    for work in args.only:
        if work not in WORKS:
            raise unknown("work", work, WORKS)
    if len(args.fanouts) != 3:
        raise UserError(f"--fanouts has {len(args.fanouts)} numbers; give one for each of three layers, as 10,5,3")
    if not list(points(args)):
        raise UserError(f"--max-edges is {args.max_edges:.0f}; it leaves none of --edges")
    return args


def main() -> None:
    """Measure, print, and write the table and the plots when asked."""
    args = parsed()
    records = run(args)
    text = markdown(records)
    print(f"\n{text}")
    if args.table:
        args.table.write_text(text + "\n", encoding="utf-8")
    if args.plots:
        args.plots.mkdir(parents=True, exist_ok=True)
        for name, figure in draw(records, processor=args.time == "processor").items():
            figure.savefig(args.plots / f"{name}.png", dpi=150)


if __name__ == "__main__":
    sys.exit(answered(main, again="give the same command again to continue"))
