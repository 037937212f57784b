"""Learning from images without labels: `python -m gnnkd.selfsup --dataset digits --method simclr --models cnn`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gnnkd.main import ended
from gnnkd.selfsup.command import Asked, parse

if TYPE_CHECKING:
    from gnnkd.data.image_task import ImageTask
    from gnnkd.places import Place
    from gnnkd.train.progress import Progress


def run(asked: Asked) -> None:
    """Seed after seed.

    Raises:
        UserError: anything wrong with data or places.
    """
    from gnnkd import options, processes, tensorboard
    from gnnkd.allocator import keep_freed_memory
    from gnnkd.places import writable
    from gnnkd.train.progress import progress

    device = options.device(asked.device)
    if asked.tensorboard:
        tensorboard.check()
    writable(asked.out)
    keep_freed_memory()
    with processes.joined(device) as here:
        quiet = asked.quiet or processes.rank() != 0
        _seeds(replace(asked, quiet=quiet), here, progress(quiet=quiet))


def _seeds(asked: Asked, device: str, shown: Progress) -> None:
    from gnnkd.data import images

    plan = asked.plan
    dataset = images.load(plan.dataset, root=asked.data_root, size=plan.data.size, workers=plan.data.workers)
    for seed in asked.seeds:
        task = plan.task(dataset, seed)
        if seed == asked.seeds[0] and not asked.quiet:
            for note in task.notes:
                print(f"{task.name}: {note}")
        _seed(asked, task.to(device), shown)


def _seed(asked: Asked, task: ImageTask, shown: Progress) -> None:
    """Train with one seed unless that is done, and print its result."""
    from gnnkd import processes, tensorboard
    from gnnkd.claims import claim, undisturbed
    from gnnkd.places import Branch, read_result, summarise
    from gnnkd.selfsup import results
    from gnnkd.selfsup.config import inside
    from gnnkd.selfsup.stage import made

    plan, first = asked.plan, processes.rank() == 0
    branch = Branch.of(asked.out, task.name, task.protocol, task.setting, results.ALONE)
    place = branch.student(task.seed, "+".join(plan.models), plan.method, None, tag=asked.tag)
    inside(plan, place.folder)
    made(task, plan)  # whatever does not fit is said before the place is claimed
    mine, words = plan.describe(task), plan.DIFFERING
    with undisturbed(place, overwrite=asked.overwrite):
        if processes.any_of(first and claim(place, mine, words, resume=asked.resume, overwrite=asked.overwrite)):
            with tensorboard.beside(shown, place.folder, wanted=asked.tensorboard) as told:
                result = results.run(task, plan, place, resume=asked.resume, progress=told)
                tensorboard.rest_of(told, place.metrics)
        else:
            if not asked.quiet:
                print(f"{place.folder} is finished, with the same configuration: reused (--overwrite runs it again)")
            result = read_result(place.result)
    if first:
        summarise(place)
        print(_line(result, place))
    processes.any_of(False)  # nobody reads before all is written


def _line(result: Mapping[str, Any], place: Place) -> str:
    where = f"{result['dataset']} {result['protocol']}, {result['student_model']} by {result['method']}"
    return (
        f"{where}, seed {result['seed']}: {result['neighbours']} neighbours say test {result['test_acc']:.2%} "
        f"(best by validation), {result['test_acc_last']:.2%} after the last epoch, "
        f"{result['test_acc_untrained']:.2%} before the first; validation {result['val_acc']:.2%}, "
        f"{result['seconds']:.1f} s ({place.folder})"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 (a user's mistake), 130 (Ctrl-C) or 143 (SIGTERM)."""
    return ended(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
