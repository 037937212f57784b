"""Distillation methods: one module each, found by its name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from gnnkd.distillers.base import Distiller, Lesson, Watcher
from gnnkd.errors import UserError, unknown

__all__ = [
    "Distiller",
    "Lesson",
    "Watcher",
    "build",
    "default_base",
    "graph_methods",
    "image_methods",
    "methods",
    "options",
]

_NOT_METHODS = {"base", "logits", "losses", "maps", "ranges", "schedule"}
"""Modules of this package that methods share."""


@cache
def methods() -> dict[str, type[Distiller]]:
    """Every method by key: the name of its module, which defines exactly one `Distiller`."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name not in _NOT_METHODS:
            found[module.name] = _only_distiller(f"{__name__}.{module.name}")
    return found


def graph_methods() -> dict[str, type[Distiller]]:
    """The methods that teach networks of nodes and rows."""
    return {name: kind for name, kind in methods().items() if kind.graphs}


def image_methods() -> dict[str, type[Distiller]]:
    """The methods that teach networks of images."""
    return {name: kind for name, kind in methods().items() if kind.images}


def _only_distiller(name: str) -> type[Distiller]:
    module = importlib.import_module(name)
    classes = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == name and issubclass(member, Distiller)
    ]
    if len(classes) != 1:
        raise TypeError(f"{name} defines {len(classes)} distillers; a method's module defines exactly one")
    return classes[0]


def options(name: str) -> dict[str, inspect.Parameter]:
    """A method's options: the keyword-only arguments of its constructor."""
    if name not in methods():
        raise unknown("method", name, methods())
    signature = inspect.signature(methods()[name], eval_str=True)
    return {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


def default_base(student_needs_graph: bool) -> str:
    """The base of a wrapping method when none is named: GLNN for an MLP, KD for all others."""
    return "kd" if student_needs_graph else "glnn"


def build(name: str, *context: Any, base: str = "auto", student_needs_graph: bool = False, **given: Any) -> Distiller:
    """Make a method from its key and options.

    A wrapping method gets its base first, made from the options that the base knows; `context` follows.

    Raises:
        UserError: an unknown method or option, a value out of range, or a base that wraps.
    """
    own = options(name)
    if not methods()[name].wraps:
        return _made(name, (), _known(name, given, own))
    on_rows = methods()[name].graphs and not student_needs_graph
    base = default_base(not on_rows) if base == "auto" else base
    inner = options(base)
    if methods()[base].wraps:
        raise UserError(f"method.base '{base}' wraps a method itself; choose one that does not")
    _known(name, given, own | inner)
    wrapped = _made(base, (), {k: v for k, v in given.items() if k in inner and k not in own})
    return _made(name, (wrapped, *context), {k: v for k, v in given.items() if k in own})


def _known(name: str, given: dict[str, Any], allowed: dict[str, inspect.Parameter]) -> dict[str, Any]:
    for key in given:
        if key not in allowed:
            raise unknown(f"option of method {name}", key, allowed)
    return given


def _made(name: str, context: tuple[Any, ...], given: dict[str, Any]) -> Distiller:
    try:
        return methods()[name](*context, **given)
    except ValueError as mistake:
        raise UserError(str(mistake)) from mistake
