"""What a number was computed with: versions of packages, and the commit of this source tree."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import gnnkd


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    packages = ("torch", "torch_geometric", "numpy", "scipy", "scikit-learn")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "gnnkd": gnnkd.__version__, **found}


def commit() -> str | None:
    """The git commit of this source tree; None when it is not in a repository of its own."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return asked.stdout.strip() or None
