"""MoNet, the mixture model network (Monti et al., CVPR 2017), with the degrees of an edge's ends as its coordinates.

x'_i = W_r x_i + mean over edges j -> i of sum_k w_k(u_ij) W_k x_j + b
w_k(u) = exp(-1/2 sum_d (u_d - mu_kd)^2 / sigma_kd^2),  u_ij = tanh(P (deg_i^-1/2, deg_j^-1/2) + q)

mu, sigma, P and q are learned.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.graph.attention import weighted_sum
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.linear import linear
from gnnkd.nn.network import Network, dimensions

_TINY = 1e-15
"""Added to squared widths, as in PyG: a width of 0 is a narrow kernel, not a division by zero."""


def pseudo_coordinates(a: CSR, dtype: torch.dtype | None = None) -> Float[Tensor, "E 2"]:
    """(deg_i^-1/2, deg_j^-1/2) of each entry (i, j) of `a` [N, N].

    A degree is the number of entries in a row, so of edges that arrive; a node without any has the coordinate 0.
    """
    degree = a.rowptr.diff().to(dtype or torch.get_default_dtype())
    scale = degree.pow(-0.5).masked_fill(degree == 0, 0.0)
    return torch.stack([scale[a.row], scale[a.col]], 1)


def gaussians(u: Float[Tensor, "E 2"], mu: Float[Tensor, "K 2"], sigma: Float[Tensor, "K 2"]) -> Float[Tensor, "E K"]:
    """exp(-1/2 sum_d (u_d - mu_kd)^2 / sigma_kd^2), in (0, 1], for each edge and kernel."""
    return ((u[:, None] - mu).square() / (sigma.square() + _TINY)).sum(2).mul(-0.5).exp()


@final
class GMMConv(nn.Module):
    """One mixture layer, equal to PyG's `GMMConv(..., dim=2, kernel_size=kernels)` on the coordinates above.

    `lin.weight` [kernels * out_channels, in_channels], the kernels side by side, is PyG's `g` transposed; the other
    parameters are as there. All edges count alike: their weights are not looked at.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        kernels: number of Gaussians, >= 1.

    Raises:
        UserError: kernels outside its range.
    """

    weights: ClassVar[tuple[str, ...]] = ("root.weight", "lin.weight")
    averaged: ClassVar[int] = 1

    def __init__(self, in_channels: int, out_channels: int, *, kernels: int = 3) -> None:
        super().__init__()
        if kernels < 1:
            raise UserError(f"kernels is {kernels}; it must be at least 1")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernels = kernels
        self.root = nn.Linear(in_channels, out_channels, bias=False)
        self.lin = nn.Linear(in_channels, kernels * out_channels, bias=False)
        self.coordinates = nn.Linear(2, 2)
        # Centres all over the square that tanh maps to, and widths of half of it: no kernel starts blind to all edges,
        # and none so narrow that its gradient, which goes with 1 / sigma^3, bursts.
        self.mu = nn.Parameter(torch.empty(kernels, 2).uniform_(-1, 1))
        self.sigma = nn.Parameter(torch.ones(kernels, 2))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.xavier_uniform_(self.root.weight)
        nn.init.xavier_uniform_(self.lin.weight)

    def forward(self, x: Float[Tensor, "N I"] | CSR, graph: Graph | Int[Tensor, "2 E"] | None) -> Float[Tensor, "N O"]:
        """Convolve `x`.

        Args:
            x: dense or sparse.
            graph: a `Graph` or an edge list.

        Raises:
            ValueError: no graph.
        """
        a = Graph.of(graph, x.shape[0]).adjacency
        mapped = linear(x, self.lin.weight).view(-1, self.kernels, self.out_channels)
        return linear(x, self.root.weight, self.bias) + weighted_sum(a, self._shares(a), mapped).sum(1)

    def _shares(self, a: CSR) -> Float[Tensor, "E K"]:
        """Kernel values of each edge by the number of edges of its target, so that sums are means."""
        u = self.coordinates(pseudo_coordinates(a, self.mu.dtype)).tanh()
        count = a.rowptr.diff()[a.row].to(u.dtype)
        return gaussians(u, self.mu, self.sigma) / count[:, None]


def monet(
    in_channels: int,
    out_channels: int,
    *,
    layers: int = 2,
    width: int = 64,
    dropout: float = 0.5,
    input_dropout: float = 0.0,
    norm: str = "none",
    kernels: int = 3,
) -> Network:
    """A mixture model network; the other options are those of `Network`.

    Args:
        in_channels: features of a node, >= 1.
        out_channels: classes, >= 1.
        layers: number of mixture layers, >= 1.
        width: hidden units of a layer, >= 1.
        dropout: in [0, 1).
        input_dropout: in [0, 1).
        norm: `none`, `batch` or `layer`.
        kernels: Gaussians of a layer, >= 1.

    Raises:
        UserError: an option outside its range.
    """
    sizes = dimensions(in_channels, out_channels, layers=layers, width=width)
    convs = [GMMConv(i, o, kernels=kernels) for i, o in sizes]
    return Network(convs, dropout=dropout, input_dropout=input_dropout, norm=norm)
