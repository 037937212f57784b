"""Objectives without labels: one module each, found by its name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from gnnkd.errors import UserError
from gnnkd.selfsup.objectives.base import Objective

__all__ = ["Objective", "build", "objectives"]


@cache
def objectives() -> dict[str, type[Objective]]:
    """Every objective by key: the name of its module, which defines exactly one."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    return {name: _only_objective(f"{__name__}.{name}") for name in names}


def _only_objective(name: str) -> type[Objective]:
    members = inspect.getmembers(importlib.import_module(name), inspect.isclass)
    (found,) = [kind for _, kind in members if kind.__module__ == name and issubclass(kind, Objective)]
    return found


def build(name: str, **given: Any) -> Objective:
    """Make an objective from its key and options.

    Raises:
        UserError: a value out of range.
    """
    try:
        return objectives()[name](**given)
    except ValueError as mistake:
        raise UserError(str(mistake)) from mistake
