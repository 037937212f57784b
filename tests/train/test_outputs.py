"""A teacher's outputs, written where they lie: byte for byte the file of the same tensors in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gnnkd.data.row_arrays import shared
from gnnkd.errors import UserError
from gnnkd.train import checkpoint, outputs

META = {"fingerprint": "a" * 64}


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("rows", [1, 7, 250])
def test_the_file_is_that_of_the_same_tensors(tmp_path: Path, storage: str, rows: int) -> None:
    logits, index = torch.randn(rows, 3), 3 * torch.arange(rows)
    kept = logits.to(outputs.TYPES[storage][2])
    checkpoint.save(tmp_path / "a", {"logits": kept, "index": index}, META)
    with outputs.writing(tmp_path / "b", index, 3, storage, META) as into:
        into[: rows // 2] = logits[: rows // 2]
        into[rows // 2 :] = logits[rows // 2 :]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = outputs.opened(tmp_path / "b")
    assert torch.equal(shared(found.logits), kept)
    assert torch.equal(found.index, index)
    assert found.meta == META
    assert abs((tmp_path / "b").stat().st_size - outputs.size(rows, 3, storage)) < 500


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), outputs.writing(tmp_path / "b", torch.arange(3), 2, "float32", META):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_a_type_cannot_hold_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="not all finite in float16; keep them"),
        outputs.writing(tmp_path / "b", torch.arange(3), 2, "float16", META) as into,
    ):
        into[:] = 1e6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"12345", b"\x05" + 7 * b"\0" + b"[1,2]", None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "b"
    with outputs.writing(file, torch.arange(30), 2, "float32", META) as into:
        into[:] = 0
    file.write_bytes(file.read_bytes()[:-1] if content is None else content)
    with pytest.raises(UserError, match="not a readable"):
        outputs.opened(file)
    checkpoint.save(file, {"weights": torch.zeros(3)})
    with pytest.raises(UserError, match="not a readable"):
        outputs.opened(file)
