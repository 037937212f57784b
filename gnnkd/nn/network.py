"""A stack of layers that also tells what each of its weight matrices multiplied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol, cast, final, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnnkd.errors import UserError, unknown
from gnnkd.graph.layered import Layered
from gnnkd.graph.structure import CSR, Graph
from gnnkd.nn.dropout import check, drop
from gnnkd.types import Output

NORMS: dict[str, Callable[[int], nn.Module]] = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
"""What may stand between a hidden layer and its activation."""


@runtime_checkable
class Layer(Protocol):
    """A linear map of rows, along a graph or not; also an `nn.Module`."""

    @property
    def out_channels(self) -> int:
        """Width of the output."""

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weight matrices that multiply the layer's input, in forward order."""

    @property
    def averaged(self) -> int:
        """How many equal blocks of outputs (attention heads) the layer averages; 1 for none."""


@final
class Network(nn.Module):
    """Per layer: dropout, the layer, then (but for the last) norm and activation.

    Args:
        layers: at least one.
        dropout: share of hidden units dropped, in [0, 1).
        input_dropout: share of input features dropped, in [0, 1).
        norm: `none`, `batch` or `layer`.
        activation: of hidden layers, elementwise.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        dropout: float,
        input_dropout: float,
        norm: str,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        super().__init__()
        check(dropout)
        check(input_dropout, "input_dropout")
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        self.layers = nn.ModuleList(cast("Sequence[nn.Module]", layers))
        self.norms = nn.ModuleList(NORMS[norm](layer.out_channels) for layer in layers[:-1])
        self.rates = (input_dropout, *[dropout] * (len(layers) - 1))
        self.activation = activation
        self.weights = [[f"layers.{i}.{name}" for name in layer.weights] for i, layer in enumerate(layers)]
        self.averaged = {
            name: layer.averaged
            for layer, names in zip(layers, self.weights, strict=True)
            for name in names
            if layer.averaged > 1
        }

    def forward(
        self, x: Float[Tensor, "N D"] | CSR, graph: Graph | Layered | Int[Tensor, "2 E"] | None = None
    ) -> Output:
        """Logits, and by name of each weight matrix its operand and the layer output that this was made from.

        Args:
            x: features, dense or sparse.
            graph: needed by graph layers only; an edge list is normalised anew on every call, a `Graph` once. Of a
                sample that is given layer by layer logits are of the seeds alone, and operands of what a layer reads.
        """
        if isinstance(graph, Tensor):
            graph = Graph.from_edge_index(graph, x.shape[0])
        hidden: dict[str, Tensor | CSR] = {}
        raw: dict[str, Tensor] = {}
        out: Tensor | None = None
        graphs = graph.graphs if isinstance(graph, Layered) else [graph] * len(self.layers)
        parts = zip(self.layers, self.weights, self.rates, [None, *self.norms], graphs, strict=True)
        for layer, names, rate, norm, seen in parts:
            if out is not None and norm is not None:
                raw.update(dict.fromkeys(names, out))
                x = self.activation(norm(out))
            x = drop(x, rate, self.training)
            hidden.update(dict.fromkeys(names, x))
            out = cast("Tensor", layer(x, seen))
        return Output(cast("Tensor", out), hidden, raw, self.averaged)


def dimensions(in_channels: int, out_channels: int, *, layers: int, width: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of each of `layers` >= 1 layers whose hidden ones are `width` >= 1 wide."""
    given = {"in_channels": in_channels, "out_channels": out_channels, "layers": layers, "width": width}
    for name, size in given.items():
        if size < 1:
            raise UserError(f"{name} is {size}; it must be at least 1")
    sizes = [in_channels, *[width] * (layers - 1), out_channels]
    return list(pairwise(sizes))
