"""GCNII (Chen, Wei, Huang, Ding, Li, ICML 2020): deep graph convolutions that keep their start and their identity.

H_0 = relu(X W_in^T + b);  H_l = relu((1 - beta_l) M_l + beta_l M_l W_l^T) with M_l = (1 - alpha) A H_{l-1} + alpha H_0,
beta_l = log(theta / l + 1), l = 1, 2, ..., and A = D^-1/2 (A + I) D^-1/2;  logits = H_L W_out^T + b.
"""

from __future__ import annotations

import math
from typing import cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import UserError, unknown
from gnnkd.graph import normalise
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.dropout import check, drop, dropout
from gnnkd.nn.mlp import Linear
from gnnkd.nn.network import NORMS, dimensions
from gnnkd.nn.propagation import check_restart, restart
from gnnkd.types import Output


@final
class GCN2Conv(nn.Module):
    """One convolution, equal to PyG's `GCN2Conv` with shared weights; `lin.weight` is its `weight1` transposed.

    Args:
        channels: width of input and output.
        alpha: share of the initial residual, in [0, 1].
        theta: strength of the weights (lambda in the paper), >= 0.
        layer: place l of the convolution, from 1; later ones are closer to the identity.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, channels: int, *, alpha: float = 0.1, theta: float = 0.5, layer: int = 1) -> None:
        super().__init__()
        check_restart(alpha)
        if not theta >= 0:
            raise UserError(f"theta is {theta}; it must be at least 0")
        self.alpha = alpha
        self.beta = math.log(theta / layer + 1)
        self.lin = nn.Linear(channels, channels, bias=False)
        nn.init.xavier_uniform_(self.lin.weight)

    def forward(
        self,
        x: Float[Tensor, "N F"],
        x_0: Float[Tensor, "N F"],
        graph: Graph | Int[Tensor, "2 E"],
        edge_weight: Float[Tensor, " E"] | None = None,
    ) -> Float[Tensor, "N F"]:
        """Convolve `x`.

        Args:
            x: output of the convolution before.
            x_0: the initial representation.
            graph: a `Graph`, normalised once, or an edge list, normalised in this call.
            edge_weight: with an edge list only; a `Graph` holds its own.
        """
        return self.transformed(self.mixed(x, x_0, Graph.of(graph, x.shape[0], edge_weight).derived(normalise.gcn)))

    def mixed(self, x: Float[Tensor, "N F"], x_0: Float[Tensor, "N F"], a: CSR) -> Float[Tensor, "N F"]:
        """The operand M of the weight matrix, for a normalised adjacency [N, N]."""
        return restart(a, x, x_0, self.alpha)

    def transformed(self, m: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
        """(1 - beta) m + beta m W^T."""
        return torch.addmm(m, m, self.lin.weight.t(), beta=1 - self.beta, alpha=self.beta)


@final
class GCNII(nn.Module):
    """A linear map, convolutions of one width, a linear map: dropout before each, norm and ReLU after all but the last.

    Args:
        first: from the features to the width.
        convs: the convolutions.
        last: from the width to the classes.
        dropout: share of hidden units dropped, in [0, 1).
        input_dropout: share of input features dropped, in [0, 1).
        norm: `none`, `batch` or `layer`.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        first: Linear,
        convs: list[GCN2Conv],
        last: Linear,
        *,
        dropout: float,
        input_dropout: float,
        norm: str,
    ) -> None:
        super().__init__()
        check(dropout)
        check(input_dropout, "input_dropout")
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        self.first = first
        self.convs = nn.ModuleList(convs)
        self.last = last
        self.norms = nn.ModuleList(NORMS[norm](first.out_channels) for _ in range(len(convs) + 1))
        self.dropout = dropout
        self.input_dropout = input_dropout

    def forward(self, x: Float[Tensor, "N D"] | CSR, graph: Graph | Int[Tensor, "2 E"] | None = None) -> Output:
        """Logits, and by name of each weight matrix its operand and the output that this was made from.

        The operand of a convolution's matrix is the mixed tensor M; its channels are those of the layer before.

        Args:
            x: features, dense or sparse.
            graph: a `Graph`, normalised once, or an edge list, normalised in this call.

        Raises:
            ValueError: no graph.
        """
        a = Graph.of(graph, x.shape[0]).derived(normalise.gcn)
        x = drop(x, self.input_dropout, self.training)
        hidden: dict[str, Tensor | CSR] = {"first.weight": x}
        raw: dict[str, Tensor] = {}
        out = self.first(x)
        h = h_0 = F.relu(self.norms[0](out))
        for i, module in enumerate(self.convs):
            name, conv = f"convs.{i}.lin.weight", cast("GCN2Conv", module)
            raw[name] = out
            hidden[name] = m = conv.mixed(dropout(h, self.dropout, self.training), h_0, a)
            out = conv.transformed(m)
            h = F.relu(self.norms[i + 1](out))
        raw["last.weight"] = out
        hidden["last.weight"] = h = dropout(h, self.dropout, self.training)
        return Output(self.last(h), hidden, raw)


def gcnii(
    in_channels: int,
    out_channels: int,
    *,
    layers: int = 8,
    width: int = 64,
    dropout: float = 0.5,
    input_dropout: float = 0.0,
    norm: str = "none",
    alpha: float = 0.1,
    theta: float = 0.5,
) -> GCNII:
    """A deep graph convolutional network with initial residuals and identity maps.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        layers: number of convolutions, >= 1; a linear map stands before and one behind them.
        width: hidden units of a layer, >= 1.
        dropout: in [0, 1).
        input_dropout: in [0, 1).
        norm: `none`, `batch` or `layer`.
        alpha: share of the initial representation in every layer, in [0, 1].
        theta: how far the convolutions are from identity maps (lambda in the paper), >= 0.

    Raises:
        UserError: an option outside its range.
    """
    dimensions(in_channels, out_channels, layers=layers, width=width)  # for its checks
    convs = [GCN2Conv(width, alpha=alpha, theta=theta, layer=i + 1) for i in range(layers)]
    first, last = Linear(in_channels, width), Linear(width, out_channels)
    return GCNII(first, convs, last, dropout=dropout, input_dropout=input_dropout, norm=norm)
