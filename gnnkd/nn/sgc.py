"""Simple graph convolution (Wu et al., ICML 2019): logits = A^k X W^T + b with A = D^-1/2 (A + I) D^-1/2."""

from __future__ import annotations

from typing import final

from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.graph import normalise
from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.dropout import check, drop
from gnnkd.nn.linear import linear
from gnnkd.nn.network import dimensions
from gnnkd.nn.propagation import check_steps
from gnnkd.types import Output


@final
class SGC(nn.Module):
    """One linear map behind k steps along the edges; equal to PyG's `SGConv` in outputs, gradients and state dict.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        k: number of steps, >= 0.
        input_dropout: share of input features dropped, in [0, 1).

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, in_channels: int, out_channels: int, *, k: int = 2, input_dropout: float = 0.0) -> None:
        super().__init__()
        ((inputs, outputs),) = dimensions(in_channels, out_channels, layers=1, width=1)
        check_steps(k)
        check(input_dropout, "input_dropout")
        self.k = k
        self.input_dropout = input_dropout
        self.lin = nn.Linear(inputs, outputs)

    def forward(self, x: Float[Tensor, "N D"] | CSR, graph: Graph | Int[Tensor, "2 E"] | None = None) -> Output:
        """Logits, and the features as the operand of the one weight matrix.

        Args:
            x: features, dense or sparse.
            graph: a `Graph`, normalised once, or an edge list, normalised in this call.

        Raises:
            ValueError: no graph.
        """
        a = Graph.of(graph, x.shape[0]).derived(normalise.gcn)
        x = drop(x, self.input_dropout, self.training)
        weight, bias = self.lin.weight, self.lin.bias
        outputs, inputs = weight.shape
        if isinstance(x, Tensor) and inputs < outputs:  # the steps cost least on the narrower side
            logits = linear(_steps(a, x, self.k), weight, bias)
        else:
            logits = _steps(a, linear(x, weight), self.k) + bias
        return Output(logits, {"lin.weight": x})


def _steps(a: CSR, x: Float[Tensor, "N F"], k: int) -> Float[Tensor, "N F"]:
    for _ in range(k):
        x = neighbour_sum(a, x)
    return x


def sgc(in_channels: int, out_channels: int, *, k: int = 2, input_dropout: float = 0.0) -> SGC:
    """A simple graph convolution; it has one weight matrix, so neither width nor hidden dropout.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        k: number of steps along the edges, >= 0.
        input_dropout: in [0, 1).

    Raises:
        UserError: an option outside its range.
    """
    return SGC(in_channels, out_channels, k=k, input_dropout=input_dropout)
