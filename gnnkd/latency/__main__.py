"""A teacher against its student: `python -m gnnkd.latency --dataset cora --split cpf --teacher sage --method glnn`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnkd.arguments import answered
from gnnkd.latency.command import Asked, parse

if TYPE_CHECKING:
    from gnnkd.data.task import NodeTask
    from gnnkd.latency.networks import Pair


def run(asked: Asked) -> None:
    """Measure, write JSON, Markdown and picture, and print the table.

    Raises:
        UserError: anything wrong with data, places or networks.
    """
    from rich.console import Console

    from gnnkd import options
    from gnnkd.allocator import keep_freed_memory
    from gnnkd.compare.progress import board
    from gnnkd.latency import networks, writing
    from gnnkd.places import writable

    request, config = asked.request, _config(asked)
    device = options.device(request.device)
    writable(request.out)
    keep_freed_memory()
    task = config.task(config.load(request.data_root).in_full(), request.seeds[0])
    if not request.quiet:
        for note in config.notes(task):
            print(f"{task.name}: {note}")
    pair = (
        networks.fresh(config, task)
        if asked.untrained
        else networks.finished(config, task, request.out, request.tag, asked.words)
    )
    folder = _folder(asked, task, device)
    with board("latency", 0, quiet=request.quiet) as shown:
        report = _report(asked, task, pair, device, shown, folder)
    # Outside a terminal rich takes 80 columns and would cut the table.
    Console(width=None if sys.stdout.isatty() else 200).print(writing.table(report))
    for note in writing.notes(report):
        print(note)
    print(f"({folder / writing.MARKDOWN})")


def _config(asked: Asked) -> Any:
    return asked.request.config


def _report(asked: Asked, task: NodeTask, pair: Pair, device: str, shown: Any, folder: Path) -> dict[str, Any]:
    """The whole report; in the folder lies that of the sizes so far after each of them."""
    from gnnkd.latency.measuring import Effort, measure
    from gnnkd.latency.reports import report
    from gnnkd.latency.room import Room
    from gnnkd.latency.writing import load, write

    effort = Effort(
        sizes=asked.sizes,
        repeats=asked.repeats,
        seconds=asked.seconds,
        threads=asked.threads,
        engines=asked.engines,
    )
    room = Room.half() if asked.memory is None else Room(asked.memory)
    before = load()
    method = None if asked.untrained else asked.request.config.method
    found: dict[str, Any] = {}

    def heard(rows: list[Any]) -> None:
        load_of = (before, load())
        found.update(
            report(rows, pair, task, effort, room, device=device, method=method, load=load_of, command=asked.command)
        )
        write(found, folder)

    measure(pair.teacher, pair.student, task, effort=effort, device=device, room=room, board=shown, heard=heard)
    return found


def _folder(asked: Asked, task: NodeTask, device: str) -> Path:
    """`OUT/latency/<data>-<networks>[@tag]-seed<k>-<device>`."""
    config, tag = asked.request.config, asked.request.tag
    base = f"+{config.base}" if config.base is not None and config.base_given else ""
    how = "untrained" if asked.untrained else f"{config.method}{base}"
    names = (task.name, task.protocol, task.setting, config.teacher_model, config.student_model)
    tagged = f"@{tag}" if tag else ""
    return asked.request.out / "latency" / f"{'-'.join(names)}-{how}{tagged}-seed{task.seed}-{device}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 (a user's mistake) or 130 (Ctrl-C)."""
    return answered(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
