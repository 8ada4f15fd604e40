"""Tar archives of images, plain or compressed, read at any place, without trust.

A compressed one can only be read from its beginning, so it is unpacked once to a plain archive in
the cache.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ctl_jax.data.formats import remembered
from ctl_jax.data.formats.file_state import file_state
from ctl_jax.errors import UserError

# How compressed files begin.
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_NAMED = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2|txz)$", re.IGNORECASE)
# Encoded images hardly shrink; more than this is a bomb.
_MOST_RATIO = 100
_SMALL = 1 << 30
_MOST_IMAGE = 1 << 28
_BLOCK = 1 << 20
_DAMAGED = (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error, ValueError)


class Entries(NamedTuple):
    """Where the files of an archive are.

    Attributes:
      path: a plain archive.
      names: of its files, with "/".
      starts: int64 [N], where each begins.
      sizes: int64 [N], in bytes.
      folders: names of folders that have entries of their own.
    """

    path: pathlib.Path
    names: tuple[str, ...]
    starts: np.ndarray
    sizes: np.ndarray
    folders: tuple[str, ...]


def is_one(path: pathlib.Path) -> bool:
    """Whether a file is a tar archive, by its content."""
    with open(path, "rb") as file:
        head = file.read(512)
    opener = _opener(head)
    with contextlib.suppress(*_DAMAGED):
        if opener is not None:
            with opener(path) as unpacked:
                head = unpacked.read(512)
    # Of an empty or damaged one the suffix says what it was meant to be.
    return head[257:262] == b"ustar" or _NAMED.search(path.name) is not None


def index(path: pathlib.Path) -> Entries:
    """Lists the files of an archive, once it is known to be safe to read.

    Raises:
      UserError: it is no whole archive; or an entry has an absolute name, one with "..", or one
        that comes twice; is a link or device; or is larger than an image can be.
    """
    names: list[str] = []
    places: list[tuple[int, int]] = []
    folders: list[str] = []
    try:
        plain = _plain(path)
        end = os.path.getsize(plain)
        with tarfile.open(plain, "r:", errors="surrogateescape") as archive:
            for entry in archive:
                if (problem := _problem(entry)) is not None:
                    raise UserError(f"{str(path)!r}: entry {entry.name!r} {problem}")
                if entry.isdir():
                    folders.append(f"{entry.name}/")
                    continue
                if entry.offset_data + entry.size > end:
                    raise UserError(f"{str(path)!r}: the archive ends within {entry.name!r}")
                names.append(entry.name)
                places.append((entry.offset_data, entry.size))
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(f"{str(path)!r} is not a whole tar archive: {error}") from error
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{str(path)!r}: entry {name!r} comes twice")
        seen.add(name)
    starts, sizes = np.asarray(places, np.int64).reshape(-1, 2).T
    return Entries(plain, tuple(names), starts, sizes, tuple(folders))


def _problem(entry: tarfile.TarInfo) -> str | None:
    """Why an entry cannot be trusted, if so."""
    parts = entry.name.replace("\\", "/").split("/")
    if entry.name.startswith(("/", "\\")) or entry.name[1:2] == ":":
        return "has an absolute path; expected one within the archive"
    if ".." in parts:
        return "has a path with '..'; expected one within the archive"
    if entry.issym() or entry.islnk():
        return "is a link; expected files"
    if not (entry.isdir() or entry.isreg()) or entry.issparse():
        return "is a special file; expected files"
    if entry.size > _MOST_IMAGE:
        return f"has {entry.size} bytes; expected {_MOST_IMAGE} at most"
    return None


def _opener(head: bytes) -> Callable[..., Any] | None:
    return next((found for magic, found in _OPENERS.items() if head.startswith(magic)), None)


def _plain(path: pathlib.Path) -> pathlib.Path:
    """The archive itself, or the file in the cache that it is unpacked to."""
    with open(path, "rb") as file:
        opener = _opener(file.read(8))
    if opener is None:
        return path
    limit = max(_SMALL, _MOST_RATIO * os.path.getsize(path))

    def unpack(target: BinaryIO) -> None:
        total = 0
        with opener(path) as source:
            while block := _read(path, source):
                total += len(block)
                if total > limit:
                    raise UserError(
                        f"{str(path)!r} would unpack to more than {_MOST_RATIO} times its size; "
                        "expected an archive of images"
                    )
                target.write(block)

    return remembered.file([file_state(path)], ".tar", unpack)


def _read(path: pathlib.Path, source: BinaryIO) -> bytes:
    try:
        return source.read(_BLOCK)
    except _DAMAGED as error:
        raise UserError(f"{str(path)!r} cannot be unpacked: {error}") from error
