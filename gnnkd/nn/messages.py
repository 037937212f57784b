"""A layer taken apart: what every node sends, made of its own row, and what a node makes of what it hears.

Both halves work on some rows at a time, so that a layer can be applied to a graph of any size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.graph import normalise
from gnnkd.graph.attention import edge_softmax, expand, gather
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR
from gnnkd.nn.gat import GATConv
from gnnkd.nn.gcn import GCNConv
from gnnkd.nn.linear import linear
from gnnkd.nn.mlp import Linear
from gnnkd.nn.sage import SAGEConv

Input: TypeAlias = Tensor | CSR


class Messages(ABC):
    """One layer in eval mode."""

    matrix: Callable[[CSR], CSR] | None = None
    """What the layer derives of the adjacency; None for a layer that looks at no edges."""
    widths: tuple[int, ...] = ()
    """Of the tables [N, width] that are sent; none if a node sends its own row as it is, or nothing."""

    def send(self, own: Input) -> Sequence[Tensor]:
        """Rows of each table, of the rows `own` [Q, inputs] of the input."""
        return ()

    @abstractmethod
    def receive(
        self, a: CSR | None, tables: Sequence[Tensor], ids: Int[Tensor, " Q"], own: Input
    ) -> Float[Tensor, "Q O"]:
        """The output of some nodes.

        Args:
            a: their rows [Q, N] of the matrix, None where there is none.
            tables: what all nodes sent; the layer's input, if that is it.
            ids: which nodes these are.
            own: their rows [Q, inputs] of the input.
        """


@final
class _Alone(Messages):
    """`X W^T + b`: nobody sends anything."""

    def __init__(self, layer: Linear, dense: bool) -> None:
        self.layer = layer

    def receive(
        self, a: CSR | None, tables: Sequence[Tensor], ids: Int[Tensor, " Q"], own: Input
    ) -> Float[Tensor, "Q O"]:
        return linear(own, self.layer.weight, self.layer.bias)


@final
class _Summed(Messages):
    """`A X W^T + b`, and `X R^T` beside it, with the sum on the narrower side, as in `graph_linear`."""

    def __init__(self, layer: GCNConv | SAGEConv, dense: bool) -> None:
        if isinstance(layer, GCNConv):
            self.matrix, self.weight, self.bias, self.root = layer.normalised, layer.lin.weight, layer.bias, None
        else:
            self.matrix, self.weight, self.bias = layer.neighbourhood, layer.lin_l.weight, layer.lin_l.bias
            self.root = layer.lin_r
        outputs, inputs = self.weight.shape
        self.sum_first = dense and inputs < outputs
        self.widths = () if self.sum_first else (outputs,)

    def send(self, own: Input) -> Sequence[Tensor]:
        return (linear(own, self.weight),)

    def receive(
        self, a: CSR | None, tables: Sequence[Tensor], ids: Int[Tensor, " Q"], own: Input
    ) -> Float[Tensor, "Q O"]:
        assert a is not None
        out = neighbour_sum(a, tables[0])
        if self.sum_first:
            out = F.linear(out, self.weight)
        if self.root is not None:
            out += linear(own, self.root.weight)
        return out if self.bias is None else out.add_(self.bias)


@final
class _Attention(Messages):
    """The mapped features head by head, which the sums read as tables of their own, then both halves of the scores."""

    def __init__(self, layer: GATConv, dense: bool) -> None:
        self.layer = layer
        self.matrix = normalise.looped
        self.heads, self.width = layer.att_src.shape[1:]
        self.widths = (*[self.width] * self.heads, self.heads, self.heads)

    def send(self, own: Input) -> Sequence[Tensor]:
        layer = self.layer
        z = linear(own, layer.lin.weight).view(-1, self.heads, self.width)
        return (*z.unbind(1), (z * layer.att_src).sum(-1), (z * layer.att_dst).sum(-1))

    def receive(
        self, a: CSR | None, tables: Sequence[Tensor], ids: Int[Tensor, " Q"], own: Input
    ) -> Float[Tensor, "Q O"]:
        assert a is not None
        *z, source, target = tables
        scores = F.leaky_relu(gather(a, source) + expand(a, target[ids]), self.layer.negative_slope)
        shares = edge_softmax(a, scores).t().contiguous()
        heard = [neighbour_sum(a.with_value(share), rows) for share, rows in zip(shares, z, strict=True)]
        out = torch.cat(heard, 1) if self.layer.concat else torch.stack(heard).mean(0)
        return out if self.layer.bias is None else out.add_(self.layer.bias)


@final
class Copied(Messages):
    """A layer whose nodes send their own row, sent as a copy: sums read tables of one type only.

    Args:
        inner: without `widths`.
        width: of the input, which is dense.
    """

    def __init__(self, inner: Messages, width: int) -> None:
        self.inner, self.matrix, self.widths = inner, inner.matrix, (width,)

    def send(self, own: Input) -> Sequence[Tensor]:
        """The rows themselves, of the type that they are read in."""
        assert isinstance(own, Tensor)
        return (own,)

    def receive(
        self, a: CSR | None, tables: Sequence[Tensor], ids: Int[Tensor, " Q"], own: Input
    ) -> Float[Tensor, "Q O"]:
        """As the layer inside."""
        return self.inner.receive(a, tables, ids, own)


_KINDS: dict[type[nn.Module], Callable[[Any, bool], Messages]] = {
    Linear: _Alone,
    GCNConv: _Summed,
    SAGEConv: _Summed,
    GATConv: _Attention,
}


def messages(layer: nn.Module, *, dense: bool) -> Messages:
    """`layer` taken apart, for a dense or a sparse input.

    Raises:
        UserError: a layer that is not known here.
    """
    if type(layer) not in _KINDS:
        raise UserError(
            f"{type(layer).__name__} cannot be applied to some nodes at a time; choose a network of gcn, sage, gat or "
            "mlp, or ask about all nodes in one pass"
        )
    return _KINDS[type(layer)](layer, dense)
