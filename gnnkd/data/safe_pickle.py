"""Pickles of plain containers and numpy arrays, read without running anything that is in them.

A pickle names functions and classes to be called. Here each name stands for an inert stand-in of our own, which checks
what it is given and builds numbers, bytes and arrays of numbers; any other name ends the reading.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np

from gnnkd.errors import UserError

_KIND = re.compile(r"[<>|=]?([biu][1248]|f[248])")
_ORDERS = ("<", ">", "|", "=")


def read(path: Path) -> Any:
    """What a pickle holds; strings of Python 2 are read as latin-1, arrays are of numbers or booleans only.

    Raises:
        UserError: the file cannot be opened, is truncated or damaged, or asks for anything but containers and arrays.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, encoding="latin1").load()
    except _Refused as error:
        raise UserError(
            f"{path}: the pickle {error}; only plain containers and numpy arrays of numbers are read, for a pickle can "
            "run code: nothing of it was run; replace the file"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    # Foreign bytes fail in a dozen ways: an opcode, a length, a stack, a codec, memory.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); it is truncated or damaged: replace it") from error


class _Refused(Exception):  # noqa: N818, a verdict rather than an accident
    """What the pickle asks for, in words."""


@final
class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        make = _MAKERS.get((module, name))
        if make is None:
            raise _Refused(f"asks for {module + '.' + name!a:.80}")
        return _Name(make)


@final
class _Name:
    """A name in a pickle: it can be called, and nothing can be set on it."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("changes what it names")


@final
class _Kind:
    """A type of numbers: `numpy.dtype` of a pickle."""

    def __init__(self, word: Any, *flags: Any) -> None:
        if not isinstance(word, str) or not _KIND.fullmatch(word):
            raise _Refused(f"holds an array of type {word!a:.40}")
        self.dtype = np.dtype(word)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in _ORDERS or any(state[2:5]):
            raise _Refused("holds an array of a type made of others")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that is filled from a pickle, with the numbers that its shape asks for."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, values = state
        if isinstance(values, str):  # the bytes of Python 2
            values = values.encode("latin1")
        _check(values, kind, shape)
        whole: Any = (1, shape, kind.dtype, bool(fortran), bytes(values))
        super().__setstate__(whole)


def _blank(*_: Any) -> _Array:
    made: _Array = np.ndarray.__new__(_Array, (0,), np.uint8)
    return made


def _filled(values: Any, kind: Any, shape: Any, order: Any) -> Any:
    _check(values, kind, shape)
    return np.frombuffer(values, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


def _number(kind: Any, values: Any) -> Any:
    if isinstance(values, str):
        values = values.encode("latin1")
    _check(values, kind, ())
    return np.frombuffer(values, kind.dtype)[0].item()


def _check(values: Any, kind: Any, shape: Any) -> None:
    if not isinstance(kind, _Kind) or not isinstance(values, bytes | bytearray):
        raise _Refused("holds an array of objects")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape!a:.40}")
    if math.prod(shape) * kind.dtype.itemsize != len(values):
        raise ValueError(f"{len(values)} bytes for an array of shape {list(shape)} of {kind.dtype}")


def _encoded(text: Any, encoding: Any = None) -> bytes:
    """Bytes as protocol 2 of Python 3 writes them: text and the name of the codec."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"asks for the codec {encoding!a:.40}")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    """Empty bytes, which protocol 2 writes as a call."""
    if args:
        raise _Refused("makes bytes of something")
    return b""


def _uncalled(*_: Any) -> Any:
    raise _Refused("makes an array without its numbers")


_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _uncalled,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _MAKERS[f"{_core}.multiarray", "_reconstruct"] = _blank
    _MAKERS[f"{_core}.multiarray", "scalar"] = _number
    _MAKERS[f"{_core}.numeric", "_frombuffer"] = _filled
