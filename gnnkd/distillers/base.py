"""What a distillation method is: named loss terms, and gradients returned by parameter name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, TypeAlias, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.distillers.space import Range
from gnnkd.types import Batch, Operand, Output, Step

Gradients: TypeAlias = dict[str, Tensor]
Look: TypeAlias = Callable[[bool], tuple[Output, Gradients]]
"""`look(dropout)` -> output and gradients at the current weights, without touching weights, buffers or random state."""


TASK = "ce"
"""The name of the term that reads labels alone; every other term of a loss is the teacher's."""
Make: TypeAlias = Callable[[int], nn.Module]
"""`make(D)` is a fresh student as the user asked for it, for rows of D features, on the device of the data."""
WHOLE = frozenset({"whole"})
"""Batches of a method on graphs that needs all nodes at once."""
SAMPLED = frozenset({"whole", "sampled"})
"""Also some nodes with the edges drawn among them (`train.sampled`); such a method is prepared by all nodes."""
ANY = frozenset({"whole", "sampled", "rows"})
"""Also rows with the teacher's logits, without a graph, from disk (`train.rows`)."""
Norm: TypeAlias = tuple[Float[Tensor, " _"], Float[Tensor, " _"]]
"""Scale and shift of a batch norm."""


@final
@dataclass(frozen=True)
class Lesson:
    """What a method may look at before the first step, to give its own part its sizes.

    Args:
        student: output of the student on a few training images, in eval mode, without gradients.
        teacher: the same of the teacher, None where the method needs none.
        norms: of the teacher's batch norms before the activation of each of its `maps`, None where there is none.
        y: labels of all rows of the task, `UNKNOWN` outside training; `Batch.index` names these rows.
        momentum: of the optimizer.
        weight_decay: of the optimizer.
        seed: of the run.
        batch: all rows of the task with the labels of training, on graphs; None on images, and on rows from disk.
        ask: the trained teacher, in eval mode and without gradients, about other features [R, D] of the rows of
            `batch`; None where there is no network to ask.
        index: ids of all rows of the task in the full data, ascending, on graphs; None on images.
        probe: ids of rows that stand for all, where a step sees some of them only; None where it sees all.
    """

    student: Output
    teacher: Output | None
    norms: tuple[Norm | None, ...]
    y: Int[Tensor, " R"]
    momentum: float
    weight_decay: float
    seed: int
    batch: Batch | None = None
    ask: Callable[[Operand], Output] | None = None
    index: Int[Tensor, " R"] | None = None
    probe: Int[Tensor, " P"] | None = None


class Distiller(ABC):
    """A method: it never runs a model, it reads outputs and says what the student's gradients are."""

    wraps: ClassVar[bool] = False
    """True for a method that changes the gradients or the outputs of another one, its `base`."""
    graphs: ClassVar[bool] = True
    """Whether it teaches networks of nodes and rows."""
    images: ClassVar[bool] = False
    """Whether it teaches networks of images."""
    own_momentum: ClassVar[bool] = False
    """True when `combine` does momentum and weight decay, which the optimizer then leaves out."""
    keeps_part: ClassVar[bool] = False
    """True for a method whose `part` says something by itself: an image student's run leaves it beside the network."""
    needs_teacher: bool = True
    """False for a method that reads labels only."""
    reads_maps: bool = False
    """True for a method that reads more of the teacher than its logits; it is prepared before the first step."""
    asks_teacher: bool = False
    """True for a method that asks the trained teacher about other features (`Lesson.ask`)."""
    asks_student: bool = False
    """True for a method that asks the student about other features in a step (`Output.again`)."""
    on_rows: ClassVar[bool] = True
    """Whether it teaches a student that looks at rows alone, an MLP."""
    on_graphs: ClassVar[bool] = True
    """Whether it teaches a student that passes messages."""
    least_layers: ClassVar[int] = 1
    """Layers with weights that a student of nodes and rows must have."""
    batches: frozenset[str] = WHOLE
    """What it can learn on, on graphs: `WHOLE`, `SAMPLED` or `ANY`."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What its student needs for a prediction beside what the network asked for needs, in words, as "edges"."""
    space: ClassVar[Mapping[str, Range]] = MappingProxyType({})
    """What a search may try, by option."""
    part: nn.Module | None = None
    """The method's own trainable part, as connectors between two networks; it trains with the student."""
    seed: int = 0
    """Of the run, as `prepare` hears it: with the step it names what a method draws."""

    def learner(self, make: Make, batch: Batch, classes: int, seed: int) -> nn.Module:
        """The network that learns, on graphs: as the user asked for it, unless the method has one around it.

        Args:
            make: gives such a network.
            batch: all rows of the task with the labels of training.
            classes: number of classes C.
            seed: of the run; first weights may also come from torch's own random state, which follows it.
        """
        return make(batch.x.shape[1])

    def prepare(self, lesson: Lesson) -> None:
        """Hear, once and before the first step, what is to be taught; make `part`, if the method has one."""
        self.part, self.seed = None, lesson.seed

    def wants_clean(self, step: Step) -> bool:
        """Whether `gradients` reads the student's dropout-free activations (`Output.clean`) at this step."""
        return False

    def probe(self, step: Step) -> Int[Tensor, " P"] | None:
        """Ids in the full data of rows that `gradients` reads the student on at this step (`Output.probe`).

        The same tensor in every step, so that what is constant of these rows is made once; None for no such rows.
        """
        return None

    def missing(self) -> str | None:
        """What this method still lacks to train, in words with the way out; None when nothing."""
        return None

    @abstractmethod
    def loss(self, batch: Batch, student: Output, teacher: Output | None, step: Step) -> dict[str, Tensor]:
        """Named scalar terms, already weighted; their sum is the loss."""

    def gradients(
        self, terms: Mapping[str, Tensor], params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        """`d(sum of terms)/d(params)` by name; a parameter that the loss does not reach is left out.

        All that is returned must be linear in the terms: of several processes it is summed, over terms that are
        weighted so that the sum is that of the whole batch. What is not linear is for `combine`.
        """
        return plain_gradients(terms, params)

    def combine(
        self, gradients: Gradients, params: Mapping[str, Tensor], batch: Batch, student: Output, step: Step
    ) -> Gradients:
        """What the optimizer gets, by parameter name, from what `gradients` returned (of all processes)."""
        return gradients

    def state(self) -> dict[str, Tensor]:
        """Everything needed to continue, as flat tensors."""
        return {} if self.part is None else dict(self.part.state_dict())

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`, after `prepare`."""
        if self.part is not None:
            self.part.load_state_dict(dict(tensors))

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
