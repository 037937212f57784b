"""The multilayer perceptron: it looks at one row at a time, so it needs no graph when it ships."""

from __future__ import annotations

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn

from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.linear import linear
from gnnkd.nn.network import Network, dimensions


@final
class Linear(nn.Linear):
    """x W^T + b for dense and sparse `x`; initialised as `torch.nn.Linear`."""

    weights: ClassVar[tuple[str, ...]] = ("weight",)
    averaged: ClassVar[int] = 1

    @property
    def out_channels(self) -> int:
        """Width of the output."""
        return self.out_features

    def forward(self, x: Float[Tensor, "N I"] | CSR, graph: Graph | None = None) -> Float[Tensor, "N O"]:
        """Apply the map; the graph is not looked at."""
        return linear(x, self.weight, self.bias)


def mlp(
    in_channels: int,
    out_channels: int,
    *,
    layers: int = 3,
    width: int = 256,
    dropout: float = 0.5,
    input_dropout: float = 0.0,
    norm: str = "none",
) -> Network:
    """A multilayer perceptron; the options are those of `Network`.

    Args:
        in_channels: features of a row, >= 1.
        out_channels: classes, >= 1.
        layers: number of weight matrices, >= 1.
        width: hidden units of a layer, >= 1.
        dropout: in [0, 1).
        input_dropout: in [0, 1).
        norm: `none`, `batch` or `layer`.

    Raises:
        UserError: an option outside its range.
    """
    sizes = dimensions(in_channels, out_channels, layers=layers, width=width)
    return Network([Linear(i, o) for i, o in sizes], dropout=dropout, input_dropout=input_dropout, norm=norm)
