"""Time of a training step (forward, cross entropy, backward, Adam) of 3 x 256 networks, ours and PyG's of equal form.

    python scripts/bench_step.py --data_root ../shared/data --threads 2
    python scripts/bench_step.py --sections gcn --sizes arxiv --data_root data --input_dropouts 0 --repeats 3 \\
        --paths "gnnkd;PyG edge_index" --processes

Without a data root the graphs are random ones of the same size; `arxiv` is the one of `make_synthetic.py synth-arxiv`
where there is a data root. Ratios are PyG's time by ours, on the clock and of the processors, which a busy machine adds
less to. Peaks are torch's own count on top of what was there before; with `--processes` the most resident memory of a
process of its own for each path, which reads the graph and takes two steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from printed import table
from step_work import NAMES, OURS, RATE, STEPS, WIDTH, Make, sample
from timing import medians, peak_bytes, rounds

from gnnkd.allocator import keep_freed_memory
from gnnkd.nn.dropout import dropout

Row = dict[str, object]


def measure(name: str, args: argparse.Namespace) -> Iterator[Row]:
    """One row for each graph, input dropout and implementation."""
    device = torch.device(args.device)
    for size in args.sizes.split(","):
        data = sample(size, args)
        for input_dropout in (float(p) for p in args.input_dropouts.split(",")):
            works = {way: make() for way, make in chosen(STEPS[name](data, input_dropout), args).items()}
            times = rounds(works, repeats=args.repeats, device=device)
            first = next(iter(works))
            for way, found in times.items():
                clock, processor = (statistics.median(one[i] for one in found) for i in range(2))
                ratios = [
                    statistics.median(own[i] / base[i] for own, base in zip(found, times[first], strict=True))
                    for i in range(2)
                ]
                peak = (
                    alone(name, size, input_dropout, way, args)
                    if args.processes
                    else peak_bytes(works[way], device) / 2**20
                )
                yield {
                    "step": name,
                    "graph": data.name,
                    "input_dropout": input_dropout,
                    "path": way,
                    "ms": clock,
                    "ratio": ratios[0],
                    "processor_ms": processor,
                    "processor_ratio": ratios[1],
                    "peak_mb": peak,
                }


def chosen(steps: dict[str, Make], args: argparse.Namespace) -> dict[str, Make]:
    """Those that `--paths` names; all if it names none. Ratios are to the first of them.

    Raises:
        SystemExit: none is left.
    """
    names = args.paths.split(";") if args.paths else list(steps)
    found = {way: make for way, make in steps.items() if way in names}
    if not found:
        sys.exit(f"error: --paths names none of {'; '.join(steps)}")
    return found


def alone(name: str, size: str, input_dropout: float, way: str, args: argparse.Namespace) -> float:
    """Most resident memory in MB (2^20) of a process that takes two steps on one path."""
    command = [sys.executable, __file__, "--alone", "--sections", name, "--sizes", size, "--paths", way]
    command += ["--input_dropouts", str(input_dropout), "--threads", str(args.threads), "--device", args.device]
    command += ["--data_root", args.data_root, *(["--keep_freed"] if args.keep_freed else [])]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def print_peak(args: argparse.Namespace) -> None:
    """Take two steps and print the most memory that this process had, where the system says it."""
    (make,) = chosen(STEPS[args.sections](sample(args.sizes, args), float(args.input_dropouts)), args).values()
    step = make()
    step(), step()
    # Not getrusage: what a parent held before this process began is counted there.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    print(int(line.split()[1]) / 1024)


def dropout_section(args: argparse.Namespace) -> Iterator[Row]:
    """Dropout alone, forward and backward: ours and torch's."""
    device = torch.device(args.device)
    for rows in (200, 2708, 7650):
        x = torch.randn(rows, WIDTH, device=device, requires_grad=True)
        slope = torch.randn_like(x)
        works = {
            OURS: lambda x=x, slope=slope: torch.autograd.grad(dropout(x, RATE, True), x, slope),
            "torch": lambda x=x, slope=slope: torch.autograd.grad(F.dropout(x, RATE, True), x, slope),
        }
        times = medians(works, repeats=args.repeats, device=device)
        for way, ms in times.items():
            ns = 1e6 * ms / x.numel()
            yield {
                "step": "dropout",
                "shape": f"{rows} x {WIDTH}",
                "path": way,
                "ns_each": ns,
                "ratio": ms / times[OURS],
            }


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    **{name: partial(measure, name) for name in STEPS},
    "dropout": dropout_section,
}
"""What is measured; each yields rows of one table."""


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="cora,photo", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--repeats", type=int, default=15, help="rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data_root", default="", help="folder of the real graphs")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="what to measure")
    parser.add_argument("--input_dropouts", default=f"0,{RATE}", help="rates of the features' dropout")
    parser.add_argument("--paths", help="some of the paths, between semicolons; ratios are to the first that is left")
    parser.add_argument("--processes", action="store_true", help="measure peaks in processes of their own")
    parser.add_argument("--keep_freed", action="store_true", help="set the allocator as the command line does")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    if args.keep_freed:
        keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    warnings.filterwarnings(
        "ignore", message="Sparse (CSR tensor support is in beta state|invariant checks are implicitly)"
    )
    if args.alone:
        print_peak(args)
        return
    print(
        f"torch {torch.__version__}, {platform.machine()}, {args.device}, {args.threads} threads, "
        f"median of {args.repeats}\n"
    )
    found = {}
    for section in args.sections.split(","):
        found[section] = list(SECTIONS[section](args))
        cells = [[f"{v:.3g}" if isinstance(v, float) else v for v in row.values()] for row in found[section]]
        print(table(list(found[section][0]), cells), "\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
