"""Steps of knowledge distillation on images: our training, and a plain loop written by hand that does the same.

The plain loop is what scripts in the style of mdistiller do: images varied one by one in a DataLoader's workers, the
teacher without gradients, `loss.backward()`, `torch.optim.SGD`, and loss and accuracies read after each step. Both use
the same networks, so what differs is all around them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gnnkd.allocator import keep_freed_memory
from gnnkd.data.image_task import ImageTask
from gnnkd.distillers.kd import Kd
from gnnkd.images.networks import built
from gnnkd.train.images import image_fit
from gnnkd.train.lessons import Cached
from gnnkd.train.settings import ImageTrainSettings
from gnnkd.types import Step

Row = dict[str, object]
Seconds = tuple[float, float]
"""On the clock, and of the process's processors: those of the plain loop's workers are not among them."""
Round = Callable[[], Seconds]
"""Trains for `--steps` steps; what they took."""
OURS, PLAIN = "gnnkd", "plain loop"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    OURS: {},
    "contiguous": {"channels_last": False},
    "channels_last": {"channels_last": True},
    "bfloat16": {"channels_last": True, "precision": "bfloat16"},
    "compile": {"channels_last": True, "compile": True},
    "cache_teacher": {"channels_last": True, "cache_teacher": True},
}
"""Our training with some options of `ImageTrainSettings`."""
EPOCHS = 240
"""Of a schedule: a kept logit is asked for in this many epochs, and a teacher knows as much as on their average."""
TEMPERATURE, SOFT = 4.0, 0.9


def steps(args: argparse.Namespace) -> Iterator[Row]:
    """One row for the plain loop and one for each of `args.variants`, measured in turn, round after round.

    Each has a process of its own: ours keeps freed memory, as `gnnkd.main` does, and the plain loop has the system's
    allocator.
    """
    names = [PLAIN, *args.variants.split(",")]
    seen: dict[str, list[Seconds]] = {name: [] for name in names}
    with ExitStack() as stack:
        ways = {name: stack.enter_context(process(name, args)) for name in names}
        for round_ in range(args.repeats + 1):
            for name, way in ways.items():
                way.send(None)
                seconds = way.recv()
                if round_:  # the first round warms up caches
                    seen[name].append(seconds)
    for name, times in seen.items():
        clock, processor = (statistics.median(part) / args.steps for part in zip(*times, strict=True))
        ratios = sorted(a / b for (a, _), (b, _) in zip(seen[PLAIN], times, strict=True))
        spent = statistics.median(a / b for (_, a), (_, b) in zip(seen[PLAIN], times, strict=True))
        yield {
            "step": f"{args.teacher} -> {args.student}, {_title(name, args)}",
            "ms": 1e3 * clock,
            "images_per_second": args.batch_size / clock,
            "times_as_fast": f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})",
            "processor_ms": 1e3 * processor,
            "ratio_of_processor_ms": spent,
        }


def _title(name: str, args: argparse.Namespace) -> str:
    return f"{PLAIN}, {args.workers} workers" if name == PLAIN else OURS if name == OURS else f"{OURS}, {name}"


@contextmanager
def process(name: str, args: argparse.Namespace) -> Iterator[Connection]:
    """A process that trains one way; it answers each message with the seconds of a round."""
    context = get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=serve, args=(name, args, there))
    child.start()
    there.close()
    try:
        yield here
    finally:
        here.close()  # which ends the child
        child.join()


def serve(name: str, args: argparse.Namespace, asked: Connection) -> None:
    """Make one way ready, and train a round for each message, until there are no more."""
    from bench_images import plain_loader, sample

    if name != PLAIN:
        keep_freed_memory()
    torch.set_num_threads(args.threads)
    with redirect_stdout(None):
        data = sample(args)
    torch.manual_seed(0)
    teacher, student = (
        built(network, data.size, data.in_channels, data.n_classes, {}).to(args.device)
        for network in (args.teacher, args.student)
    )
    work = (
        plain_loop(teacher, student, plain_loader(data, args), args)
        if name == PLAIN
        else ours(teacher, student, data, args, VARIANTS[name])
    )
    try:
        while True:
            asked.recv()
            asked.send(work())
    except EOFError:
        pass


@contextmanager
def measured() -> Iterator[list[float]]:
    """A list that the seconds of the block are put into: on the clock, and of this process's processors."""
    found: list[float] = []
    start, spent = time.perf_counter(), time.process_time()
    yield found
    found += [time.perf_counter() - start, time.process_time() - spent]


def ours(
    teacher: nn.Module, student: nn.Module, data: ImageTask, args: argparse.Namespace, options: Mapping[str, Any]
) -> Round:
    """Whole epochs of our training, as many images as make the steps."""
    few = data.split.train & (data.split.train.cumsum(0) <= args.steps * args.batch_size)
    task = replace(data, split=replace(data.split, train=few, val=torch.zeros_like(few)))
    settings = ImageTrainSettings(batch_size=args.batch_size, epochs=10**6, **options)
    course = image_fit(student, task, Kd(), teacher, settings, seed=0).course
    if isinstance(course.teacher, Cached):
        views = data.augment.views
        asked = views * (1 - (1 - 1 / views) ** EPOCHS) / EPOCHS  # the mean share of images in a view that is new
        course.teacher.known = torch.rand_like(course.teacher.known, dtype=torch.float32) > asked
    epochs = iter(range(10**6))

    def work() -> Seconds:
        with measured() as seconds:
            found = course.epoch(Step(next(epochs), 10**6))
            [float(value) for value in found.scalars.values()]  # waits for the device
        return seconds[0], seconds[1]

    return work


def plain_loop(teacher: nn.Module, student: nn.Module, loader: DataLoader[Any], args: argparse.Namespace) -> Round:
    """Steps between two moments when the workers have their batches ready."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    teacher.eval()

    def step(x: Tensor, y: Tensor) -> tuple[float, float, float]:
        x, y = x.to(args.device), y.to(args.device)
        optimizer.zero_grad()
        logits = student.train()(x).logits
        with torch.no_grad():
            taught = teacher(x).logits
        log_s, t = F.log_softmax(logits / TEMPERATURE, 1), F.softmax(taught / TEMPERATURE, 1)
        soft = F.kl_div(log_s, t, reduction="none").sum(1).mean() * TEMPERATURE**2
        loss = (1 - SOFT) * F.cross_entropy(logits, y) + SOFT * soft
        loss.backward()
        optimizer.step()
        best = logits.topk(5, 1).indices == y[:, None]
        return float(loss.detach()), float(best[:, 0].float().mean()), float(best.any(1).float().mean())

    def work() -> Seconds:
        batches = iter(loader)
        step(*next(batches)[:2])  # by then the workers are up, and have some batches ready, as in mid-epoch
        with measured() as seconds:
            for _ in range(args.steps):
                step(*next(batches)[:2])
        return seconds[0], seconds[1]

    return work
