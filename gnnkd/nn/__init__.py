"""Networks by name; each is made by a function with keyword-only options and returns an `Output`."""

from __future__ import annotations

from collections.abc import Callable

from gnnkd.errors import unknown
from gnnkd.nn.gcn import gcn
from gnnkd.nn.mlp import mlp
from gnnkd.nn.network import Network
from gnnkd.nn.sage import sage

__all__ = ["MODELS", "Network", "gcn", "mlp", "needs_graph", "sage"]

MODELS: dict[str, Callable[..., Network]] = {"gcn": gcn, "mlp": mlp, "sage": sage}
"""Constructor of each network."""

_ON_ROWS = frozenset({"mlp"})


def needs_graph(name: str) -> bool:
    """Whether the network called `name` passes messages along edges.

    Raises:
        UserError: no such network.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return name not in _ON_ROWS
