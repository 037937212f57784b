"""TensorBoard's files: every scalar of every epoch is written, once, whichever command trains."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gnnkd import main, tensorboard
from gnnkd.selfsup import __main__ as selfsup

THERE = importlib.util.find_spec("tensorboard") is not None
EPOCHS = 2
COMMON = ["--dataset", "digits", "--quiet", "--set", f"train.epochs={EPOCHS}"]
IMAGES = ["--teacher", "cnn_small", "--mode", "tea"]
GRAPHS = ["--teacher", "mlp", "--mode", "tea"]
PAIRS = ["--models", "cnn_small", "train.warmup_epochs=0"]
ALL = [
    pytest.param(main.main, [*COMMON, *IMAGES], id="images"),
    pytest.param(main.main, [*COMMON, *GRAPHS], id="graphs"),
    pytest.param(selfsup.main, [*PAIRS[:2], *COMMON, *PAIRS[2:]], id="selfsup"),
]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str, float, int]]:
    """What a writer is given: folder, name, value, epoch; no TensorBoard is needed."""
    found: list[tuple[Path, str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = Path(folder)

        def add_scalar(self, name: str, value: float, epoch: int) -> None:
            found.append((self.folder, name, value, epoch))

        def flush(self) -> None:
            self.folder.mkdir(parents=True, exist_ok=True)

        def close(self) -> None:
            (self.folder / "events").touch()

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return found


@pytest.mark.parametrize(("command", "flags"), ALL)
def test_every_scalar_of_every_epoch_is_written_once(
    command: Any, flags: Sequence[str], tmp_path: Path, written: list[tuple[Path, str, float, int]]
) -> None:
    assert command([*flags, "--out", str(tmp_path), "--tensorboard"]) == 0
    (file,) = tmp_path.rglob("metrics.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    wanted = {(name, row["epoch"]): row[name] for row in rows for name in row if name != "epoch"}
    assert {(name, epoch): value for _, name, value, epoch in written} == wanted
    assert len(written) == len(wanted) >= 3 * EPOCHS
    assert {folder for folder, *_ in written} == {file.parent / tensorboard.FOLDER}


@pytest.mark.skipif(THERE, reason="tensorboard is installed")
@pytest.mark.parametrize(("command", "flags"), ALL)
def test_without_tensorboard_the_extra_is_named_and_nothing_trained(
    command: Any, flags: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([*flags, "--out", str(tmp_path / "runs"), "--tensorboard"]) == 2
    assert "pip install 'gnnkd[log]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
