"""GraphSAGE (Hamilton, Ying, Leskovec, NeurIPS 2017) with its mean and its GCN aggregator.

mean: x'_v = W_l mean(x_u : u -> v) + b + W_r x_v
gcn:  x'_v = W_l (x_v + sum(x_u : u -> v)) / (deg v + 1) + b
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import unknown
from gnnkd.graph import normalise
from gnnkd.graph.layered import first
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.linear import graph_linear, linear
from gnnkd.nn.network import Network, dimensions

AGGREGATORS: dict[str, tuple[Callable[[CSR], CSR], bool]] = {
    "mean": (normalise.mean, True),
    "gcn": (normalise.mean_with_self, False),
}
"""By name: the matrix of the neighbourhood, and whether a node has a matrix of its own (W_r) beside it."""


@final
class SAGEConv(nn.Module):
    """One GraphSAGE layer; `mean` equals PyG's `SAGEConv` in outputs, gradients and state dict.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        aggregator: `mean` or `gcn`.
        bias: whether to add b.

    Raises:
        UserError: an unknown aggregator.
    """

    averaged: ClassVar[int] = 1

    def __init__(self, in_channels: int, out_channels: int, *, aggregator: str = "mean", bias: bool = True) -> None:
        super().__init__()
        if aggregator not in AGGREGATORS:
            raise unknown("aggregator", aggregator, AGGREGATORS)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.neighbourhood, root = AGGREGATORS[aggregator]
        self.lin_l = nn.Linear(in_channels, out_channels, bias=bias)
        self.lin_r = nn.Linear(in_channels, out_channels, bias=False) if root else None
        self.weights = ("lin_r.weight", "lin_l.weight") if root else ("lin_l.weight",)

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
            edge_weight: makes the mean a weighted one; with an edge list only, a `Graph` holds its own.
        """
        a = Graph.of(graph, x.shape[0], edge_weight).derived(self.neighbourhood)
        if self.lin_r is None:
            return graph_linear(a, x, self.lin_l.weight, self.lin_l.bias)
        own = first(x, a.shape[0])
        return linear(own, self.lin_r.weight, self.lin_l.bias) + graph_linear(a, x, self.lin_l.weight)


def sage(
    in_channels: int,
    out_channels: int,
    *,
    layers: int = 3,
    width: int = 256,
    dropout: float = 0.5,
    input_dropout: float = 0.0,
    norm: str = "none",
    aggregator: str = "mean",
) -> Network:
    """A GraphSAGE network; the other options are those of `Network`.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        layers: number of convolutions, >= 1.
        width: hidden units of a layer, >= 1.
        dropout: in [0, 1).
        input_dropout: in [0, 1).
        norm: `none`, `batch` or `layer`.
        aggregator: `mean` or `gcn`.

    Raises:
        UserError: an option outside its range.
    """
    sizes = dimensions(in_channels, out_channels, layers=layers, width=width)
    convs = [SAGEConv(i, o, aggregator=aggregator) for i, o in sizes]
    return Network(convs, dropout=dropout, input_dropout=input_dropout, norm=norm)
