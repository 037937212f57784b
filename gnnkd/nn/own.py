"""A module of the user's as a network of the house: its logits, and what each of its weight matrices multiplied."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.operands import Seen
from gnnkd.types import Output

EDGES = ("edge", "adj", "graph")
"""Parts of the names by which an argument says that it is about edges."""
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


@final
class Own(nn.Module):
    """A module called as `module(x)` or `module(x, edge_index)`, which returns logits [N, C].

    Operands are those that the module tells itself, as the networks of `gnnkd.nn` do; else they are read by hooks that
    stay for one forward pass only, as `Seen` says.

    Args:
        module: it is not changed, but its weights are when this is trained. What `torch.compile`, `DataParallel` or
            `DistributedDataParallel` put around a module is taken off: it hides the arguments and the layers.
        graph: whether it takes edges; None looks at the arguments of its `forward`.
    """

    def __init__(self, module: nn.Module, *, graph: bool | None = None) -> None:
        super().__init__()
        self.module = _unwrapped(module)
        self.graph = takes_edges(self.module) if graph is None else graph
        self._forget()

    def _forget(self) -> None:
        self._dense: WeakKeyDictionary[CSR, Tensor] = WeakKeyDictionary()
        self._edges: WeakKeyDictionary[Graph, Tensor] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """All but what was made of inputs, which a copy or a file makes again."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name not in ("_dense", "_edges")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state over; nothing has been made of inputs yet."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._forget()

    @property
    def name(self) -> str:
        """The class of the module."""
        return _class(self.module)

    @property
    def scripted(self) -> bool:
        """Whether it is TorchScript, whose layers cannot be watched."""
        return isinstance(self.module, torch.jit.ScriptModule)

    def forward(self, x: Float[Tensor, "N D"] | CSR, graph: Graph | Int[Tensor, "2 E"] | None = None) -> Output:
        """Logits, and the operand of each weight matrix in the order of the calls.

        Args:
            x: features; a sparse matrix is written out, once. Logits and operands are of their type.
            graph: for modules that take edges: PyG's `edge_index`, which is made of a `Graph` once.

        Raises:
            UserError: the module returns something else than a matrix of N rows, or lacks its graph.
        """
        rows = x if isinstance(x, Tensor) else self._written(x)
        seen = Seen(rows.shape[0], rows.dtype)
        with seen.during(self):
            found = self.module(rows, self._edge_index(graph)) if self.graph else self.module(rows)
        logits = self._checked(found.logits if isinstance(found, Output) else found, rows)
        if isinstance(found, Output) and found.hidden:
            return Output(logits, _inside(found.hidden), _inside(found.raw), _inside(found.averaged))
        return Output(logits, seen.hidden, averaged=seen.averaged)

    def _checked(self, logits: object, rows: Tensor) -> Tensor:
        if not isinstance(logits, Tensor):
            raise UserError(f"{self.name} returns a {type(logits).__name__}; it must return logits, a tensor [N, C]")
        if logits.layout != torch.strided:
            raise UserError(f"{self.name} returns a sparse tensor; it must return dense logits: add .to_dense()")
        n = rows.shape[0]
        if logits.dim() != 2 or logits.shape[0] != n or not logits.is_floating_point():
            raise UserError(
                f"{self.name} returns {logits.dtype} of shape {list(logits.shape)}; it must return logits, floating "
                f"point of shape [{n}, C], one row for each node"
            )
        return logits.to(rows.dtype)

    def _written(self, x: CSR) -> Tensor:
        if x not in self._dense:
            self._dense[x] = x.dense()
        return self._dense[x]

    def _edge_index(self, graph: Graph | Tensor | None) -> Tensor:
        if graph is None:
            raise UserError(f"{self.name} takes edges: give edge_index [2, E] as the second argument")
        if isinstance(graph, Tensor):
            return graph
        if graph not in self._edges:
            self._edges[graph] = graph.edge_index
        return self._edges[graph]


def copied(module: M) -> M:
    """A deep copy with weights to train, where TorchScript would copy them as results, or as constants."""
    with torch.no_grad():
        found = copy.deepcopy(module)
    for mine, p in zip(found.parameters(), module.parameters(), strict=True):
        if mine.requires_grad != p.requires_grad:
            mine.requires_grad_(p.requires_grad)
    return found


def takes_edges(module: nn.Module) -> bool:
    """Whether `forward` has a second argument for edges: a required one, one named after them, or `*args`."""
    try:
        parameters = _arguments(module)
    except (TypeError, ValueError):
        raise UserError(
            f"the arguments of {_class(module)}.forward cannot be read; say whether it takes edges with "
            "gnnkd.nn.own.Own(module, graph=True) or graph=False"
        ) from None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(named) < 2:
        return any(p.kind is p.VAR_POSITIONAL for p in parameters)
    second = named[1]
    return second.default is second.empty or any(part in second.name.lower() for part in EDGES)


def _arguments(module: nn.Module) -> list[inspect.Parameter]:
    if not isinstance(module, torch.jit.ScriptModule):
        return list(inspect.signature(module.forward).parameters.values())
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    forward: Any = module.forward
    return [
        inspect.Parameter(one.name, kind, default=one.default_value if one.has_default_value() else empty)
        for one in forward.schema.arguments[1:]  # the first is the module
    ]


def _unwrapped(module: nn.Module) -> nn.Module:
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _unwrapped(module.module)
    compiled = getattr(module, "_orig_mod", None)
    return _unwrapped(compiled) if isinstance(compiled, nn.Module) else module


def _class(module: nn.Module) -> str:
    said = module.original_name if isinstance(module, torch.jit.ScriptModule) else type(module).__name__
    return str(said)


def _inside(named: Mapping[str, T]) -> dict[str, T]:
    """Names inside of the module as names of `Own`."""
    return {f"module.{name}": value for name, value in named.items()}
