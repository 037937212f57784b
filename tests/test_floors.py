"""Imports go down only: a module imports from its own floor or from lower ones, also inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "errors": 0.0,
    "types": 0.0,
    "graph": 1.0,
    "metrics": 1.0,
    "optimizers": 1.0,
    "processes": 1.0,
    "tensors": 1.0,
    "nn": 2.0,
    "data": 2.5,
    "distillers": 3.0,
    "train": 4.0,
    "allocator": 5.0,
    "api": 5.0,
    "batching": 5.0,
    "curves": 5.0,
    "export": 5.0,
    "graph_config": 5.0,
    "halves": 5.0,
    "held": 5.0,
    "ktg": 5.0,
    "learning": 5.0,
    "images": 5.0,
    "options": 5.0,
    "claims": 5.0,
    "compare": 5.0,
    "compare.__main__": 6.0,
    "compare.asking": 6.0,
    "compare.command": 6.0,
    "compare.course": 6.0,
    "latency": 5.0,
    "latency.__main__": 6.0,
    "latency.command": 6.0,
    "logits": 5.0,
    "models": 5.0,
    "paired": 5.0,
    "places": 5.0,
    "predictor": 5.0,
    "presets": 5.0,
    "provenance": 5.0,
    "report": 5.0,
    "results": 5.0,
    "run": 5.0,
    "scores": 5.0,
    "selfsup": 5.0,
    "stage_room": 5.0,
    "stages": 5.0,
    "tensorboard": 5.0,
    "arguments": 6.0,
    "config": 6.0,
    "evaluate": 6.0,
    "figures": 6.0,
    "flags": 6.0,
    "main": 6.0,
    "messages": 6.0,
    "request": 6.0,
    "together": 6.0,
    "search": 6.0,
    "selfsup.__main__": 6.0,
    "selfsup.command": 6.0,
    "yaml_file": 6.0,
}
"""By the first name below `gnnkd`, or by the first two."""
FRONT = "__init__"
"""The package itself offers the api, so it may import it; nothing in the house imports the package's front."""


def imported(source: str, module: str, *, package: bool = False) -> Iterator[tuple[str, int]]:
    """Modules of the house that `source`, the text of `module`, imports: dotted name and line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "gnnkd")
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, package)
            if base.split(".")[0] == "gnnkd":
                yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def _absolute(node: ast.ImportFrom, module: str, package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def climbs(source: str, module: str, *, package: bool = False) -> list[str]:
    """Imports of `module` from a floor above its own."""
    here = _room(module)
    if here == FRONT:
        return []
    return [
        f"{module}:{line} (floor {FLOORS[here]:g}) imports {name} (floor {FLOORS[_room(name)]:g})"
        for name, line in imported(source, module, package=package)
        if _room(name) != FRONT and FLOORS[_room(name)] > FLOORS[here]
    ]


def _room(module: str) -> str:
    """The first name below `gnnkd`; names that the package's front offers are not rooms."""
    parts = module.split(".")
    return next((name for name in (".".join(parts[1:3]), *parts[1:2]) if name in FLOORS), FRONT)


def _modules() -> list[tuple[str, Path]]:
    found = []
    for file in sorted((ROOT / "gnnkd").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), file))
    return found


@pytest.mark.parametrize(("module", "file"), [pytest.param(m, f, id=m) for m, f in _modules()])
def test_no_import_climbs(module: str, file: Path) -> None:
    assert climbs(file.read_text(encoding="utf-8"), module, package=file.stem == "__init__") == []


def test_every_module_has_a_floor() -> None:
    assert {m.split(".")[1] for m, _ in _modules() if m != "gnnkd"} <= set(FLOORS)


def test_no_room_below_the_command_line_imports_the_front() -> None:
    for module, file in _modules():
        names = [n for n, _ in imported(file.read_text(encoding="utf-8"), module, package=file.stem == "__init__")]
        if module != "gnnkd" and FLOORS[_room(module)] < 5:
            assert [n for n in names if _room(n) == FRONT] == [], module


@pytest.mark.parametrize(
    ("module", "package", "source"),
    [
        ("gnnkd.graph.kernels", False, "import gnnkd.nn.gcn"),
        ("gnnkd.graph.kernels", False, "from gnnkd.train import fit"),
        ("gnnkd.graph.kernels", False, "from gnnkd import nn"),
        ("gnnkd.graph.kernels", False, "from ..nn import gcn"),
        ("gnnkd.graph.kernels", False, "from .. import train"),
        ("gnnkd.graph", True, "from ..data import graphs"),
        ("gnnkd.types", False, "from .graph import structure"),
        ("gnnkd.distillers.kd", False, "def late():\n    from gnnkd.train.fit import Fit"),
        ("gnnkd.distillers.dgd", True, "from ...train import fit"),
        ("gnnkd.api", False, "if False:\n    import gnnkd.config as c"),
    ],
)
def test_a_planted_climb_is_found(module: str, package: bool, source: str) -> None:
    assert len(climbs(source, module, package=package)) == 1


@pytest.mark.parametrize(
    ("module", "package", "source"),
    [
        ("gnnkd.graph.kernels", False, "from .structure import CSR\nfrom ..types import Batch\nimport torch.nn"),
        ("gnnkd.graph", True, "from .structure import CSR\nfrom ..errors import UserError"),
        ("gnnkd.main", False, "from gnnkd import api\nimport gnnkd.data.graphs"),
    ],
)
def test_an_import_downwards_is_none(module: str, package: bool, source: str) -> None:
    assert climbs(source, module, package=package) == []
