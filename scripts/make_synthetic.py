"""Draw a graph of real size and write it below the data root, where `--dataset synth-arxiv` finds it.

    python scripts/make_synthetic.py synth-arxiv
    python scripts/make_synthetic.py synth-products --half
    python scripts/make_synthetic.py --nodes 20000 --edges 100000 --name synth-1e5

The last one is loaded by the path of its `graph.json`. Any flag changes that one value of the plan; without a name to
begin with, --nodes and --edges are needed. See `gnnkd.data.plan` for what is drawn.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
import time
from typing import Any

from gnnkd.arguments import Parser, answered
from gnnkd.data.location import data_root
from gnnkd.data.plan import Plan
from gnnkd.data.synthetic import PLANS, check_room, make, place
from gnnkd.errors import UserError, unknown

WHOLE = ("nodes", "edges", "features", "classes", "communities", "seed")
REAL = ("exponent", "reach", "stray", "blur", "alike", "signal")
SWITCHES = ("popular", "half")


def parsed() -> argparse.Namespace:
    """The command line; what is not said is None."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", help=f"{', '.join(PLANS)}: sizes and settings to begin with")
    parser.add_argument("--name", help="of the folder and the graph; by default the one to begin with")
    parser.add_argument("--data_root", help="of the raw data; by default $GNNKD_DATA, else in the user's cache")
    for kind, names in ((int, WHOLE), (float, REAL)):
        for name in names:
            parser.add_argument(f"--{name}", type=kind)
    for name in SWITCHES:
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--fractions", type=float, nargs=3, metavar=("TRAIN", "VAL", "TEST"))
    return parser.parse_args()


def planned(args: argparse.Namespace) -> Plan:
    """The plan that the flags say.

    Raises:
        UserError: an unknown name, or a size that is not said.
    """
    said: dict[str, Any] = {name: getattr(args, name) for name in (*WHOLE, *REAL, *SWITCHES)}
    said["fractions"] = None if args.fractions is None else tuple(args.fractions)
    said = {name: value for name, value in said.items() if value is not None}
    if args.base is None:
        if not {"nodes", "edges"} <= set(said) or not args.name:
            raise UserError(f"give --nodes, --edges and --name, or one of {', '.join(PLANS)} to begin with")
        return Plan(**said)
    if args.base not in PLANS:
        raise unknown("graph", args.base, PLANS)
    if said and not args.name and set(said) - {"half", "seed"}:
        raise UserError(f"{', '.join(sorted(said))} would make another graph of {args.base}; give it a --name")
    return dataclasses.replace(PLANS[args.base], **said)


def main() -> None:
    """Make it, and print what it is like, the seconds that it took and the most memory."""
    args = parsed()
    plan = planned(args)
    name = args.name or args.base
    folder = place(name, data_root(args.data_root))
    print(f"{folder}: {plan.disk / 1e9:.2f} GB of disk, at most {plan.memory / 1e9:.2f} GB of memory", flush=True)
    check_room(plan, folder)
    start, spent = time.perf_counter(), time.process_time()
    card = make(plan, folder, name=name)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    degrees = ", ".join(f"{what} {count}" for what, count in card["degrees"].items())
    print(f"{card['nodes']} nodes, {card['edges']} directed edges; degrees: {degrees}")
    print(
        f"homophily {card['homophily']}; classes from {card['smallest_class']} to {card['largest_class']} of the nodes"
    )
    print(f"{seconds:.1f} s ({spent:.1f} s of the processor), peak memory {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    sys.exit(answered(main))
