"""How long and how fast a network trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol, final

import torch

from gnnkd.errors import UserError
from gnnkd.types import Step


class Loop(Protocol):
    """What the loop around a training reads."""

    @property
    def epochs(self) -> int:
        """Passes over the data."""

    @property
    def patience(self) -> int:
        """Epochs without a better validation accuracy after which training stops; 0 never stops early."""

    @property
    def checkpoint_every(self) -> int:
        """Epochs between two checkpoints."""


@final
@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of Adam and of the loop around it, for either stage.

    Args:
        lr: learning rate, > 0.
        weight_decay: L2 penalty added to the gradient, >= 0.
        epochs: passes over the data, >= 1.
        patience: epochs without a better validation accuracy after which training stops, >= 0; 0 never stops early.
        checkpoint_every: epochs between two checkpoints, >= 1; it has no influence on the result.
        validate_every: epochs between two validations, >= 1; the last epoch always validates. Epochs in between are not
            kept, and training stops early behind a validation alone.
        batch_size: nodes, or rows, of a step, >= 1: labelled ones for a method that reads labels alone. None takes all
            nodes at once.
        fanouts: with a batch_size, most neighbours that are drawn for a node, for each hop from the nodes of a step on,
            >= 1, or None for all. A network needs one for each of its layers that looks at edges.

    Raises:
        UserError: an option outside its range, or fanouts without a batch_size.
    """

    lr: float = 0.01
    weight_decay: float = 5e-4
    epochs: int = 300
    patience: int = 0
    checkpoint_every: int = 50
    validate_every: int = 1
    batch_size: int | None = None
    fanouts: tuple[int | None, ...] | None = None

    def __post_init__(self) -> None:
        _check_above("lr", self.lr)
        lows = {"weight_decay": 0, "epochs": 1, "patience": 0, "checkpoint_every": 1, "validate_every": 1}
        for name, low in lows.items():
            _check_least(name, getattr(self, name), low)
        if self.batch_size is not None:
            _check_least("batch_size", self.batch_size, 1)
        if self.fanouts is None:
            return
        if not self.fanouts or any(k is not None and k < 1 for k in self.fanouts):
            raise UserError(
                f"fanouts is {list(self.fanouts)}; for each hop it must have a number of at least 1, or null for "
                "all neighbours"
            )
        if self.batch_size is None:
            raise UserError(
                f"fanouts is {list(self.fanouts)} and batch_size null: with all nodes at once no neighbours are drawn; "
                "give a batch_size, or leave fanouts out"
            )

    def validates(self, step: Step) -> bool:
        """Whether the model is scored after this epoch."""
        return (step.epoch + 1) % self.validate_every == 0 or step.epoch + 1 == step.epochs


@final
@dataclass(frozen=True, kw_only=True)
class ImageTrainSettings:
    """Settings of stochastic gradient descent on images, and of the loop around it, for either stage.

    Args:
        lr: learning rate at the start, > 0.
        momentum: in [0, 1).
        nesterov: look ahead along the momentum.
        weight_decay: L2 penalty added to the gradient, >= 0.
        epochs: passes over the training images, >= 1.
        batch_size: images a step, >= 2 (a batch norm cannot train on one).
        per_class: images of one class in a step, >= 1, so that a batch has batch_size / per_class classes, each image
            still once an epoch; None takes images regardless of their classes. A class of fewer images makes its batch
            smaller, and where fewer than so many classes are left a batch has more of each.
        schedule: "step" multiplies the learning rate by `decay` at each milestone, "cosine" lowers it to zero.
        milestones: ascending shares of `epochs`, in (0, 1); (.625, .75, .875) are epochs 150, 180 and 210 of 240.
        decay: factor at a milestone, in (0, 1].
        warmup_epochs: the learning rate rises linearly over so many epochs, >= 0.
        precision: of the forward passes; "bfloat16" is autocast, losses and weights stay in float32.
        channels_last: layout of images and convolutions in memory; None takes it on a CPU, where it is faster.
        compile: `torch.compile` for the forward passes.
        cache_teacher: keep the teacher's logits of each view of each image (crop and flip) and do not ask again; for
            methods that read logits alone. A continued run has a cache of its own, equal up to rounding.
        patience: epochs without a better validation accuracy after which training stops, >= 0; 0 never stops early.
        checkpoint_every: epochs between two checkpoints, >= 1; it has no influence on the result.

    Raises:
        UserError: an option outside its range.
    """

    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    epochs: int = 240
    batch_size: int = 64
    per_class: int | None = None
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[float, ...] = (0.625, 0.75, 0.875)
    decay: float = 0.1
    warmup_epochs: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool | None = None
    compile: bool = False
    cache_teacher: bool = False
    patience: int = 0
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        _check_above("lr", self.lr)
        _check_above("decay", self.decay)
        lows = {"weight_decay": 0, "epochs": 1, "batch_size": 2, "warmup_epochs": 0, "patience": 0, "momentum": 0}
        for name, low in (lows | {"checkpoint_every": 1}).items():
            _check_least(name, getattr(self, name), low)
        for name, below in (("momentum", self.momentum < 1), ("decay", self.decay <= 1)):
            if not below:
                raise UserError(f"{name} is {getattr(self, name)}; it must be below 1")
        if self.nesterov and self.momentum == 0:
            raise UserError("nesterov is true and momentum 0; Nesterov's step needs a momentum above 0")
        self._check_per_class()
        inside = all(0 < share < 1 for share in self.milestones)
        if not inside or list(self.milestones) != sorted(set(self.milestones)):
            raise UserError(
                f"milestones is {list(self.milestones)}; it must be ascending shares of the epochs, between 0 and 1"
            )

    def _check_per_class(self) -> None:
        if self.per_class is None:
            return
        _check_least("per_class", self.per_class, 1)
        if self.batch_size % self.per_class:
            raise UserError(
                f"batch_size is {self.batch_size} and per_class {self.per_class}; a batch of so many images of each of "
                "its classes needs a multiple of per_class, or per_class=null for batches of any classes"
            )

    def layout(self, device: torch.device) -> torch.memory_format:
        """The layout of images on a device."""
        last = device.type == "cpu" if self.channels_last is None else self.channels_last
        return torch.channels_last if last else torch.contiguous_format

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        rise = min(1.0, (epoch + 1) / self.warmup_epochs) if self.warmup_epochs else 1.0
        if self.schedule == "cosine":
            return rise * self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        passed = sum(epoch >= round(share * self.epochs) for share in self.milestones)
        return rise * self.lr * self.decay**passed


UNSAID: Mapping[str, Any] = MappingProxyType(
    {"validate_every": 1, "batch_size": None, "fanouts": None, "storage": "float32", "low_mean": "edges"}
)
"""Options of runs on graphs that a description leaves out at these values, as older ones do."""


def said(values: Mapping[str, Any]) -> dict[str, Any]:
    """A description without the options that are `UNSAID`."""
    return {name: value for name, value in values.items() if name not in UNSAID or value != UNSAID[name]}


def _check_above(name: str, value: float) -> None:
    if not value > 0:
        raise UserError(f"{name} is {value}; it must be above 0")


def _check_least(name: str, value: float, low: float) -> None:
    if not value >= low:
        raise UserError(f"{name} is {value}; it must be at least {low}")
