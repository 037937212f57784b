"""A neighbourhood in blocks, one a layer: each layer is applied to the nodes that the next one reads, and to no others.

The block of a layer has a row for each node whose output is wanted, and a column for each node that these hear. What is
far from the nodes asked about goes through the first layer only, and through no layer if it merely lends its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.graph.pattern import Pattern
from gnnkd.graph.rows import some_rows
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.network import Network
from gnnkd.nn.taken_apart import apart

_DENSE = 16
"""From this share of the nodes on, 1 in so many, marks on all of them find the distinct ones faster than sorting."""


@final
@dataclass(frozen=True)
class Block:
    """What one layer is applied to.

    Args:
        a: rows [Q, S] of the layer's matrix, None for a layer that looks at no edges.
        place: where the Q nodes are among the S that they hear.
    """

    a: CSR | None
    place: Int[Tensor, " Q"]

    def to(self, device: torch.device | str) -> Block:
        """The same on `device`."""
        return Block(None if self.a is None else self.a.to(device), self.place.to(device))


@final
@dataclass(frozen=True)
class Neighbourhood:
    """What a network needs of a graph to answer about some of its nodes.

    Args:
        blocks: first layer first.
        nodes: whose features are read, ascending numbers in the whole graph.
        rows: the places of those asked about among the last block's rows.
    """

    blocks: Sequence[Block]
    nodes: Int[Tensor, " S"]
    rows: Int[Tensor, " Q"]

    @property
    def n_entries(self) -> int:
        """Entries of the matrices of all layers."""
        return sum(block.a.n_entries for block in self.blocks if block.a is not None)

    def to(self, device: torch.device | str) -> Neighbourhood:
        """The same with its blocks and rows on `device`; the features are read where they are."""
        return replace(self, blocks=[block.to(device) for block in self.blocks], rows=self.rows.to(device))


@final
class Blocks:
    """A network that answers about some nodes from all their neighbours, with the weights of the whole graph.

    Args:
        network: of gcn, sage, gat and mlp layers, in eval mode.
        x: features of the kind that will be read [N, D]: the type, and whether they are sparse, are what counts.

    Raises:
        UserError: of other layers.
    """

    def __init__(self, network: Network, x: Tensor | CSR) -> None:
        self.network = network
        self.layers = apart(network, x)

    @staticmethod
    def of(network: nn.Module, x: Tensor | CSR) -> Blocks | None:
        """None of a network whose layers cannot be taken apart."""
        try:
            return Blocks(network, x) if isinstance(network, Network) else None
        except UserError:
            return None

    def around(self, graph: Graph, asked: Int[Tensor, " Q"]) -> Neighbourhood:
        """The neighbourhood of some nodes, repeats allowed, in time and memory of its own size.

        Args:
            graph: the whole; the matrices of the layers are derived on the first call, and kept.
            asked: nodes in any order.
        """
        wanted, rows = torch.unique(asked, return_inverse=True)
        found: list[Block] = []
        for layer in reversed(self.layers):
            if layer.matrix is None:
                found.append(Block(None, torch.arange(wanted.numel(), device=wanted.device)))
                continue
            block, wanted = heard(graph.derived(layer.matrix), wanted)
            found.append(block)
        return Neighbourhood(found[::-1], wanted, rows)

    @torch.no_grad()
    def logits(self, x: Float[Tensor, "S D"] | CSR, near: Neighbourhood) -> Float[Tensor, "Q C"]:
        """Logits of the nodes asked about.

        Args:
            x: features of the nodes of `near`, where the network is.
            near: on the same device.
        """
        last = len(self.layers) - 1
        for depth, (layer, block) in enumerate(zip(self.layers, near.blocks, strict=True)):
            own = x[block.place] if isinstance(x, Tensor) else some_rows(x, block.place)
            tables = layer.send(x) if layer.widths else [x] if isinstance(x, Tensor) else []
            x = layer.receive(block.a, tables, block.place, own)
            if depth < last:
                x = self.network.activation(self.network.norms[depth](x))
        assert isinstance(x, Tensor), "a network has a layer"
        return x[near.rows]


def heard(a: CSR, ids: Int[Tensor, " Q"]) -> tuple[Block, Int[Tensor, " S"]]:
    """The block of the rows `ids`, and the nodes that they hear with themselves, ascending.

    Args:
        a: a matrix [N, N] of the whole graph.
        ids: ascending and distinct.
    """
    rows, n = some_rows(a, ids), a.shape[1]
    col = rows.col.long()
    if _DENSE * (col.numel() + ids.numel()) < n:
        source = torch.unique(torch.cat([ids, col]))
        new, place = torch.searchsorted(source, col), torch.searchsorted(source, ids)
    else:
        mark = torch.zeros(n, dtype=torch.bool, device=a.device)
        mark[ids] = True
        mark[col] = True
        source = mark.nonzero().flatten()
        number = mark.cumsum(0) - 1
        new, place = number[col], number[ids]
    # New numbers rise with the old ones, so columns stay ascending within a row.
    return Block(CSR.on(Pattern(rows.rowptr, new, (ids.numel(), source.numel())), rows.value), place), source
