"""How much memory an answer takes, estimated before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from gnnkd.data import room
from gnnkd.errors import UserError
from gnnkd.graph.structure import Graph
from gnnkd.latency.answers import Data
from gnnkd.nn.gat import GATConv

_FETCHED, _PASSED, _HEAD = 100, 24, 24
"""Bytes of an edge while it is cut out, while messages pass along it, and more of both for each head of attention."""
_DERIVED = 56
"""Bytes of an edge while a matrix is derived of a whole graph, of which the half stays."""
_KEPT = 3
"""Tensors of a layer's width that a forward pass keeps: its output before and after the activation, and a sum."""


@final
@dataclass(frozen=True)
class Room:
    """Bytes of the host's memory that an answer may take."""

    left: int

    @staticmethod
    def half() -> Room:
        """Half of what is free now; 4 GiB where the system does not say."""
        available = room.memory()
        return Room(available // 2 if available is not None else 1 << 32)

    def lack(self, need: int) -> str | None:
        """What to say of `need` bytes; None where they are there."""
        if need <= self.left:
            return None
        return f"takes up to {_mib(need)} of memory, and {_mib(self.left)} may be used (--memory says how much)"

    def check(self, need: int, what: str) -> None:
        """Refuse `what`, which takes `need` bytes.

        Raises:
            UserError: there is less.
        """
        lack = self.lack(need)
        if lack is not None:
            raise UserError(f"{what} {lack}; choose a smaller network, or one of gcn, sage, gat")

    def on_device(self, data: Data) -> bool:
        """Whether features and graph fit into the memory of the device, with as much again for what is computed."""
        if data.device != "cuda":
            return True
        free, _ = torch.cuda.mem_get_info()
        return 2 * (data.size() + 12 * data.graph.n_edges) <= free


def of_piece(network: nn.Module, data: Data, nodes: int, edges: int) -> int:
    """Bytes of an answer from a neighbourhood of so many nodes and edges, from above."""
    row = data.size() // max(1, data.n)
    return edges * (_FETCHED + _HEAD * _heads(network)) + nodes * (48 + 2 * row + _columns(network))


def of_matrices(graph: Graph, count: int) -> int:
    """Bytes of `count` matrices that are derived of a whole graph one after another, from above."""
    return graph.n_edges * _DERIVED * (count + 1) // 2 if count else 0


def of_all(network: nn.Module, graph: Graph, nodes: int) -> int:
    """Bytes of one pass over a whole graph, from above, beside features and adjacency."""
    return graph.n_edges * (_PASSED + _HEAD * _heads(network)) + nodes * _columns(network)


def _columns(network: nn.Module) -> int:
    """Bytes of a row of all that a forward pass keeps."""
    return 4 * _KEPT * sum(p.shape[0] for p in network.parameters() if p.dim() == 2)


def _heads(network: nn.Module) -> int:
    return max((module.heads for module in network.modules() if isinstance(module, GATConv)), default=0)


def _mib(count: int) -> str:
    """So many bytes in the unit of `--memory`, rounded up."""
    return f"{-(-count >> 20):,} MiB"
