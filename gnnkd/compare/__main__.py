"""Compare methods: `python -m gnnkd.compare --dataset cora citeseer --methods mlp,glnn,dgd --teacher gcn --seeds 10`.

Cells that are finished with the same configuration, also by `python -m gnnkd.main`, are taken as they are; the same
command again goes on where it was interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from gnnkd.compare.command import parse
from gnnkd.main import ended

if TYPE_CHECKING:
    from gnnkd.compare.comparison import Comparison


def run(comparison: Comparison) -> None:
    """Train what is missing, write tables and page, and print the table.

    Raises:
        UserError: anything wrong with data or places, or nothing can be run.
        SystemExit: with code 1, some cells failed.
    """
    from gnnkd.compare import course
    from gnnkd.held import held
    from gnnkd.places import writable

    for folder in (comparison.out, comparison.report):
        writable(folder)
    # Tables of what is finished may be looked at while the rest is trained.
    hold = held(comparison.report, what="compares", flag="--report") if comparison.train else nullcontext()
    with hold:
        if not course.run(comparison):
            raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0; 1 (some cells failed); 2 (a user's mistake), 130 (Ctrl-C) or 143 (SIGTERM).
    """
    return ended(lambda: run(parse(argv)), again="the same command")


if __name__ == "__main__":
    sys.exit(main())
