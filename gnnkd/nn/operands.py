"""What each weight matrix inside a module multiplied in one forward pass, read by hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnkd.graph.structure import CSR
from gnnkd.nn.network import Layer
from gnnkd.types import Operand

_ROWS_COMPARED = 16
_VALUES = ("lin", "lin_src", "lin_l", "lin_value")
"""How PyG's attention layers call the map whose outputs they sum over the neighbours, head by head."""


@final
class Seen:
    """The operands [n, ...] that one forward pass shows, of weights and operands of type `dtype`.

    They are those of every submodule with a matrix `weight` [out, in] that maps [n, in] to [n, out], as `nn.Linear`
    does, and of the layers of `gnnkd.nn`. A weight that is shared, or used twice in a pass, has no single operand and
    is left out. TorchScript runs no hooks, so it shows none.
    """

    def __init__(self, n: int, dtype: torch.dtype) -> None:
        self.n, self.dtype = n, dtype
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
                if isinstance(module, torch.jit.ScriptModule):
                    told += (prefix,)
                    continue
                if _is_layer(module):
                    told += (f"{prefix}.",)
                if _heads(module) > 1:
                    self.blocks |= dict.fromkeys((f"{prefix}.{name}.weight" for name in _VALUES), _heads(module))
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
                weight = _weight(module, name)
                # What reads operands computes in one type with the weight's gradient.
                if weight is None or weight.dtype != self.dtype or not _maps(module, weight, args[0], out):
                    continue
                self.found.setdefault(full, args[0] if isinstance(args[0], CSR) else args[0].to(self.dtype))
                if _is_layer(module):
                    self.blocks[full] = module.averaged
                elif weight.shape[0] % self.blocks.get(full, 1):
                    del self.blocks[full]

        return hook

    def _is_operand(self, h: object) -> TypeGuard[Tensor | CSR]:
        floats = isinstance(h, CSR) or (isinstance(h, Tensor) and h.dim() == 2 and h.is_floating_point())
        return floats and h.shape[0] == self.n  # type: ignore[attr-defined]


def _is_layer(module: nn.Module) -> TypeGuard[Layer]:
    # Looking a protocol up takes a while; what has no `weights` at all is done with at once.
    return ("weights" in vars(module) or hasattr(type(module), "weights")) and isinstance(module, Layer)


def _heads(module: nn.Module) -> int:
    """How many heads an attention layer of PyG averages; 1 for other modules, and for heads side by side."""
    heads = getattr(module, "heads", 1)
    return heads if isinstance(heads, int) and getattr(module, "concat", True) is False else 1


def _weight(module: nn.Module, path: str) -> Tensor | None:
    """The parameter that a dotted name leads to; what a module computes under such a name is none."""
    holder, _, name = path.rpartition(".")
    return module.get_submodule(holder)._parameters.get(name)


def _maps(module: nn.Module, weight: Tensor, h: Tensor | CSR, out: object) -> bool:
    """Whether `weight` is the [out, in] of a map from `h` [N, in] to `out` [N, out]."""
    if weight.dim() != 2 or weight.shape[1] != h.shape[1]:
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
