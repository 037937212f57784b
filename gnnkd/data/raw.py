"""Published graphs in PyTorch Geometric's own folders: found, downloaded, read; never changed."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gnnkd.errors import UserError


@final
@dataclass(frozen=True)
class Source:
    """A published graph.

    `folder` is where it lies under the data root, `files` are those in `folder/raw` without which it is not whole;
    `read` makes a PyG `Data` of that raw folder; `download` fills a root of its class with `<folder's name>/raw`;
    `published` says whether its masks are the public split.
    """

    folder: Path
    files: tuple[str, ...]
    read: Callable[[Path], Any]
    download: Callable[[Path], Any]
    published: bool

    def raw(self, root: Path) -> Path:
        """Its raw folder under `root`."""
        return root / self.folder / "raw"

    def missing(self, root: Path) -> list[str]:
        """The files that are not there."""
        return [name for name in self.files if not (self.raw(root) / name).is_file()]


def planetoid(name: str) -> Source:
    """A citation graph of PyG's `Planetoid`, by its name there."""

    def read(raw: Path) -> Any:
        from torch_geometric.io import read_planetoid_data

        return read_planetoid_data(str(raw), name)

    def download(root: Path) -> Any:
        from torch_geometric.datasets import Planetoid

        return Planetoid(str(root), name)

    parts = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    files = tuple(f"ind.{name.lower()}.{part}" for part in parts)
    return Source(Path("planetoid", name), files, read, download, published=True)


def amazon(name: str) -> Source:
    """A co-purchase graph of PyG's `Amazon`, by its name there."""
    file = f"amazon_electronics_{name.lower()}.npz"

    def read(raw: Path) -> Any:
        from torch_geometric.io import read_npz

        return read_npz(str(raw / file), to_undirected=True)

    def download(root: Path) -> Any:
        from torch_geometric.datasets import Amazon

        return Amazon(str(root), name)

    return Source(Path("amazon", name), (file,), read, download, published=False)


def fetch(source: Source, name: str, root: Path) -> None:
    """Download what is not there at all.

    PyG's class works in a folder of its own, whose raw part is then moved into place as a whole: no broken-off download
    is ever taken for data.

    Raises:
        UserError: some files are there and some are not, or they cannot be had.
    """
    raw, missing = source.raw(root), source.missing(root)
    if not missing:
        return
    if raw.exists():
        raise UserError(
            f"dataset '{name}': {raw} lacks {', '.join(missing)}; complete it, or move it away to download all"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as draft, _quiet():
            source.download(Path(draft))
            raw.parent.mkdir(parents=True, exist_ok=True)
            (Path(draft) / source.folder.name / "raw").rename(raw)
    except ImportError:
        raise
    # The network and PyG's file systems raise what they like; to the user it is one thing.
    except Exception as error:
        raise UserError(
            f"dataset '{name}' is not in {raw} and could not be downloaded ({_reason(error)}); "
            "give the folder that has it with --data_root, or run where there is a network"
        ) from error


def read(source: Source, name: str, root: Path) -> Any:
    """Read the raw folder into a PyG `Data`.

    Raises:
        UserError: its files cannot be read.
    """
    raw = source.raw(root)
    try:
        with _quiet():
            return source.read(raw)
    except ImportError:
        raise
    # Old pickles fail in as many ways as there are objects.
    except Exception as error:
        raise UserError(
            f"dataset '{name}' cannot be read from {raw} ({_reason(error)}); its files are damaged: replace them, or "
            "move the folder away to download afresh"
        ) from error


def stamp(source: Source, root: Path) -> str:
    """Size and time of change of each raw file: what a copy of the data in our own format is known by."""
    stats = [(name, (source.raw(root) / name).stat()) for name in source.files]
    return "|".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


@contextmanager
def _quiet() -> Iterator[None]:
    # Also undoes the filter that PyG's Planetoid reader adds to the process and leaves behind.
    with warnings.catch_warnings():
        # PyG compiles some of its functions when it is imported, and torch calls that way deprecated.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
        yield


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.200}" if text else type(error).__name__
