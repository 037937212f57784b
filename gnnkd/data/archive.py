"""A published archive: downloaded, checked, and only the expected files of it unpacked."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from urllib.request import urlopen

from gnnkd.errors import UserError

TIMEOUT = 60
"""Seconds without an answer after which a download is given up."""
_CHUNK = 1 << 20


def download(url: str, md5: str, files: Iterable[str], root: Path) -> None:
    """Bring the named files of a tar archive to `root`, under their names in the archive.

    Members of other names are left out, so nothing in an archive chooses where it is written.

    Args:
        url: of the archive, `file:` ones too.
        md5: of the archive's bytes, as published; it guards against a broken download.
        files: relative paths with slashes.
        root: a folder of one's own, for it is left half filled when this fails.

    Raises:
        UserError: other bytes than the published ones, or a file that is not in them.
        OSError: no network, no such place.
    """
    archive = root / ".archive"
    found = _fetch(url, archive)
    if found != md5:
        raise UserError(f"{url} has the MD5 sum {found}; the published one is {md5}: the download is broken, try again")
    with tarfile.open(archive) as tar:
        for name in files:
            _unpack(tar, name, root, url)
    archive.unlink()


def _fetch(url: str, place: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with urlopen(url, timeout=TIMEOUT) as answer, place.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _unpack(tar: tarfile.TarFile, name: str, root: Path, url: str) -> None:
    try:
        member = tar.getmember(name)
    except KeyError:
        raise UserError(f"{url} has no file {name}") from None
    # A link has no content of its own: only a plain file is taken.
    source = tar.extractfile(member) if member.isfile() else None
    if source is None:
        raise UserError(f"{url}: {name} is no plain file")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    with source, (root / name).open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
