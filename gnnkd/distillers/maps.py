"""What methods of feature maps share: which maps of two networks belong together, in one size, in full precision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.distillers.base import TASK, Distiller
from gnnkd.distillers.losses import cross_entropy, full_precision
from gnnkd.distillers.ranges import at_least
from gnnkd.distillers.schedule import Schedule, ramp
from gnnkd.errors import UserError
from gnnkd.types import Batch, Output, Step

P = ParamSpec("P")
R = TypeVar("R")
Map: TypeAlias = Float[Tensor, "N _ _ _"]
Pairs: TypeAlias = list[tuple[Map, Map]]
"""Maps of the student and of the teacher that belong together, shallow to deep."""


class MapDistiller(Distiller):
    """`CE + sum over terms of weight * ramp * term`, each term a function of both outputs.

    Terms whose weight is 0 at every epoch are not computed; so the names of the terms never change within a training.

    Args:
        weights: of the terms by name.
        warmup: epochs over which the terms grow to their weights; 0 is none.
    """

    graphs = False
    images = True
    reads_maps = True

    def __init__(self, weights: Mapping[str, Schedule], warmup: int) -> None:
        self.weights, self.warmup = dict(weights), int(at_least("warmup", warmup, 0))

    @abstractmethod
    def term(self, name: str, batch: Batch, student: Output, teacher: Output) -> Float[Tensor, ""]:
        """One term before its weight."""

    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """The term `ce` and those of the method."""
        assert teacher is not None
        terms, teacher = {TASK: cross_entropy(student.logits, batch.y)}, _fixed(teacher)
        for name, weight in self.weights.items():
            if not weight.never:
                now = weight.at(step) * ramp(self.warmup, step)
                terms[name] = now * self.term(name, batch, student, teacher)
        return terms

    def prepared(self) -> nn.Module:
        """`part`, which `prepare` makes."""
        assert self.part is not None, "prepare comes before the first step"
        return self.part


def _fixed(teacher: Output) -> Output:
    """`teacher` without what leads back to its weights: a method does not move the teacher towards the student."""
    maps, raw_maps = (tuple(one.detach() for one in of) for of in (teacher.maps, teacher.raw_maps))
    return replace(
        teacher,
        logits=teacher.logits.detach(),
        maps=maps,
        raw_maps=raw_maps,
        pooled=None if teacher.pooled is None else teacher.pooled.detach(),
    )


def precise(function: Callable[P, R]) -> Callable[P, R]:
    """`function` in float32 at least, also on tensors of 16 bits and inside autocast.

    Norms, distances and Gram matrices are sums of many terms, of which bfloat16 keeps two or three digits.
    """

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast(_device(args), enabled=False):
            return function(*map(_full, args), **kwargs)

    return computed


def _full(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_full(one) for one in value)
    return full_precision(value) if isinstance(value, Tensor) else value


def _device(values: Sequence[Any]) -> str:
    """The kind of device that the first tensor among `values` is on."""
    first = values[0]
    return _device(first) if isinstance(first, list | tuple) else str(first.device.type)


def paired(student: Sequence[Tensor], teacher: Sequence[Tensor], *, least: int = 1) -> Pairs:
    """The last maps of both networks together, then those before them, as far as both reach.

    Raises:
        UserError: fewer than `least` pairs.
    """
    count = min(len(student), len(teacher))
    if count < least:
        raise UserError(
            f"this method compares {least} or more stages after the stem and one of the two networks shows {count}; "
            "choose deeper networks, or a method of logits such as kd"
        )
    return list(zip(student[len(student) - count :], teacher[len(teacher) - count :], strict=True))


def stages(student: Output, teacher: Output, *, least: int = 1) -> Pairs:
    """Pairs of the maps after activation, the stem left out."""
    return paired(student.maps[1:], teacher.maps[1:], least=least)


def one_size(student: Map, teacher: Map) -> tuple[Map, Map]:
    """Both maps in the smaller of their sizes, by average pooling; windows overlap where one is no multiple."""
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return resized(student, size), resized(teacher, size)


def resized(x: Map, size: tuple[int, int]) -> Map:
    """`x` pooled to `size` [H, W]; where it is smaller, its pixels are repeated."""
    return x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size)


def pooled(output: Output) -> Float[Tensor, "N _"]:
    """The rows that the classifier multiplies: of a network of nodes and rows those of its last weight matrix.

    Raises:
        UserError: the network does not show them, or they are sparse features as they came.
    """
    if output.pooled is not None:
        return output.pooled
    operands = list(output.hidden.values())
    last = operands[-1] if operands else None
    if not isinstance(last, Tensor):
        raise UserError(
            "a network does not show dense rows that its last weight matrix multiplies (pooled); choose a deeper one, "
            "or a method of logits such as kd"
        )
    return last
