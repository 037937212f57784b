"""Graph convolution of Kipf and Welling (ICLR 2017): X' = D^-1/2 (A + I) D^-1/2 X W^T + b."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.graph import normalise
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.linear import graph_linear
from gnnkd.nn.network import Network, dimensions


@final
class GCNConv(nn.Module):
    """One graph convolution, equal to PyG's `GCNConv` in outputs, gradients and state dict.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        bias: whether to add b.
        add_self_loops: whether a node without a loop gets one; without, A itself is normalised in place of A + I. On a
            graph that has all of them this is the same, found without a look at which there are.
    """

    weights: ClassVar[tuple[str, ...]] = ("lin.weight",)
    averaged: ClassVar[int] = 1

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True, add_self_loops: bool = True) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.normalised = normalise.gcn if add_self_loops else normalise.symmetric
        nn.init.xavier_uniform_(self.lin.weight)

    def forward(
        self,
        x: Float[Tensor, "K I"] | CSR,
        graph: Graph | Int[Tensor, "2 E"] | None,
        edge_weight: Float[Tensor, " E"] | None = None,
    ) -> Float[Tensor, "N O"]:
        """Convolve `x`.

        Args:
            x: dense or sparse.
            graph: a `Graph`, normalised once, or an edge list, normalised in this call.
            edge_weight: with an edge list only; a `Graph` holds its own.
        """
        a = Graph.of(graph, x.shape[0], edge_weight).derived(self.normalised)
        return graph_linear(a, x, self.lin.weight, self.bias)


def gcn(
    in_channels: int,
    out_channels: int,
    *,
    layers: int = 3,
    width: int = 256,
    dropout: float = 0.5,
    input_dropout: float = 0.0,
    norm: str = "none",
) -> Network:
    """A graph convolutional network; the options are those of `Network`.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        layers: number of convolutions, >= 1.
        width: hidden units of a layer, >= 1.
        dropout: in [0, 1).
        input_dropout: in [0, 1).
        norm: `none`, `batch` or `layer`.

    Raises:
        UserError: an option outside its range.
    """
    sizes = dimensions(in_channels, out_channels, layers=layers, width=width)
    return Network([GCNConv(i, o) for i, o in sizes], dropout=dropout, input_dropout=input_dropout, norm=norm)
