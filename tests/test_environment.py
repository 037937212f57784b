"""The files that name packages agree with each other and with the imports."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
IMPORT_NAMES = {"pil": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Import names that differ from the package's."""


def _pyproject() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def _by_name(lines: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in requirements}


def _core() -> dict[str, Requirement]:
    return _by_name(_pyproject()["dependencies"])


def _extras() -> dict[str, Requirement]:
    groups = _pyproject()["optional-dependencies"]
    return _by_name([line for name, lines in groups.items() if name != "all" for line in lines])


def _constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return _by_name([line for line in lines if line and not line.startswith("#")])


def _environment() -> dict[str, Requirement]:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    return _by_name(pip)


def test_environment_is_core_with_ogb_and_torch_scatter() -> None:
    extras = _pyproject()["optional-dependencies"]
    wanted = _core() | _by_name(extras["ogb"] + extras["scatter"])
    assert {name: str(r.specifier) for name, r in _environment().items()} == {
        name: str(r.specifier) for name, r in wanted.items()
    }


def test_environment_and_package_want_the_same_python() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (python,) = [e for e in content["dependencies"] if isinstance(e, str) and e.startswith("python")]
    assert python.removeprefix("python") == _pyproject()["requires-python"]


def test_constraints_satisfy_the_bounds_and_cover_core_and_dev() -> None:
    constraints, wanted = _constraints(), _core() | _by_name(_pyproject()["optional-dependencies"]["dev"])
    assert set(constraints) == set(wanted)
    for name, pin in constraints.items():
        version = re.fullmatch(r"==([\w.+]+)", str(pin.specifier))
        assert version, f"{pin} is no exact version"
        assert wanted[name].specifier.contains(version[1]), f"{pin} is outside {wanted[name]}"


def test_no_dependency_is_pinned_exactly() -> None:
    assert [str(r) for r in (_core() | _extras()).values() if "==" in str(r.specifier)] == []


def test_all_holds_every_extra_but_the_one_built_from_source() -> None:
    groups = _pyproject()["optional-dependencies"]
    (everything,) = [Requirement(line) for line in groups["all"]]
    assert everything.extras == set(groups) - {"all", "scatter"}


@pytest.mark.parametrize("file", sorted((ROOT / "gnnkd").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_every_third_party_import_is_declared(file: Path) -> None:
    known = {name.replace("-", "_") for name in _core() | _extras()}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        for name in (full.split(".")[0].lower() for full in names):
            package = IMPORT_NAMES.get(name, name).replace("-", "_")
            assert name in sys.stdlib_module_names or name == "gnnkd" or package in known, f"line {node.lineno}: {name}"


def test_what_is_installed_satisfies_the_bounds() -> None:
    for name, wanted in _core().items():
        assert wanted.specifier.contains(metadata.version(name), prereleases=True), wanted
