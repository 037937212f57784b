"""Files of `torch.save`, read without executing anything that is in them.

Such a file is a pickle that describes tensors, with their numbers beside it: in a zip archive, or behind the pickle as
torch wrote it before 1.6. A pickle is a program that may call whatever it imports. Here it imports nothing: for the few
names that a checkpoint needs it is given stand-ins that only note what they are told; any other name ends the reading.

`torch.load(weights_only=True)` is as strict, but it does not read pickles of protocol 4, which the Knowledge Transfer
Graph saves, and it holds all of a file in memory, an optimizer's state too.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast, final

import torch
from torch import Tensor

from gnnkd.errors import UserError

_STORAGES = {
    "BFloat16": torch.bfloat16,
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Short": torch.int16,
}
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
"""What a file without archive begins with: two pickled numbers."""


@final
class Storage(NamedTuple):
    """A row of `n` numbers, as a file names it."""

    dtype: torch.dtype
    key: str
    n: int


@final
class Entry(NamedTuple):
    """A tensor, as a file describes it: a view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


Pick: TypeAlias = Callable[[Any], Mapping[str, Entry]]
"""Chooses the tensors to read from what a file holds: plain containers, numbers, words, and an `Entry` per tensor."""
_Fetch: TypeAlias = Callable[[Storage], bytearray]


def load(path: Path, pick: Pick) -> dict[str, Tensor]:
    """Read the tensors that `pick` chooses; nothing in the file is executed.

    Raises:
        UserError: another kind of file, damaged, or one whose pickle asks for more than a checkpoint needs.
    """
    try:
        with path.open("rb") as file:
            first = file.read(2)
            file.seek(0)
            if first == b"PK":
                return _archive(path, file, pick)
            if first[:1] == pickle.PROTO:
                return _stream(path, file, pick)
    except (UserError, OSError):
        raise
    # What a damaged or forged pickle makes of its stand-ins can fail in any way.
    except Exception as problem:
        said = printed(problem) or type(problem).__name__
        raise UserError(f"{path} is damaged or cut short ({said}); fetch it again") from None
    raise UserError(f"{path} is not a checkpoint; it must be a file of torch.save or a .safetensors file")


def printed(word: object) -> str:
    """What a file says, fit for one line of an error: no control characters, not long."""
    return "".join(c if c.isprintable() else " " for c in str(word))[:80].strip()


def _archive(path: Path, file: BinaryIO, pick: Pick) -> dict[str, Tensor]:
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise UserError(f"{path} is a compressed archive; it must be a file of torch.save")
        names = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(names) != 1:
            raise UserError(f"{path} is an archive, but no checkpoint; it must be a file of torch.save")
        root = names[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist():
            _check_order(path, archive.read(f"{root}byteorder") == b"little")
        with archive.open(names[0]) as stream:
            chosen = pick(_Reader(path, stream).load())

        def fetch(storage: Storage) -> bytearray:
            return bytearray(archive.read(f"{root}data/{storage.key}"))

        return _tensors(chosen, fetch)


def _stream(path: Path, file: BinaryIO, pick: Pick) -> dict[str, Tensor]:
    if _Reader(path, file).load() != _MAGIC or _Reader(path, file).load() != _VERSION:
        raise UserError(f"{path} is a pickle, but no checkpoint; it must be a file of torch.save")
    _check_order(path, _Reader(path, file).load()["little_endian"])
    reader = _Reader(path, file)
    chosen = pick(reader.load())
    places, end = {}, os.fstat(file.fileno()).st_size
    for key in _Reader(path, file).load():
        storage = reader.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.n:
            raise ValueError(f"storage {key} has another length than is told")
        places[key] = file.tell()
        file.seek(storage.n * storage.dtype.itemsize, os.SEEK_CUR)

    def fetch(storage: Storage) -> bytearray:
        file.seek(places[storage.key])
        # A forged length allocates no more than the file is long.
        return bytearray(file.read(min(storage.n * storage.dtype.itemsize, end)))

    return _tensors(chosen, fetch)


def _check_order(path: Path, little: bool) -> None:
    if not little:
        raise UserError(f"{path} was written on a big-endian machine; save it anew on another")


def _tensors(chosen: Mapping[str, Entry], fetch: _Fetch) -> dict[str, Tensor]:
    rows: dict[Storage, Tensor] = {}
    for storage in {entry.storage for entry in chosen.values()}:
        content = fetch(storage)
        if len(content) != storage.n * storage.dtype.itemsize:
            raise ValueError(f"storage {storage.key} has {len(content)} bytes")
        # An empty buffer has no tensor.
        rows[storage] = torch.frombuffer(content, dtype=storage.dtype) if content else torch.empty(0).to(storage.dtype)
    # Out of bounds is torch's error.
    return {name: torch.as_strided(rows[e.storage], e.size, e.stride, e.offset) for name, e in chosen.items()}


@final
class _Reader(pickle.Unpickler):
    """An unpickler for which nothing can be imported.

    Args:
        path: of the file, for errors.
        stream: where the pickle begins; it is left behind its end.
    """

    def __init__(self, path: Path, stream: Any) -> None:
        super().__init__(stream, encoding="utf-8")
        self.path = path
        self.storages: dict[str, Storage] = {}

        # Made anew for each reading: a pickle may put attributes on what it is given.
        class Ignored:
            """What is built from words and numbers alone and not needed, as the flags of a training."""

            def __setstate__(self, state: object) -> None: ...

        self.known: dict[str, Any] = {
            "argparse.Namespace": Ignored,
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_parameter": lambda entry, *_: _described(entry, Entry),
            "torch._utils._rebuild_tensor_v2": lambda storage, offset, size, stride, *_: Entry(
                _described(storage, Storage), offset, size, stride
            ),
            **{f"torch.{kind}Storage": dtype for kind, dtype in _STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        whole = f"{module}.{name}"
        if whole not in self.known:
            raise UserError(
                f"{self.path} asks for {printed(whole)}, and nothing in a checkpoint is executed here; it may hold "
                "tensors, plain containers and argparse.Namespace: save the state dict alone"
            )
        return self.known[whole]

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that a tensor is a view of."""
        word, dtype, key, _, n, *more = pid
        if word != "storage" or more not in ([], [None]) or not isinstance(dtype, torch.dtype) or n < 0:
            raise ValueError("an unknown kind of storage")
        storage = Storage(dtype, str(key), int(n))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} is described twice")
        return storage


def _described(said: Any, kind: type) -> Any:
    if not isinstance(said, kind):
        raise TypeError(f"no {kind.__name__.lower()}")
    return cast("Any", said)
