"""The command line: `python -m gnnkd.main`. Modes, places and messages; no mathematics."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, final

from gnnkd.errors import UserError

if TYPE_CHECKING:
    from gnnkd.halves import Task
    from gnnkd.places import Branch, Place
    from gnnkd.request import Request
    from gnnkd.train.progress import Progress


@final
class Terminated(KeyboardInterrupt):
    """SIGTERM, handled as Ctrl-C is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code, as `ended` has it."""

    def work() -> None:
        from gnnkd.config import parse

        run(parse(sys.argv[1:] if argv is None else argv))

    return ended(work)


def ended(work: Callable[[], None], *, again: str = "the same command with --resume") -> int:
    """Do a command's work and return its exit code: 0, 2 (a user's mistake), 130 (Ctrl-C) or 143 (SIGTERM).

    `again` is how an interrupted one continues.
    """
    try:
        with _terminable():
            work()
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except UserError as mistake:
        print(f"gnnkd: error: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"gnnkd: interrupted; {again} continues where it stopped", file=sys.stderr)
        return 143 if isinstance(interrupt, Terminated) else 130
    return 0


def cli() -> NoReturn:
    """The console script."""
    sys.exit(main())


@contextmanager
def _terminable() -> Iterator[None]:
    def stop(*_: object) -> NoReturn:
        raise Terminated

    try:
        former = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread, which alone hears signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def run(request: Request) -> None:
    """Do what is asked for, seed after seed.

    Raises:
        UserError: anything wrong with names, data or places.
    """
    from gnnkd import options, processes, tensorboard
    from gnnkd.allocator import keep_freed_memory
    from gnnkd.places import writable

    if request.mode == "tea/stu":
        request.config.check_generators()
    device = options.device(request.device)
    if request.mode != "tea":
        request.config.check_shared("student", processes.launched())
    if request.tensorboard:
        tensorboard.check()
    writable(request.out)
    keep_freed_memory()
    with processes.joined(device) as here:
        _seeds(request if processes.rank() == 0 else replace(request, quiet=True), here)


def _seeds(request: Request, device: str) -> None:
    """Seed after seed on one device."""
    from gnnkd import messages, processes
    from gnnkd.train.progress import progress

    config = request.config
    with processes.first_here():
        dataset = config.load(request.data_root)
    first = config.task(dataset, request.seeds[0])
    for note in config.notes(first):
        _say(request, f"{first.name}: {note}")
    if request.mode == "stu" and config.logits is None:
        _check_teachers(request, _branch(request, first))
    elif config.logits is None and _trains_teachers(request, _branch(request, first)):
        config.check_shared("teacher", processes.world())
    shown = progress(quiet=request.quiet)
    results = []
    for seed in request.seeds:
        task = first if seed == first.seed else config.task(dataset, seed)
        results.append(_seed(request, task.to(device), shown))
    if len(request.seeds) > 1:
        _print(messages.mean(results))


# -- places ----------------------------------------------------------------------------------------------------


def _branch(request: Request, task: Task) -> Branch:
    from gnnkd.places import Branch

    return Branch.of(request.out, task.name, task.protocol, task.setting, request.config.teacher_model)


def _teacher_of(request: Request, branch: Branch, seed: int) -> Place:
    """The teacher that a student of this seed learns from when nothing is trained: the tagged one if it is there."""
    tagged = branch.teacher(seed, request.tag)
    return tagged if tagged.finished else branch.teacher(seed)


def _check_teachers(request: Request, branch: Branch) -> None:
    from gnnkd.messages import teacher_command

    teachers = {seed: _teacher_of(request, branch, seed) for seed in request.seeds}
    missing = [seed for seed, place in teachers.items() if not place.finished]
    if missing:
        folder = branch.teacher(missing[0]).folder
        which = folder if len(missing) == 1 else f"{folder.parent}, seeds {', '.join(map(str, missing))}"
        started = any(branch.teacher(seed).checkpoint.exists() for seed in missing)
        raise UserError(
            f"no finished teacher in {which}; make it with: {teacher_command(request, missing, resume=started)}"
        )


def _trains_teachers(request: Request, branch: Branch) -> bool:
    """Whether a teacher is not finished yet, or is to be overwritten."""

    def trained(seed: int) -> bool:
        own = branch.teacher(seed, request.tag)
        place = own if request.mode == "tea" else _teacher_of(request, branch, seed)
        return not place.finished or (request.overwrite and place == own)

    return any(trained(seed) for seed in request.seeds)


# -- one seed --------------------------------------------------------------------------------------------------


def _seed(request: Request, task: Task, shown: Progress) -> dict[str, Any]:
    """Both stages of one seed, or the one asked for; the result of the last."""
    from gnnkd.claims import check_teacher

    branch, wanted = _branch(request, task), request.config.describe_teacher(task)
    request.config.check_task(task, branch.folder, student=request.mode != "tea")
    if request.config.logits is not None:
        return _student(request, task, branch, None, wanted, shown)
    if request.mode == "stu":
        teacher = _teacher_of(request, branch, task.seed)
        there = check_teacher(teacher, wanted, request.config.given, request.config.DIFFERING)
    else:
        teacher = _place_of_teacher(request, branch, task.seed, wanted)
        # A plain teacher is not trained anew for every student with a tag of its own.
        own = teacher == branch.teacher(task.seed, request.tag)
        result = _stage(request, task, teacher, "teacher", wanted, shown, overwrite=request.overwrite and own)
        there = wanted
    return result if request.mode == "tea" else _student(request, task, branch, teacher, there, shown)


def _place_of_teacher(request: Request, branch: Branch, seed: int, wanted: dict[str, Any]) -> Place:
    """`teacher@tag` with a tag, unless a student follows and the plain teacher is finished and the same."""
    from gnnkd.claims import differences
    from gnnkd.places import read_json

    untagged = branch.teacher(seed)
    if not request.tag or request.mode == "tea":
        return branch.teacher(seed, request.tag)
    same = untagged.finished and untagged.config.exists() and not differences(read_json(untagged.config), wanted)
    return untagged if same else branch.teacher(seed, request.tag)


def _student(
    request: Request, task: Task, branch: Branch, teacher: Place | None, there: dict[str, Any], shown: Progress
) -> dict[str, Any]:
    config = request.config
    base = config.base if config.base_given else None
    place = branch.student(task.seed, config.student_model, config.method, teacher, base=base, tag=request.tag)
    description = config.describe_student(task, there)
    return _stage(request, task, place, "student", description, shown, overwrite=request.overwrite)


def _stage(
    request: Request,
    task: Task,
    place: Place,
    role: str,
    description: dict[str, Any],
    shown: Progress,
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Train one network unless it is there already, and print its result."""
    from gnnkd import api, messages, processes, tensorboard
    from gnnkd.claims import claim, undisturbed
    from gnnkd.places import read_result, summarise

    first = processes.rank() == 0  # of several processes the first one claims and writes
    differing, resume = request.config.DIFFERING, request.resume
    with undisturbed(place, overwrite=overwrite):
        if processes.any_of(first and claim(place, description, differing, resume=resume, overwrite=overwrite)):
            run_stage = api.run_teacher if role == "teacher" else api.run_student
            with tensorboard.beside(shown, place.folder, wanted=request.tensorboard) as told:
                result = run_stage(task, request.config, place, resume=resume, progress=told)
                tensorboard.rest_of(told, place.metrics)
        else:
            reused = "is finished, with the same configuration: reused (--overwrite runs it again)"
            _say(request, f"{place.folder} {reused}")
            result = read_result(place.result)
    if first:
        summarise(place)
    processes.wait()  # nobody reads before all is written
    _print(messages.line(result, place.folder))
    return result


def _print(text: str) -> None:
    from gnnkd import processes

    if processes.rank() == 0:
        print(text)


def _say(request: Request, text: str) -> None:
    if not request.quiet:
        print(text)


if __name__ == "__main__":
    cli()
