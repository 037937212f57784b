"""Networks by name; each is made by a function with keyword-only options and returns an `Output`."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn import Module

from gnnkd.errors import unknown
from gnnkd.nn.appnp import appnp
from gnnkd.nn.gat import gat
from gnnkd.nn.gcn import gcn
from gnnkd.nn.gcnii import gcnii
from gnnkd.nn.mlp import mlp
from gnnkd.nn.monet import monet
from gnnkd.nn.network import Network
from gnnkd.nn.sage import sage
from gnnkd.nn.sgc import sgc
from gnnkd.nn.tag import tag

__all__ = [
    "MODELS",
    "Network",
    "appnp",
    "gat",
    "gcn",
    "gcnii",
    "mlp",
    "monet",
    "needs_graph",
    "reads_weights",
    "sage",
    "sgc",
    "tag",
]

MODELS: dict[str, Callable[..., Module]] = {
    "appnp": appnp,
    "gat": gat,
    "gcn": gcn,
    "gcnii": gcnii,
    "mlp": mlp,
    "monet": monet,
    "sage": sage,
    "sgc": sgc,
    "tag": tag,
}
"""Constructor of each network: a module whose `forward(x, graph)` returns an `Output`."""

_ON_ROWS = frozenset({"mlp"})
_ON_PLACES = frozenset({"gat", "monet"})
"""Networks that learn how much an edge counts, and take no weights."""


def needs_graph(name: str) -> bool:
    """Whether the network called `name` passes messages along edges.

    Raises:
        UserError: no such network.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return name not in _ON_ROWS


def reads_weights(name: str) -> bool:
    """Whether the network called `name` passes messages along edges as strongly as their weights say.

    Raises:
        UserError: no such network.
    """
    return needs_graph(name) and name not in _ON_PLACES
