"""The two linear maps that every network here is made of, on dense and on sparse operands."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gnnkd.graph.kernels import neighbour_sum
from gnnkd.graph.structure import CSR


def linear(
    x: Float[Tensor, "N I"] | CSR, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "N O"]:
    """x weight^T + bias."""
    if isinstance(x, Tensor):
        return F.linear(x, weight, bias)
    out = neighbour_sum(x, weight.t())
    return out if bias is None else out + bias


def graph_linear(
    a: CSR, x: Float[Tensor, "K I"] | CSR, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "N O"]:
    """a x weight^T + bias, with the neighbour sum on the narrower side of the weight."""
    outputs, inputs = weight.shape
    if isinstance(x, Tensor) and inputs < outputs:
        return F.linear(neighbour_sum(a, x), weight, bias)
    out = neighbour_sum(a, linear(x, weight))
    return out if bias is None else out + bias
