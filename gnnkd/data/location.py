"""Where data lies and where we may write."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of raw data: `root`, else `$GNNKD_DATA`, else `data` in the user's cache folder."""
    chosen = root or os.environ.get("GNNKD_DATA")
    return Path(chosen).expanduser() if chosen else _user_cache() / "data"


def graph_cache() -> Path:
    """The folder of graphs already read: `graphs` in `$GNNKD_CACHE`, else in the user's cache folder."""
    chosen = os.environ.get("GNNKD_CACHE")
    return (Path(chosen).expanduser() if chosen else _user_cache()) / "graphs"


def _user_cache() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say that a relative path is to be ignored.
    if Path(chosen).is_absolute():
        return Path(chosen) / "gnnkd"
    try:
        return Path.home() / ".cache" / "gnnkd"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "gnnkd"
