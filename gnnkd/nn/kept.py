"""The last result of a function of inputs that do not change, kept for the next call with the same ones."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Generic, TypeVar, final

from torch import Tensor

T = TypeVar("T")


@final
class Kept(Generic[T]):
    """One result, and the objects that it was made of; a copy of it is empty, as is what a file holds of it."""

    def __init__(self) -> None:
        self._made: tuple[tuple[object, ...], tuple[int, ...], T] | None = None

    def of(self, make: Callable[[], T], *inputs: object) -> T:
        """`make()`, or what it gave last if `inputs` are the same objects; tensors changed in place are others."""
        versions = tuple(x._version if isinstance(x, Tensor) and not x.is_inference() else 0 for x in inputs)
        if self._made is not None:
            before, then, found = self._made
            if then == versions and len(before) == len(inputs) and all(map(is_, before, inputs)):
                return found
        found = make()
        self._made = (inputs, versions, found)
        return found

    def __deepcopy__(self, memo: object) -> Kept[T]:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept[T]], tuple[()]]:
        return Kept, ()
