"""gnnkd: graph-centric knowledge distillation.

`gnnkd.distill` trains a teacher and a student on a graph; `gnnkd.load` brings a saved network back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["__version__", "distill", "load"]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from gnnkd.api import distill, load


def __getattr__(name: str) -> Any:
    """Import the library on first use, so that `--help` and mistakes answer at once."""
    if name in ("distill", "load"):
        from gnnkd import api

        return getattr(api, name)
    raise AttributeError(f"module 'gnnkd' has no attribute '{name}'")
