"""Topology adaptive graph convolution (Du et al., 2017): X' = sum over h = 0..k of A^h X W_h^T, plus b.

A is D^-1/2 A D^-1/2 of the graph as it is, without added self loops: h = 0 is a node's own term.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.graph import normalise
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.linear import linear
from gnnkd.nn.network import Network, dimensions
from gnnkd.nn.propagation import check_steps


@final
class TAGConv(nn.Module):
    """One convolution with filters of up to k steps, equal to PyG's `TAGConv` in outputs, gradients and state dict.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        k: steps of the longest filter, >= 0.
        bias: whether to add b.

    Raises:
        UserError: k out of range.
    """

    averaged: ClassVar[int] = 1

    def __init__(self, in_channels: int, out_channels: int, *, k: int = 3, bias: bool = True) -> None:
        super().__init__()
        check_steps(k)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.lins = nn.ModuleList(nn.Linear(in_channels, out_channels, bias=False) for _ in range(k + 1))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weights = tuple(f"lins.{hop}.weight" for hop in range(k + 1))

    def forward(
        self,
        x: Float[Tensor, "N I"] | CSR,
        graph: Graph | Int[Tensor, "2 E"] | None,
        edge_weight: Float[Tensor, " E"] | None = None,
    ) -> Float[Tensor, "N O"]:
        """Convolve `x`.

        Args:
            x: dense or sparse.
            graph: a `Graph`, normalised once, or an edge list, normalised in this call.
            edge_weight: with an edge list only; a `Graph` holds its own.
        """
        a = Graph.of(graph, x.shape[0], edge_weight).derived(normalise.symmetric)
        weights: list[Tensor] = [lin.weight for lin in self.lins]  # type: ignore[misc]
        if isinstance(x, Tensor) and self.in_channels < self.out_channels:  # steps cost least on the narrower side
            out = _spread_first(a, x, weights)
        else:
            out = _mapped_first(a, x, weights)
        return out if self.bias is None else out + self.bias


def _spread_first(a: CSR, x: Float[Tensor, "N I"], weights: list[Tensor]) -> Float[Tensor, "N O"]:
    out = linear(x, weights[0])
    for weight in weights[1:]:
        x = neighbour_sum(a, x)
        out = out + linear(x, weight)
    return out


def _mapped_first(a: CSR, x: Float[Tensor, "N I"] | CSR, weights: list[Tensor]) -> Float[Tensor, "N O"]:
    """`X W_0 + A (X W_1 + A (X W_2 + ...))`: as many steps as the longest filter has."""
    out = linear(x, weights[-1])
    for weight in weights[-2::-1]:
        out = linear(x, weight) + neighbour_sum(a, out)
    return out


def tag(
    in_channels: int,
    out_channels: int,
    *,
    layers: int = 2,
    width: int = 256,
    dropout: float = 0.5,
    input_dropout: float = 0.0,
    norm: str = "none",
    k: int = 3,
) -> Network:
    """A topology adaptive graph convolutional network; the other options are those of `Network`.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        layers: number of convolutions, >= 1.
        width: hidden units of a layer, >= 1.
        dropout: in [0, 1).
        input_dropout: in [0, 1).
        norm: `none`, `batch` or `layer`.
        k: steps of each convolution's longest filter, >= 0.

    Raises:
        UserError: an option outside its range.
    """
    sizes = dimensions(in_channels, out_channels, layers=layers, width=width)
    return Network([TAGConv(i, o, k=k) for i, o in sizes], dropout=dropout, input_dropout=input_dropout, norm=norm)
