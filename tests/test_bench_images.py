"""The benchmark of images runs, and its plain loop does what ours does; nothing here asks how fast something is."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
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
    for name in ("bench_images", "timing"):
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
