"""Seconds of a training step of image methods beside KD's: data, teacher, student, method and optimizer.

    python scripts/bench_methods.py --methods gkdfd --teacher resnet32x4 --student resnet8x4 --threads 2
    python scripts/bench_methods.py --methods gkdfd,gkdfd:recipe=prototype,sp,rkd --device cuda --precision bfloat16

Steps are those of a real training (`gnnkd.train.minibatches`), with the presets of method and networks; `name:x=value`
sets an option of the method. Rounds of `--steps` steps alternate among the methods, so that a busy machine slows all of
them, and KD's time is taken from the same round; time of the processors is steadier on a CPU. Without a data root the
images are random ones of CIFAR-100's kind. An epoch is as many images as make the steps, `--per_class` of a class, so
that balanced batches are full. Both networks have random weights: no work here depends on their values. Memory is what
torch holds at most during a round on top of what it held before: weights, momenta and the images themselves are not
among it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from bench_images import sample
from printed import table
from timing import Work, peak_bytes, rounds

from gnnkd import distillers
from gnnkd.allocator import keep_freed_memory
from gnnkd.config import parse
from gnnkd.data.image_task import ImageTask
from gnnkd.images.config import ImageConfig
from gnnkd.images.networks import built
from gnnkd.nn.images import ImageNetwork
from gnnkd.train.images import image_fit
from gnnkd.types import Step

Row = dict[str, object]
BASE = "kd"
AFTER_WARMUP = 100
"""The epoch that is measured first: by then no method warms up any more."""
EPOCHS = 240


def config(spec: str, args: argparse.Namespace) -> ImageConfig:
    """The configuration of a training by one method, `name[:option=value ...]`, presets included."""
    name, *options = spec.split(":")
    pairs = [f"method.{option}" for option in options]
    pairs += [f"student.{option}={getattr(args, option)}" for option in ("batch_size", "precision", "compile")]
    flags = ["--dataset", "cifar100", "--teacher", args.teacher, "--student", args.student, "--method", name]
    asked = parse([*flags, "--set", *pairs]).config
    assert isinstance(asked, ImageConfig)
    return asked


def few(data: ImageTask, images: int, per_class: int) -> ImageTask:
    """The task with so many of its training images: `per_class` of each class in turn, until there are enough."""
    rows = data.split.train.nonzero().flatten()
    y = data.y[rows]
    among = torch.zeros_like(y)
    for c in range(data.n_classes):
        among[y == c] = torch.arange(int((y == c).sum()), device=y.device)
    order = torch.argsort((among // per_class * data.n_classes + y) * per_class + among % per_class)
    train = torch.zeros_like(data.split.train)
    train[rows[order[:images]]] = True
    return replace(data, split=replace(data.split, train=train, val=torch.zeros_like(train)))


def round_of(asked: ImageConfig, data: ImageTask, teacher: ImageNetwork, student: ImageNetwork) -> Work:
    """An epoch of training by the configured method, ready to be repeated."""
    chosen = {name: value for name, value in asked.options.items() if name != "base"}
    method = distillers.build(asked.method, base=asked.base or "auto", student_needs_graph=True, **chosen)
    course = image_fit(student, data, method, teacher, asked.student_train, seed=0).course
    epochs = count(AFTER_WARMUP)

    def work() -> None:
        found = course.epoch(Step(next(epochs), EPOCHS))
        [float(value) for value in found.scalars.values()]  # as the log reads them

    return work


def measured(args: argparse.Namespace) -> Iterator[Row]:
    """A row for KD and one for each method."""
    specs = list(dict.fromkeys([BASE, *args.methods.split(",")]))
    device = torch.device(args.device)
    data = few(sample(args), args.steps * args.batch_size, args.per_class)
    teacher, student = (
        built(name, data.size, data.in_channels, data.n_classes, {}).to(device) for name in (args.teacher, args.student)
    )
    works = {spec: round_of(config(spec, args), data, teacher, copy.deepcopy(student)) for spec in specs}
    times = rounds(works, repeats=args.rounds, device=device)
    for spec, work in works.items():
        pairs = list(zip(times[spec], times[BASE], strict=True))
        ratios, spent = ([own[i] / base[i] for own, base in pairs] for i in range(2))
        yield {
            "method": spec,
            "ms_a_step": statistics.median(clock for clock, _ in times[spec]) / args.steps,
            "times_kd": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "times_kd_of_processors": statistics.median(spent),
            "peak_MiB": peak_bytes(work, device) / 2**20,
        }


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="gkdfd", help="names, comma separated; name:option=value:option=value")
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--rounds", type=int, default=7, help="measured, after one that is not")
    parser.add_argument("--per_class", type=int, default=8, help="training images of a class are a multiple of this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"), help="of the forward passes")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the forward passes")
    parser.add_argument("--data_root", default="", help="folder of the real images")
    parser.add_argument("--images", type=int, default=50000, help="images to draw the epoch from")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    processor = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.machine()
    print(
        f"torch {torch.__version__}, {processor}, {os.cpu_count()} cores, {args.threads} threads, {args.teacher} -> "
        f"{args.student}, batches of {args.batch_size}, {args.precision}, {args.rounds} rounds of {args.steps} steps"
    )
    rows = list(measured(args))
    cells = [[f"{value:.3g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    print("\n" + table([name.replace("_", " ") for name in rows[0]], cells))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
