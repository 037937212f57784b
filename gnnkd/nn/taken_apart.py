"""A network of layers that can be asked about some nodes at a time, taken apart."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from gnnkd.errors import UserError
from gnnkd.graph.structure import CSR
from gnnkd.nn.messages import Copied, Messages, messages
from gnnkd.nn.network import Network


def apart(network: nn.Module, x: Tensor | CSR) -> list[Messages]:
    """The layers of a network, taken apart, for features as `x` [N, D] are.

    Raises:
        UserError: it is none of layers that can be.
    """
    first, *others = known(network).layers
    found = messages(first, dense=isinstance(x, Tensor))
    if found.matrix is not None and not found.widths and x.dtype != next(network.parameters()).dtype:
        # Sums read tables of one type: the features are sent as a copy of theirs.
        found = Copied(found, x.shape[1])
    return [found, *(messages(layer, dense=True) for layer in others)]


def known(network: nn.Module) -> Network:
    """The network as one of the house.

    Raises:
        UserError: it is none.
    """
    if not isinstance(network, Network):
        raise UserError(f"{type(network).__name__} cannot be applied layer by layer; choose gcn, sage, gat or mlp")
    return network


def widths_of(network: nn.Module) -> list[int]:
    """Columns of each layer's output.

    Raises:
        UserError: as `known`.
    """
    return [int(layer.out_channels) for layer in known(network).layers]  # type: ignore[arg-type]


def kept(layers: Sequence[Messages], widths: Sequence[int]) -> list[int]:
    """Columns of the tables that are there at a time, while each layer runs."""
    before, after = [0, *widths[:-1]], [*widths[:-1], 0]
    return [b + sum(m.widths) + a for b, m, a in zip(before, layers, after, strict=True)]
