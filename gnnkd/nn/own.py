"""A module of the user's as a network of the house: its logits, and what each of its weight matrices multiplied."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, final
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.network import Layer
from gnnkd.types import Operand, Output

EDGES = ("edge", "adj", "graph")
"""Parts of the names by which an argument says that it is about edges."""
_ROWS_COMPARED = 16


@final
class Own(nn.Module):
    """A module called as `module(x)` or `module(x, edge_index)`, which returns logits [N, C].

    Operands are read by hooks that stay for one forward pass only: those of every submodule with a matrix `weight`
    [out, in] that maps [N, in] to [N, out], as `nn.Linear` does, and of the layers of `gnnkd.nn`. A weight that is
    shared, or used twice in a pass, has no single operand and is left out.

    Args:
        module: it is not changed, but its weights are when this is trained.
        graph: whether it takes edges; None looks at the arguments of its `forward`.
    """

    def __init__(self, module: nn.Module, *, graph: bool | None = None) -> None:
        super().__init__()
        self.module = module
        self.graph = takes_edges(module) if graph is None else graph
        self._dense: WeakKeyDictionary[CSR, Tensor] = WeakKeyDictionary()
        self._edges: WeakKeyDictionary[Graph, Tensor] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        """The class of the module."""
        return type(self.module).__name__

    def forward(self, x: Float[Tensor, "N D"] | CSR, graph: Graph | Int[Tensor, "2 E"] | None = None) -> Output:
        """Logits, and the operand of each weight matrix in the order of the calls.

        Args:
            x: features; a sparse matrix is written out, once.
            graph: for modules that take edges: PyG's `edge_index`, which is made of a `Graph` once.

        Raises:
            UserError: the module returns something else than a matrix of N rows, or lacks its graph.
        """
        rows = x if isinstance(x, Tensor) else self._written(x)
        seen = _Seen(rows.shape[0])
        with seen.during(self):
            found = self.module(rows, self._edge_index(graph)) if self.graph else self.module(rows)
        logits = found.logits if isinstance(found, Output) else found
        return Output(self._checked(logits, rows.shape[0]), seen.hidden, averaged=seen.averaged)

    def _checked(self, logits: object, n: int) -> Tensor:
        if not isinstance(logits, Tensor):
            raise UserError(f"{self.name} returns a {type(logits).__name__}; it must return logits, a tensor [N, C]")
        if logits.dim() != 2 or logits.shape[0] != n or not logits.is_floating_point():
            raise UserError(
                f"{self.name} returns {logits.dtype} of shape {list(logits.shape)}; it must return logits, floating "
                f"point of shape [{n}, C], one row for each node"
            )
        return logits

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


def takes_edges(module: nn.Module) -> bool:
    """Whether `forward` has a second argument for edges: a required one, one named after them, or `*args`."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        raise UserError(
            f"the arguments of {type(module).__name__}.forward cannot be read; say whether it takes edges with "
            "gnnkd.nn.own.Own(module, graph=True) or graph=False"
        ) from None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(named) < 2:
        return any(p.kind is p.VAR_POSITIONAL for p in parameters)
    second = named[1]
    return second.default is second.empty or any(part in second.name.lower() for part in EDGES)


@final
class _Seen:
    """The operands that one forward pass of [n, ...] shows."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.calls: Counter[str] = Counter()
        self.found: dict[str, Operand] = {}
        self.blocks: dict[str, int] = {}

    @property
    def hidden(self) -> dict[str, Operand]:
        """By weight name, those of weights used once."""
        return {name: h for name, h in self.found.items() if self.calls[name] == 1}

    @property
    def averaged(self) -> dict[str, int]:
        """Numbers of averaged blocks, where there are several."""
        return {name: self.blocks[name] for name in self.hidden if self.blocks.get(name, 1) > 1}

    @contextmanager
    def during(self, model: nn.Module) -> Iterator[None]:
        """Watch the submodules of `model` inside a block."""
        holders = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
        handles = []
        told: tuple[str, ...] = ()
        try:
            for prefix, module in model.named_modules():
                if prefix.startswith(told):  # a layer of the house says itself what is in it
                    continue
                if _is_layer(module):
                    told += (f"{prefix}.",)
                weights = {
                    f"{prefix}.{name}": name
                    for name in (module.weights if _is_layer(module) else ("weight",))
                    if holders[id(_weight(module, name))] == 1
                }
                if weights:
                    handles.append(module.register_forward_hook(self._hook(weights)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, weights: dict[str, str]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], out: object) -> None:
            self.calls.update(weights.keys())
            if not args or not self._is_operand(args[0]):
                return
            for full, name in weights.items():
                if _maps(module, _weight(module, name), args[0], out):
                    self.found.setdefault(full, args[0])
                    self.blocks[full] = module.averaged if _is_layer(module) else 1

        return hook

    def _is_operand(self, h: object) -> TypeGuard[Tensor | CSR]:
        floats = isinstance(h, CSR) or (isinstance(h, Tensor) and h.dim() == 2 and h.is_floating_point())
        return floats and h.shape[0] == self.n  # type: ignore[attr-defined]


def _is_layer(module: nn.Module) -> TypeGuard[Layer]:
    # Looking a protocol up takes a while; what has no `weights` at all is done with at once.
    return ("weights" in vars(module) or hasattr(type(module), "weights")) and isinstance(module, Layer)


def _weight(module: nn.Module, path: str) -> Tensor | None:
    """The parameter that a dotted name leads to; what a module computes under such a name is none."""
    holder, _, name = path.rpartition(".")
    return module.get_submodule(holder)._parameters.get(name)


def _maps(module: nn.Module, weight: Tensor | None, h: Tensor | CSR, out: object) -> bool:
    """Whether `weight` is the [out, in] of a map from `h` [N, in] to `out` [N, out]."""
    if weight is None or weight.dim() != 2 or weight.shape[1] != h.shape[1]:
        return False
    if _is_layer(module):
        return True
    if not isinstance(h, Tensor) or not isinstance(out, Tensor) or out.shape != (h.shape[0], weight.shape[0]):
        return False
    if isinstance(module, nn.Linear) or weight.shape[0] != weight.shape[1]:
        return True
    return _not_transposed(weight, module._parameters.get("bias"), h, out)


@torch.no_grad()
def _not_transposed(weight: Tensor, bias: Tensor | None, h: Tensor, out: Tensor) -> bool:
    """Whether a square weight is [out, in] and not [in, out], which its shape does not say: some rows do."""
    want = F.linear(h[:_ROWS_COMPARED], weight, bias)
    return torch.allclose(out[:_ROWS_COMPARED], want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))
