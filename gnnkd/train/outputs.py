"""A teacher's logits on all rows in a file that is written and read as it lies on the disk, never as a whole.

The file is the safetensors file that `checkpoint.save` writes of the same tensors, byte for byte: `index`, the ids of
the rows in the full data, then `logits` [N, C] in float32 or float16.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnnkd.data.row_arrays import Array
from gnnkd.errors import UserError

TYPES: dict[str, tuple[str, np.dtype[Any], torch.dtype]] = {
    "float32": ("F32", np.dtype("<f4"), torch.float32),
    "float16": ("F16", np.dtype("<f2"), torch.float16),
}
"""By the name that a user gives: those of the file, of NumPy and of torch."""
_BLOCK = 1 << 20
"""Rows that are looked at together."""


@final
@dataclass(frozen=True, eq=False)
class Outputs:
    """What is in such a file.

    Args:
        logits: [N, C], mapped and read-only.
        index: ids of the rows in the full data.
        meta: what was written beside them.
    """

    logits: Array
    index: Int[Tensor, " N"]
    meta: dict[str, Any]


def size(rows: int, classes: int, storage: str) -> int:
    """Bytes of a file, but for a few hundred."""
    return rows * (8 + classes * TYPES[storage][1].itemsize)


@contextmanager
def writing(
    file: Path, index: Int[Tensor, " N"], classes: int, storage: str, meta: Mapping[str, Any]
) -> Iterator[Float[Tensor, "N C"]]:
    """Logits [N, C] that lie in a file, to be filled in; it appears when the block ends, whole or not at all.

    Raises:
        UserError: it cannot be written, or a logit is not finite in this type.
    """
    start, total = _header(index.numel(), classes, storage, meta)[1:]
    with _said(file, total):
        draft = _draft(file, index, classes, storage, meta)
    try:
        kind = TYPES[storage][1]
        mapped = np.memmap(draft, kind, mode="r+", offset=start, shape=(index.numel(), classes))
        yield torch.from_numpy(mapped)
        _check_finite(mapped, storage)
        with _said(file, total):
            mapped.flush()
            del mapped
            draft.chmod(0o644)
            draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _draft(file: Path, index: Int[Tensor, " N"], classes: int, storage: str, meta: Mapping[str, Any]) -> Path:
    """A file beside `file`, of its size, that has all but the logits."""
    head, _, total = _header(index.numel(), classes, storage, meta)
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "r+b") as opened_file:
            # A mapped page without room on the disk would end the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(opened_file.fileno(), 0, total)
            else:
                opened_file.truncate(total)
            opened_file.write(head)
            for part in torch.split(index.cpu(), _BLOCK):
                opened_file.write(part.numpy().astype("<i8").tobytes())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


@contextmanager
def _said(file: Path, total: int) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise UserError(
            f"{file} takes {total / 1e9:.2f} GB and cannot be written ({problem.strerror}); free space, or choose "
            "another folder with --out"
        ) from None


def opened(file: Path) -> Outputs:
    """What `writing`, or `checkpoint.save` of the same tensors, has left.

    Raises:
        UserError: the file is missing, truncated, or something else.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length < 1 << 24:
                raise ValueError("no header")
            said = json.loads(stream.read(length))
        start = 8 + length
        meta = json.loads(said.pop("__metadata__", {}).get("gnnkd", "{}"))
        if file.stat().st_size != start + max(entry["data_offsets"][1] for entry in said.values()):
            raise ValueError("truncated")
        logits = _mapped(file, start, said["logits"])
        ids = np.array(_mapped(file, start, said["index"]), dtype=np.int64)
        if logits.ndim != 2 or ids.shape != logits.shape[:1]:
            raise ValueError("other shapes")
    except FileNotFoundError:
        raise UserError(f"{file} does not exist") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UserError(
            f"{file} is not a readable safetensors file of a teacher's outputs ({problem}); run its stage again"
        ) from None
    return Outputs(logits, torch.from_numpy(ids), meta)


def _mapped(file: Path, start: int, entry: Mapping[str, Any]) -> Array:
    kinds: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), **{short: kind for short, kind, _ in TYPES.values()}}
    return np.memmap(
        file, kinds[entry["dtype"]], mode="r", offset=start + entry["data_offsets"][0], shape=tuple(entry["shape"])
    )


def _header(rows: int, classes: int, storage: str, meta: Mapping[str, Any]) -> tuple[bytes, int, int]:
    """What comes before the tensors, where the logits start, and where the file ends."""
    ids, logits = 8 * rows, rows * classes * TYPES[storage][1].itemsize
    said = {
        "__metadata__": {"gnnkd": json.dumps(dict(meta), sort_keys=True)},
        "index": {"dtype": "I64", "shape": [rows], "data_offsets": [0, ids]},
        "logits": {"dtype": TYPES[storage][0], "shape": [rows, classes], "data_offsets": [ids, ids + logits]},
    }
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, start + ids, start + ids + logits


def _check_finite(logits: np.memmap[Any, Any], storage: str) -> None:
    for start in range(0, logits.shape[0], _BLOCK):
        if not bool(np.isfinite(logits[start : start + _BLOCK]).all()):
            way = "; keep them as they are with data.storage=float32" if storage == "float16" else ""
            raise UserError(f"the teacher's logits are not all finite in {storage}{way}")


__all__ = ["TYPES", "Outputs", "opened", "size", "writing"]
