"""Encoded images, wherever they are, by number: in files, in archives, in a column of a table."""

import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Protocol, TypeAlias

import numpy as np
from PIL import Image

from ctl_jax.data.formats import remembered, zips
from ctl_jax.data.formats.file_state import file_state
from ctl_jax.errors import UserError

# Reading small files waits for the disk or the network.
_THREADS = 16
_BLOCK = 256
# Of images of equal size the ends are compared first; most differ there.
_TAIL = 4096


def is_picture(name: str) -> bool:
    """Whether a file is one by the suffix of its name."""
    return os.path.splitext(name)[1].casefold() in Image.registered_extensions()


Places: TypeAlias = Sequence[int] | np.ndarray


class Images(Protocol):
    """Encoded images by number. May be asked from several threads at once."""

    sizes: np.ndarray  # int64 [N], in bytes.

    def read(self, places: Sequence[int]) -> list[bytes]:
        """The images at some places.

        Raises:
          UserError: one cannot be read.
        """

    def tails(self, places: Sequence[int], length: int) -> Sequence[bytes]:
        """The last bytes of each, at most so many."""

    def where(self, place: int) -> str:
        """File and position, for people."""

    def state(self, places: Places) -> Iterator[bytes]:
        """What tells that they are still the same, without reading them."""


def rank(images: Images) -> np.ndarray:
    """What images are, as far as telling them apart needs it: the same for the same bytes.

    From the size alone where no other image has it; else from a hash of its end; and of all of it
    where ends are equal too. So few are read, and a copy of the set in any form has the same.

    Returns:
      uint64 [N, 3]: a hash of the size, of the end or 0, and of all or 0.
    """

    def make() -> dict[str, np.ndarray]:
        values, inverse = np.unique(images.sizes, return_inverse=True)
        found = np.zeros((len(images.sizes), 3), np.uint64)
        found[:, 0] = np.asarray([_hash(f"size {size}".encode()) for size in values.tolist()])[
            inverse
        ]
        for column, length in ((1, _TAIL), (2, 0)):
            again = _repeated(found)
            # The end of a short image was all of it.
            again = again[images.sizes[again] > _TAIL] if not length else again
            found[again, column] = _hashes(images, again.tolist(), length)
        return {"rank": found}

    return remembered.arrays(images.state(np.arange(len(images.sizes))), make)["rank"]


def _repeated(keys: np.ndarray) -> np.ndarray:
    """The places of rows that come more than once."""
    _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse.reshape(-1)] > 1)


def _hashes(images: Images, places: Sequence[int], length: int) -> np.ndarray:
    def of(block: Sequence[int]) -> list[int]:
        return [
            _hash(content)
            for content in (images.tails(block, length) if length else images.read(block))
        ]

    blocks = [places[start : start + _BLOCK] for start in range(0, len(places), _BLOCK)]
    with futures.ThreadPoolExecutor(_THREADS, "compare") as pool:
        return np.asarray([one for block in pool.map(of, blocks) for one in block], np.uint64)


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


class FileImages:
    """Files of a folder."""

    def __init__(self, folder: pathlib.Path | str, names: Sequence[str]) -> None:
        """Asks for sizes and times, and reads nothing.

        Args:
          folder: where they are.
          names: paths in it, or absolute ones.

        Raises:
          UserError: a file is not there.
        """
        self._folder = os.path.abspath(folder)
        self._names = tuple(names)
        facts = np.empty((len(names), 2), np.int64)
        for place in range(len(names)):
            try:
                found = os.stat(self._path(place))
            except OSError as error:
                raise self._unreadable(place, error) from error
            facts[place] = found.st_size, found.st_mtime_ns
        self.sizes, self._times = facts.T

    def _path(self, place: int) -> str:
        return os.path.join(self._folder, self._names[place])

    def read(self, places: Sequence[int]) -> list[bytes]:
        """See `Images`."""
        return [self._read(place, 0) for place in places]

    def tails(self, places: Sequence[int], length: int) -> list[bytes]:
        """See `Images`; reads no more than these."""
        return [self._read(place, max(int(self.sizes[place]) - length, 0)) for place in places]

    def _read(self, place: int, start: int) -> bytes:
        try:
            handle = os.open(self._path(place), os.O_RDONLY | os.O_CLOEXEC)
            try:
                # One byte more than there should be, so that a short answer is the end.
                wanted = int(self.sizes[place]) - start + 1
                parts = [os.pread(handle, wanted, start)]
                while len(parts[-1]) == wanted:
                    start += wanted
                    parts.append(os.pread(handle, wanted, start))
                return b"".join(parts)
            finally:
                os.close(handle)
        except OSError as error:
            raise self._unreadable(place, error) from error

    def _unreadable(self, place: int, error: OSError) -> UserError:
        return UserError(f"{self._path(place)!r} cannot be read: {error.strerror}")

    def where(self, place: int) -> str:
        """See `Images`."""
        return repr(self._path(place))

    def state(self, places: Places) -> Iterator[bytes]:
        """See `Images`."""
        yield os.fsencode(self._folder)
        yield "\n".join([self._names[place] for place in places]).encode(errors="surrogateescape")
        yield np.stack([self.sizes[places], self._times[places]]).tobytes()


class Whole:
    """Images of which no part can be read alone."""

    def read(self, places: Sequence[int]) -> list[bytes]:
        """See `Images`."""
        raise NotImplementedError

    def tails(self, places: Sequence[int], length: int) -> list[bytes]:
        """See `Images`."""
        return [content[-length:] for content in self.read(places)]


class ZipImages(Whole):
    """Entries of a zip archive."""

    def __init__(self, entries: zips.Entries) -> None:
        self._entries = entries
        self.sizes = entries.table["size"].astype(np.int64)

    def read(self, places: Sequence[int]) -> list[bytes]:
        """See `Images`."""
        return zips.read(self._entries, places)

    def where(self, place: int) -> str:
        """See `Images`."""
        return self._entries.where(place)

    def state(self, places: Places) -> Iterator[bytes]:
        """See `Images`: names, sizes and checksums, which the archive's list has."""
        yield "\n".join([self._entries.names[place] for place in places]).encode(
            errors="surrogateescape"
        )
        table = self._entries.table[places]
        yield table["size"].tobytes() + table["crc"].tobytes()


class PackedImages(Whole):
    """Pieces of a file that holds all of them as they are: a plain tar archive."""

    def __init__(
        self, path: pathlib.Path, names: Sequence[str], starts: np.ndarray, sizes: np.ndarray
    ) -> None:
        """Reads nothing.

        Args:
          path: the file.
          names: of its pieces, for people.
          starts: int64 [N], where each begins.
          sizes: int64 [N], in bytes.
        """
        self._path = str(path)
        self._names = tuple(names)
        self._starts = starts
        self.sizes = sizes

    def read(self, places: Sequence[int]) -> list[bytes]:
        """See `Images`."""
        try:
            with open(self._path, "rb", buffering=0) as file:
                found = [
                    os.pread(file.fileno(), int(self.sizes[place]), int(self._starts[place]))
                    for place in places
                ]
        except OSError as error:
            raise UserError(f"{self._path!r} cannot be read: {error.strerror}") from error
        for place, content in zip(places, found, strict=True):
            if len(content) != self.sizes[place]:
                raise UserError(f"{self.where(place)}: the archive ends within it")
        return found

    def where(self, place: int) -> str:
        """See `Images`."""
        return f"{self._path!r}, entry {self._names[place]!r}"

    def state(self, places: Places) -> Iterator[bytes]:
        """See `Images`."""
        yield file_state(self._path)
        yield self._starts[places].tobytes()
