"""Networks with something around them: the student of a method that changes what is read, or how many there are.

One module each, found by its name, with exactly one `Around` in it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, TypeAlias, TypeVar

from jaxtyping import Int
from torch import Tensor, nn
from typing_extensions import Self

from gnnkd.graph.structure import CSR, Graph
from gnnkd.types import Neighbours, Operand, Output

T = TypeVar("T")
Make: TypeAlias = Callable[[int], nn.Module]
"""`make(D)` is a network as the user asked for it, for rows of D features."""


class Around(nn.Module, ABC):
    """A network made of another one, or of several, as the user asked for them."""

    needs_graph: ClassVar[bool] = False
    """Whether it looks at edges, even if the network inside does not."""
    reads_index: ClassVar[bool] = False
    """Whether `forward` takes the rows' ids in the full data as its third argument, because it knows some nodes."""

    @property
    def n_stored(self) -> int:
        """Numbers that a prediction needs beside the trainable parameters: positions, labels, votes, ids of nodes.

        Buffers of the networks inside, such as means and variances of a norm, are not among them.
        """
        return sum(buffer.numel() for buffer in self.buffers(recurse=False))

    @property
    def n_known(self) -> int:
        """Nodes of the training that it tells from new ones by their ids; 0 where it looks at no ids."""
        return 0

    def reads_edges(self, index: Int[Tensor, " N"] | None) -> bool:
        """Whether it looks at edges itself when it is asked about rows of these ids; None if all are new."""
        return self.needs_graph

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """All that `restored` needs beside the weights, as JSON holds it."""

    @classmethod
    @abstractmethod
    def restored(cls, make: Make, n_features: int, n_classes: int, options: Mapping[str, Any]) -> Self:
        """One with weights and buffers of the right shapes, which `load_state_dict` then fills."""

    @abstractmethod
    def forward(self, x: Tensor | CSR, graph: Graph | Tensor | None = None, index: Tensor | None = None) -> Output:
        """Logits of rows `x` [N, D]; `index` [N] are their ids in the full data, None where they are new."""


def inside(output: Output, prefix: str = "inner.") -> Output:
    """The output of a network inside another one, by the names that its weights have there."""

    def named(values: Mapping[str, T]) -> dict[str, T]:
        return {prefix + name: value for name, value in values.items()}

    return replace(output, hidden=named(output.hidden), raw=named(output.raw), averaged=named(output.averaged))


def ask(
    network: nn.Module, x: Operand, graph: Neighbours | Tensor | None, index: Int[Tensor, " N"] | None = None
) -> Output:
    """The output of any network of nodes and rows; `index` are the ids of the rows in the full data."""
    found: Output = network(x, graph, index) if getattr(network, "reads_index", False) else network(x, graph)
    return found


@cache
def kinds() -> dict[str, type[Around]]:
    """Every kind by the name of its module."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        name = f"{__name__}.{module.name}"
        members = inspect.getmembers(importlib.import_module(name), inspect.isclass)
        classes = [kind for _, kind in members if kind.__module__ == name and issubclass(kind, Around)]
        if len(classes) != 1:
            raise TypeError(f"{name} defines {len(classes)} networks around others; it must be exactly one")
        found[module.name] = classes[0]
    return found


def kind_of(network: Around) -> str:
    """The name of its kind."""
    return type(network).__module__.rpartition(".")[2]
