"""What one forward pass multiplies and adds, and over how many edges it looks: seen operation by operation.

Counted are multiply-adds of matrix products (rows x inputs x outputs, as if features were dense, although sparse ones
take fewer), and of sums along edges and inner products along edges (edges x width). Left out is what works element by
element: activations, norms, softmax, the scores of an edge in attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.around import ask

_RING = 8
"""Nodes of the graph on which a network is looked at."""


@final
class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts during a forward pass over `n` nodes.

    Args:
        n: number of nodes; a sum from n rows into n rows goes along edges.
        x: the features; where they are sparse, a sum over their entries is a product with them, and goes along none.
        deep: whether to follow through how many such sums each tensor went; this keeps all tensors of the pass.
    """

    def __init__(self, n: int, x: Tensor | CSR, *, deep: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n, self.deep = n, deep
        self.entries = x.col.data_ptr() if isinstance(x, CSR) else None
        self.mapped: int = 0
        self.passed: int = 0
        self._kept: list[Tensor] = []
        self._depths: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        along = name in _BAGS and self._along(args)
        if along:
            self.passed += args[1].numel() * args[0].shape[1]
        elif name in _PRODUCTS:
            self.mapped += _PRODUCTS[name](args)
        elif name == "sampled_addmm":
            self.passed += args[0].values().numel() * args[1].shape[1]
        if self.deep:
            depth = max((self.depth(t) for t in _tensors((args, kwargs))), default=0) + along
            for t in _tensors(out):
                self._kept.append(t)  # or its memory, which names it, could become another one's
                self._depths[_memory(t)] = max(depth, self.depth(t))
        return out

    def depth(self, t: Tensor) -> int:
        """Through how many sums along edges a tensor went, one after another."""
        return self._depths.get(_memory(t), 0)

    def _along(self, args: tuple[Any, ...]) -> bool:
        table, entries, offsets = args[:3]
        square = table.shape[0] == self.n and offsets.numel() == self.n + 1
        return bool(square and entries.data_ptr() != self.entries)


_BAGS = frozenset({"_embedding_bag", "_embedding_bag_forward_only"})
_PRODUCTS: dict[str, Callable[[tuple[Any, ...]], int]] = {
    "mm": lambda args: prod(args[0].shape) * int(args[1].shape[1]),
    "addmm": lambda args: prod(args[1].shape) * int(args[2].shape[1]),
    "bmm": lambda args: prod(args[0].shape) * int(args[1].shape[2]),
    "baddbmm": lambda args: prod(args[1].shape) * int(args[2].shape[2]),
    "mv": lambda args: prod(args[0].shape),
    "addmv": lambda args: prod(args[1].shape),
}
"""Multiply-adds of a product of matrices, from its operands."""


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.layout == torch.strided)


def _memory(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def ring(width: int) -> tuple[Tensor, Graph]:
    """Dense rows and a small graph: what a network looks like does not depend on which ones."""
    node = torch.arange(_RING)
    beside = (node + 1) % _RING
    edges = torch.stack([torch.cat([node, beside]), torch.cat([beside, node])])
    return torch.linspace(-1, 1, _RING * width).view(_RING, width), Graph.from_edge_index(edges, _RING)


@torch.no_grad()
def hops(network: nn.Module, width: int) -> int:
    """How far a network of the house looks along edges: the longest chain of sums along them, 0 for one of rows.

    Args:
        network: on the CPU, in eval mode.
        width: number of its features D.
    """
    x, graph = ring(width)
    with _Seen(_RING, x, deep=True) as seen:
        logits = ask(network, x, graph).logits
    depth: int = seen.depth(logits)
    return depth


@torch.no_grad()
def per_node(
    network: nn.Module, x: Tensor | CSR, graph: Graph | None, index: Tensor | None = None, *, edges: bool = True
) -> float:
    """Multiply-adds of one forward pass over all rows, by their number.

    Args:
        network: on the CPU, in eval mode.
        x: the rows [N, D], dense or sparse.
        graph: their edges; None where the network looks at rows alone.
        index: ids of the rows in the full data.
        edges: whether the network looks at edges; without, only its maps are counted.
    """
    rows, small = ring(x.shape[1])
    with _Seen(_RING, rows, deep=False) as alone:
        ask(network, rows, small)
    mapped = float(alone.mapped / _RING)
    if not edges or graph is None:
        return mapped
    with _Seen(x.shape[0], x, deep=False) as along:
        ask(network, x, graph, index)
    return mapped + float(along.passed / x.shape[0])
