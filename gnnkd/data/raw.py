"""Published graphs in the folders of those who publish them: found, downloaded, read; never changed."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy.typing as npt

from gnnkd.data.pyg import arrays_of
from gnnkd.errors import UserError

Array = npt.NDArray[Any]


@final
@dataclass(frozen=True)
class Source:
    """A published graph.

    `folder` is where it lies under the data root, `files` are those in it without which it is not whole; `read` makes
    the arrays of `gnnkd.data.dataset` of that folder; `download` fills a root of its own with `<folder's name>`;
    `protocol` says which split its masks are, None if it has none.
    """

    folder: Path
    files: tuple[str, ...]
    read: Callable[[Path], Mapping[str, Array]]
    download: Callable[[Path], Any]
    protocol: str | None

    def place(self, root: Path) -> Path:
        """Its folder under `root`."""
        return root / self.folder

    def missing(self, root: Path) -> list[str]:
        """The files that are not there."""
        return [name for name in self.files if not (self.place(root) / name).is_file()]

    def begun(self, root: Path) -> bool:
        """Whether a folder is there that is to hold its files."""
        return any((self.place(root) / Path(name).parts[0]).exists() for name in self.files)


def planetoid(name: str) -> Source:
    """A citation graph of PyG's `Planetoid`, by its name there."""

    def read(folder: Path) -> Mapping[str, Array]:
        from torch_geometric.io import read_planetoid_data

        return arrays_of(read_planetoid_data(str(folder / "raw"), name), name)

    def download(root: Path) -> Any:
        from torch_geometric.datasets import Planetoid

        return Planetoid(str(root), name)

    parts = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    files = tuple(f"raw/ind.{name.lower()}.{part}" for part in parts)
    return Source(Path("planetoid", name), files, read, download, protocol="public")


def amazon(name: str) -> Source:
    """A co-purchase graph of PyG's `Amazon`, by its name there."""

    def download(root: Path) -> Any:
        from torch_geometric.datasets import Amazon

        return Amazon(str(root), name)

    return _benchmark(Path("amazon", name), f"amazon_electronics_{name.lower()}", download)


def coauthor(name: str) -> Source:
    """A co-author graph of PyG's `Coauthor`, by its name there."""

    def download(root: Path) -> Any:
        from torch_geometric.datasets import Coauthor

        return Coauthor(str(root), name)

    return _benchmark(Path("coauthor", name), f"ms_academic_{name[:3].lower()}", download)


def _benchmark(folder: Path, stem: str, download: Callable[[Path], Any]) -> Source:
    def read(folder: Path) -> Mapping[str, Array]:
        from torch_geometric.io import read_npz

        return arrays_of(read_npz(str(folder / file), to_undirected=True), folder.name)

    file = f"raw/{stem}.npz"
    return Source(folder, (file,), read, download, protocol=None)


def fetch(source: Source, name: str, root: Path) -> None:
    """Download what is not there at all.

    The downloader works in a folder of its own, which is then moved into place as a whole: no broken-off download is
    ever taken for data.

    Raises:
        UserError: some files are there and some are not, or they cannot be had.
    """
    place, missing = source.place(root), source.missing(root)
    if not missing:
        return
    if source.begun(root):
        raise UserError(
            f"dataset '{name}': {place} lacks {', '.join(missing)}; complete it, or move it away to download all"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as draft, _quiet():
            source.download(Path(draft))
            _move(Path(draft) / source.folder.name, place)
    except (ImportError, UserError):
        raise
    # The network and PyG's file systems raise what they like; to the user it is one thing.
    except Exception as error:
        raise UserError(
            f"dataset '{name}' is not in {place} and could not be downloaded ({_reason(error)}); "
            "give the folder that has it with --data_root, or run where there is a network"
        ) from error


def _move(made: Path, place: Path) -> None:
    shutil.rmtree(made / "processed", ignore_errors=True)  # a copy in a format of PyG's, which may change
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        made.rename(place)
        return
    # Someone else's `processed` folder, say, with nothing to process.
    for part in sorted(made.iterdir()):
        part.rename(place / part.name)


def read(source: Source, name: str, root: Path) -> Mapping[str, Array]:
    """Read the files into the arrays of a graph.

    Raises:
        UserError: they cannot be read.
    """
    place = source.place(root)
    try:
        with _quiet():
            return source.read(place)
    except (ImportError, UserError):
        raise
    # Old pickles fail in as many ways as there are objects.
    except Exception as error:
        raise UserError(
            f"dataset '{name}' cannot be read from {place} ({_reason(error)}); its files are damaged: replace them, or "
            "move the folder away to download afresh"
        ) from error


def stamp(source: Source, root: Path) -> str:
    """Size and time of change of each raw file: what a copy of the data in our own format is known by."""
    stats = [(name, (source.place(root) / name).stat()) for name in source.files]
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
