"""Files of tensors: safetensors only, so that loading never executes code; written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gnnkd.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new one.

    Raises:
        UserError: it cannot be written (no right, no space, no folder).
    """
    try:
        _replace(path, content)
    except OSError as problem:
        raise UserError(
            f"{path} cannot be written ({problem.strerror}); free space, or choose another folder with --out"
        ) from None


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, sorted and indented."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def save(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> None:
    """Write tensors and plain metadata; equal content gives equal bytes (metadata is one sorted JSON string)."""
    from safetensors.torch import save as to_bytes

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in sorted(tensors.items())}
    write_bytes(path, to_bytes(plain, metadata={"gnnkd": json.dumps(meta or {}, sort_keys=True)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote; a file that is anything else is refused.

    Raises:
        UserError: the file is missing, truncated, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("gnnkd", "{}"))
            # Copied: in the file tensors start at any byte, and some products round by where their operands start.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, meta  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError) as problem:
        raise UserError(f"{path} is not a readable safetensors file ({problem}); run its stage again") from None
