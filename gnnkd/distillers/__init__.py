"""Distillation methods: one module each, found by its name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

from gnnkd.distillers import nodes
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

_NOT_METHODS = {"base", "logits", "losses", "maps", "nodes", "ranges", "schedule", "space"}
"""Modules of this package that methods share, and the package of methods on graphs alone."""
_NOT_OF_NODES = {"draws", "features", "neighbours", "pairs", "rows", "walks"}
"""Modules of `nodes` that its methods share."""


@cache
def methods() -> dict[str, type[Distiller]]:
    """Every method but those of graphs alone, by key: the name of its module, which defines exactly one `Distiller`."""
    return _found(__name__, __path__, _NOT_METHODS)


@cache
def graph_methods() -> dict[str, type[Distiller]]:
    """The methods that teach networks of nodes and rows, by key; some share their name with one on images."""
    general = {name: kind for name, kind in methods().items() if kind.graphs}
    own = _found(nodes.__name__, nodes.__path__, _NOT_OF_NODES)
    return dict(sorted({**general, **own}.items()))


def image_methods() -> dict[str, type[Distiller]]:
    """The methods that teach networks of images."""
    return {name: kind for name, kind in methods().items() if kind.images}


def _found(package: str, path: Iterable[str], shared: set[str]) -> dict[str, type[Distiller]]:
    names = [module.name for module in pkgutil.iter_modules(path) if module.name not in shared]
    return {name: _only_distiller(f"{package}.{name}") for name in names}


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


def _there(*, on_graphs: bool) -> dict[str, type[Distiller]]:
    return graph_methods() if on_graphs else methods()


def options(name: str, *, on_graphs: bool = False) -> dict[str, inspect.Parameter]:
    """A method's options: the keyword-only arguments of its constructor; of two of one name that on graphs, if so."""
    there = _there(on_graphs=on_graphs)
    if name not in there:
        raise unknown("method", name, there)
    signature = inspect.signature(there[name], eval_str=True)
    return {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


def default_base(student_needs_graph: bool) -> str:
    """The base of a wrapping method when none is named: GLNN for an MLP, KD for all others."""
    return "kd" if student_needs_graph else "glnn"


def build(
    name: str,
    *context: Any,
    base: str = "auto",
    student_needs_graph: bool = False,
    on_graphs: bool = False,
    **given: Any,
) -> Distiller:
    """Make a method from its key and options.

    A wrapping method gets its base first, made from the options that the base knows; `context` follows. `on_graphs`
    chooses among the methods of graphs, as `graph_methods`, instead of `methods`.

    Raises:
        UserError: an unknown method or option, a value out of range, or a base that wraps.
    """
    there, own = _there(on_graphs=on_graphs), options(name, on_graphs=on_graphs)
    if not there[name].wraps:
        return _made(there[name], (), _known(name, given, own))
    on_rows = there[name].graphs and not student_needs_graph
    base = default_base(not on_rows) if base == "auto" else base
    inner = options(base, on_graphs=on_graphs)
    if there[base].wraps:
        raise UserError(f"method.base '{base}' wraps a method itself; choose one that does not")
    _known(name, given, own | inner)
    wrapped = _made(there[base], (), {k: v for k, v in given.items() if k in inner and k not in own})
    return _made(there[name], (wrapped, *context), {k: v for k, v in given.items() if k in own})


def _known(name: str, given: dict[str, Any], allowed: dict[str, inspect.Parameter]) -> dict[str, Any]:
    for key in given:
        if key not in allowed:
            raise unknown(f"option of method {name}", key, allowed)
    return given


def _made(kind: type[Distiller], context: tuple[Any, ...], given: dict[str, Any]) -> Distiller:
    try:
        return kind(*context, **given)
    except ValueError as mistake:
        raise UserError(str(mistake)) from mistake
