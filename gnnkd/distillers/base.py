"""What a distillation method is: named loss terms, and gradients returned by parameter name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from gnnkd.types import Batch, Output, Step

Gradients: TypeAlias = dict[str, Tensor]
Look: TypeAlias = Callable[[bool], tuple[Output, Gradients]]
"""`look(dropout)` -> output and gradients at the current weights, without touching weights, buffers or random state."""


class Distiller(ABC):
    """A method: it never runs a model, it reads outputs and says what the student's gradients are."""

    wraps: ClassVar[bool] = False
    """True for a method that changes the gradients of another one, its `base`."""
    needs_teacher: bool = True
    """False for a method that reads labels only."""

    def wants_clean(self, step: Step) -> bool:
        """Whether `gradients` reads the student's dropout-free activations (`Output.clean`) at this step."""
        return False

    def missing(self) -> str | None:
        """What this method still lacks to train, in words with the way out; None when nothing."""
        return None

    @abstractmethod
    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """Named scalar terms, already weighted; their sum is the loss."""

    def gradients(
        self, terms: Mapping[str, Tensor], params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        """`d(sum of terms)/d(params)` by name; a parameter that the loss does not reach is left out."""
        return plain_gradients(terms, params)

    def diagnostics(self) -> Mapping[str, Tensor]:
        """Scalars of the last step worth logging, by name."""
        return {}


class Watcher(ABC):
    """Something that learns from a teacher's training without changing it."""

    @abstractmethod
    def watch(self, batch: Batch, look: Look, step: Step) -> Mapping[str, Tensor]:
        """See one epoch of the teacher, before its update; return scalars worth logging."""

    @abstractmethod
    def validated(self, score: float) -> None:
        """Hear the teacher's validation accuracy after the epoch's update."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything needed to continue, as flat tensors."""

    @abstractmethod
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""


def plain_gradients(
    terms: Mapping[str, Tensor], params: Mapping[str, Tensor], *, create_graph: bool = False
) -> Gradients:
    """Gradient of the sum of `terms` by each of `params`, by name, unreached ones left out."""
    total = torch.stack(list(terms.values())).sum()
    found = torch.autograd.grad(total, list(params.values()), create_graph=create_graph, allow_unused=True)
    return {name: g for name, g in zip(params, found, strict=True) if g is not None}
