"""Files of tensors: what is written is read back, anything else is refused, nothing is half written or executed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gnnkd.errors import UserError
from gnnkd.train import checkpoint

META = {"epoch": 3, "best_score": 0.1 + 0.2, "history": [{"ce": 1e-300}], "key": "ä", "none": None}


def _tensors() -> dict[str, Tensor]:
    shared = torch.arange(12.0).reshape(3, 4)
    return {
        "weight": shared,
        "transposed": shared.t(),
        "part": shared[1:],
        "state": torch.get_rng_state(),
        "ids": torch.tensor([2**40, -1]),
        "mask": torch.tensor([True, False]),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "learnt": torch.nn.Parameter(torch.ones(2)),
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "a.safetensors"
    checkpoint.save(file, _tensors(), META)
    tensors, meta = checkpoint.load(file)
    assert meta == META
    assert tensors.keys() == _tensors().keys()
    for name, t in _tensors().items():
        assert tensors[name].dtype == t.dtype
        assert torch.equal(tensors[name], t), name
    tensors["weight"] += 1
    assert not torch.equal(tensors["part"], tensors["weight"][1:]), "tensors that shared memory are apart now"


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "elsewhere" / "two.safetensors"
    checkpoint.save(one, _tensors(), META)
    checkpoint.save(two, dict(reversed(_tensors().items())), dict(reversed(META.items())))
    assert one.read_bytes() == two.read_bytes()
    checkpoint.save(two, _tensors() | {"weight": torch.zeros(3, 4)}, META)
    assert one.read_bytes() != two.read_bytes()


class _Trap:
    """An object whose unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.file), "w")


def test_files_that_could_run_code_are_refused_unread(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    traps = {
        "pickle": lambda f: f.write_bytes(pickle.dumps(_Trap(sprung))),
        "torch": lambda f: torch.save({"weight": _Trap(sprung)}, f),
        "old_torch": lambda f: torch.save({"weight": _Trap(sprung)}, f, _use_new_zipfile_serialization=False),
    }
    for name, plant in traps.items():
        file = tmp_path / f"{name}.safetensors"
        plant(file)
        with pytest.raises(UserError, match=f"{name}.safetensors is not a readable safetensors file"):
            checkpoint.load(file)
    assert not sprung.exists()
    pickle.loads((tmp_path / "pickle.safetensors").read_bytes()).close()
    assert sprung.exists(), "the trap works"


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    checkpoint.save(file, _tensors(), META)
    whole = file.read_bytes()
    for n in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:n])
        with pytest.raises(UserError, match="not a readable safetensors file"):
            checkpoint.load(file)
    file.write_bytes(b"\xff" * 4096)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        checkpoint.load(file)
    with pytest.raises(UserError, match=r"missing\.safetensors does not exist"):
        checkpoint.load(tmp_path / "missing.safetensors")
    with pytest.raises(UserError):
        checkpoint.load(tmp_path)


def test_a_foreign_safetensors_file_has_no_metadata_of_ours(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    tensors, meta = checkpoint.load(tmp_path / "foreign.safetensors")
    assert tensors.keys() == {"weight"}
    assert meta == {}


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("where", "name"), [(os, "fdopen"), (Path, "chmod"), (Path, "replace")])
def test_a_failing_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    file = tmp_path / "a.safetensors"
    checkpoint.save(file, {"weight": torch.ones(2)})
    before = file.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(where, name, _no_room)
        with pytest.raises(UserError, match="No space left"):
            checkpoint.save(file, {"weight": torch.zeros(2)})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_json_is_sorted_and_lines_are_one_row_each(tmp_path: Path) -> None:
    checkpoint.write_json(tmp_path / "a.json", {"b": 0.1 + 0.2, "a": [1]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [1], "b": 0.1 + 0.2}
    assert text.index('"a"') < text.index('"b"')
    rows = [{"epoch": 0, "ce": 1.5}, {"epoch": 1, "ce": 1e-7}]
    checkpoint.write_lines(tmp_path / "a.jsonl", rows)
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == rows
