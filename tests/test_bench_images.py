"""The benchmarks of images run, and the plain loop does what ours does; nothing here asks how fast something is."""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, on one thread."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    yield importlib.import_module("bench_images")
    for name in ("bench_images", "bench_methods", "image_step", "printed", "timing"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("part", ["data", "crop"])
def test_it_runs(bench, part, monkeypatch, capsys, tmp_path) -> None:
    numbers = tmp_path / "numbers.json"
    few = ("--images", "96", "--workers", "1", "--batch_size", "32", "--repeats", "1")
    monkeypatch.setattr(sys, "argv", ["bench", "--part", part, *few, "--json", str(numbers)])
    bench.main()
    assert "| gnnkd |" in capsys.readouterr().out
    assert json.loads(numbers.read_text())[part][0]["ratio"] == 1


def test_an_image_of_the_plain_loop_is_one_of_our_views(bench) -> None:
    args = argparse.Namespace(data_root="", images=10, device="cpu")
    data = bench.sample(args)
    from gnnkd.data.augment import Normalisation, seen, view_pixels

    normalised, table = Normalisation.of(data.mean, data.std), view_pixels(data.augment, data.size)
    plain = bench.OneByOne(data)
    assert len(plain) == 10
    for row in range(10):
        x, y, index = plain[row]
        pixels = data.store.data[row].expand(data.augment.views, -1, -1, -1)
        views = normalised(seen(pixels, torch.arange(data.augment.views), table))
        assert float((views - x).abs().amax((1, 2, 3)).min()) < 1e-5
        assert (y, index) == (int(data.y[row]), row)


def test_steps(bench, monkeypatch, capsys) -> None:
    few = ("--images", "96", "--workers", "1", "--batch_size", "16", "--repeats", "1", "--steps", "2", "--threads", "1")
    networks = ("--teacher", "resnet8", "--student", "resnet8", "--variants", "gnnkd,cache_teacher")
    monkeypatch.setattr(sys, "argv", ["bench", "--part", "step", *few, *networks])
    bench.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "resnet8 -> resnet8" in line]
    assert [line.split("|")[1].split(", ", 1)[1].strip() for line in lines] == [
        "plain loop, 1 workers",
        "gnnkd",
        "gnnkd, cache_teacher",
    ]
    assert "1.00 (1.00 .. 1.00)" in lines[0]


def test_a_step_of_the_plain_loop_does_what_ours_does(bench) -> None:
    """Equal weights after three steps on the same batches."""
    from gnnkd.images.networks import built

    step = importlib.import_module("image_step")
    args = argparse.Namespace(data_root="", images=60, device="cpu", batch_size=16, steps=3)
    data = bench.sample(args)
    torch.manual_seed(0)
    teacher, student = (built("resnet8", 32, 3, data.n_classes, {}) for _ in range(2))
    other = copy.deepcopy(student)
    step.ours(copy.deepcopy(teacher), student, data, args, {})()
    few = data.split.train & (data.split.train.cumsum(0) <= args.steps * args.batch_size)
    task = replace(data, split=replace(data.split, train=few))
    batches = [(b.x, b.y, b.index) for b in task.epoch(0, args.batch_size)]
    args.steps = 2  # after the one that is not measured
    step.plain_loop(teacher, other, batches, args)()
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-4, atol=1e-5)


FEW = ("--images", "96", "--batch_size", "16", "--steps", "2", "--rounds", "1", "--threads", "1", "--per_class", "2")
PAIR = ("--teacher", "resnet8", "--student", "resnet8")


def test_methods_beside_kd(bench, monkeypatch, capsys, tmp_path) -> None:
    methods, numbers = importlib.import_module("bench_methods"), tmp_path / "numbers.json"
    monkeypatch.setattr(methods, "keep_freed_memory", lambda: None)
    named = ("--methods", "gkdfd:graph=own,sp", "--json", str(numbers))
    monkeypatch.setattr(sys, "argv", ["bench", *FEW, *PAIR, *named])
    methods.main()
    rows = json.loads(numbers.read_text())
    assert [row["method"] for row in rows] == ["kd", "gkdfd:graph=own", "sp"]
    assert rows[0]["times_kd"] == rows[0]["least"] == rows[0]["most"] == 1
    assert all(row["ms_a_step"] > 0 and row["peak_MiB"] > 0 for row in rows)
    assert "| gkdfd:graph=own |" in capsys.readouterr().out


def test_what_is_measured_is_the_configured_training(bench) -> None:
    methods = importlib.import_module("bench_methods")
    args = argparse.Namespace(
        teacher="resnet56", student="resnet20", batch_size=32, precision="bfloat16", compile=False
    )
    kd, dkd, gkdfd = (methods.config(spec, args) for spec in ("kd", "dkd:warmup=3", "gkdfd"))
    assert (kd.student_train.batch_size, kd.student_train.precision) == (32, "bfloat16")
    assert (kd.student_train.per_class, gkdfd.student_train.per_class) == (None, 8)
    assert (dkd.options["warmup"], dkd.options["beta"]) == (3, 2.0), "and the preset of the pair"


def test_the_epoch_has_whole_groups_of_each_class(bench) -> None:
    methods = importlib.import_module("bench_methods")
    data = bench.sample(argparse.Namespace(data_root="", images=3000, device="cpu"))
    chosen = methods.few(data, 640, 8)
    counts = data.y[chosen.split.train].bincount()
    assert int(counts.sum()) == 640
    assert set(counts.tolist()) <= {0, 8}
    assert not chosen.split.val.any()
    assert (chosen.split.train <= data.split.train).all()
