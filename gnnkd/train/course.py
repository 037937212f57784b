"""What one epoch of a training consists of; the loop around it is `fit`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from gnnkd import processes
from gnnkd.distillers.base import Distiller, Watcher
from gnnkd.optimizers import flat, unflatten
from gnnkd.tensors import under
from gnnkd.train.settings import TrainSettings
from gnnkd.train.update import trained
from gnnkd.types import Step


@final
@dataclass(frozen=True)
class Epoch:
    """What an epoch has come to.

    `score` is the validation accuracy after it, None where nothing validates; `scalars` are worth logging; `aside` are
    the seconds that a watcher took. `scored` is False where it was not asked for a score, which is then None too, and
    says nothing of how good the epoch is.
    """

    score: float | None
    scalars: Mapping[str, Tensor | float]
    aside: float = 0.0
    scored: bool = True


class Course(ABC):
    """A model, its optimizer, and all that an epoch of its training needs.

    A course of several optimizers has them in `optimizer_state` and `load_optimizer_state`, and no `optimizer`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    heard: Callable[[int, float], None] | None = None
    """Called within long epochs with the epoch and the share of it that is done."""

    @abstractmethod
    def epoch(self, step: Step) -> Epoch:
        """Train for one epoch and score the model in eval mode."""

    def optimizer_state(self) -> dict[str, Tensor]:
        """What the optimizer remembers, as flat tensors."""
        return flat(self.optimizer)

    def load_optimizer_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `optimizer_state()`."""
        unflatten(self.optimizer, tensors)

    def state(self) -> dict[str, Tensor]:
        """Everything else that is needed to continue (the loop keeps model, optimizer and random state)."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        assert not tensors, f"a course without a state of its own was given {list(tensors)}"


def adam(model: nn.Module, distiller: Distiller, settings: TrainSettings, device: torch.device) -> torch.optim.Adam:
    """The optimizer of all that a step changes; the method's own part is brought to the device."""
    if distiller.part is not None:
        distiller.part.to(device).train()
    return torch.optim.Adam(
        trained(model, distiller).values(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
    )


def agree(model: nn.Module, distiller: Distiller) -> None:
    """Give all processes the weights and running statistics of the first."""
    processes.same([*trained(model, distiller).values(), *model.buffers()])


def kept(distiller: Distiller, watcher: Watcher | None) -> dict[str, Tensor]:
    """What a method and a watcher need to continue."""
    found = {f"method.{k}": t for k, t in distiller.state().items()}
    return found if watcher is None else found | {f"watcher.{k}": t for k, t in watcher.state().items()}


def resumed(distiller: Distiller, watcher: Watcher | None, tensors: Mapping[str, Tensor]) -> None:
    """Let both continue from `kept`."""
    distiller.load_state(under(tensors, "method."))
    if watcher is not None:
        watcher.load_state(under(tensors, "watcher."))
