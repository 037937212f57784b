"""Graph attention of Velickovic et al. (ICLR 2018): a node listens to its neighbours, and to itself, by learnt weights.

    x'_i = sum_j alpha_ij W x_j + b,   alpha_i = softmax over j of LeakyReLU(a_src . W x_j + a_dst . W x_i)

for each of several heads, which stand side by side or are averaged.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.graph import normalise
from gnnkd.graph.attention import edge_softmax, expand, gather, weighted_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.dropout import check, dropout
from gnnkd.nn.linear import linear
from gnnkd.nn.network import Network, dimensions


@final
class GATConv(nn.Module):
    """One graph attention layer, equal to PyG's `GATConv` in outputs, gradients and state dict.

    Every node attends to itself once; edge weights are not looked at.

    Args:
        in_channels: width of the input.
        out_channels: width of the output; with `concat` a multiple of `heads`.
        heads: number of heads, >= 1.
        concat: heads side by side, each `out_channels / heads` wide; else averaged, each `out_channels` wide.
        attention_dropout: share of attention weights dropped in training, in [0, 1).
        negative_slope: of the leaky ReLU.
        bias: whether to add b.

    Raises:
        UserError: no head, a width that the heads do not divide, or a share out of range.
    """

    weights: ClassVar[tuple[str, ...]] = ("lin.weight",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        heads: int = 1,
        concat: bool = True,
        attention_dropout: float = 0.0,
        negative_slope: float = 0.2,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check(attention_dropout, "attention_dropout")
        if heads < 1:
            raise UserError(f"heads is {heads}; it must be at least 1")
        if concat and out_channels % heads:
            raise UserError(f"width is {out_channels}; {heads} heads side by side need a multiple of {heads}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads, self.concat = heads, concat
        self.averaged = 1 if concat else heads
        self.attention_dropout, self.negative_slope = attention_dropout, negative_slope
        width = out_channels // heads if concat else out_channels
        self.lin = nn.Linear(in_channels, heads * width, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, width))
        self.att_dst = nn.Parameter(torch.empty(1, heads, width))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.xavier_uniform_(self.lin.weight)
        bound = (6 / (heads + width)) ** 0.5
        for vector in (self.att_src, self.att_dst):
            nn.init.uniform_(vector, -bound, bound)

    def forward(self, x: Float[Tensor, "K I"] | CSR, graph: Graph | Int[Tensor, "2 E"] | None) -> Float[Tensor, "N O"]:
        """Attend.

        Args:
            x: dense or sparse.
            graph: a `Graph`, given its self loops once, or an edge list, prepared in this call.
        """
        a = Graph.of(graph, x.shape[0]).derived(normalise.looped)
        z = linear(x, self.lin.weight).view(-1, *self.att_src.shape[1:])
        source, target = (z * self.att_src).sum(-1), (z[: a.shape[0]] * self.att_dst).sum(-1)
        scores = F.leaky_relu(gather(a, source) + expand(a, target), self.negative_slope)
        heard = weighted_sum(a, dropout(edge_softmax(a, scores), self.attention_dropout, self.training), z)
        out = heard.flatten(1) if self.concat else heard.mean(1)
        return out if self.bias is None else out + self.bias


def gat(
    in_channels: int,
    out_channels: int,
    *,
    layers: int = 2,
    width: int = 64,
    heads: int = 8,
    dropout: float = 0.6,
    input_dropout: float = 0.0,
    attention_dropout: float = 0.3,
    norm: str = "none",
) -> Network:
    """A graph attention network: ELU between layers, heads side by side in hidden ones and averaged in the last.

    The other options are those of `Network`.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        layers: number of attention layers, >= 1.
        width: hidden units of a layer, all heads together: a multiple of `heads`.
        heads: of every layer, >= 1.
        dropout: in [0, 1).
        input_dropout: in [0, 1).
        attention_dropout: share of attention weights dropped, in [0, 1).
        norm: `none`, `batch` or `layer`.

    Raises:
        UserError: an option outside its range.
    """
    sizes = dimensions(in_channels, out_channels, layers=layers, width=width)
    convs = [
        GATConv(i, o, heads=heads, concat=depth < layers, attention_dropout=attention_dropout)
        for depth, (i, o) in enumerate(sizes, start=1)
    ]
    return Network(convs, dropout=dropout, input_dropout=input_dropout, norm=norm, activation=F.elu)
