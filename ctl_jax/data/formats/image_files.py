"""Examples that are image files of a folder or entries of an archive, with given labels."""

import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from ctl_jax.data import _duplicates
from ctl_jax.data.dataset import DataSet, Example
from ctl_jax.data.formats import zips
from ctl_jax.data.formats.file_state import file_size, file_state
from ctl_jax.errors import UserError


def contents(dataset: DataSet) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """What tells which images of a folder or archive are the same, without decoding any.

    Few are read: see `duplicates.number_files`; of an archive, those of equal size and CRC-32,
    which is weak for PNG files as they end with a CRC-32 of their own.

    Returns:
      For each split a number for each example's bytes, int64 [N], and its label; None for other
      sources.

    Raises:
      UserError: a file cannot be read.
    """
    splits = dataset.splits
    ends = np.cumsum([len(records) for records in splits.values()])
    paths: list[str] = []
    tables: list[np.ndarray] = []
    for records in splits.values():
        if isinstance(records, FolderRecords):
            paths += records.paths()
        elif isinstance(records, ZipRecords):
            tables.append(records.checksums())
        else:
            return None

    def digests(places: Sequence[int]) -> Iterator[bytes]:
        for place in places:
            split = int(np.searchsorted(ends, place, side="right"))
            records = list(splits.values())[split]
            inner = place - int(ends[split]) + len(records)
            yield _duplicates.digest(records.read(inner, inner + 1)[0].content)

    if paths:
        numbers = _duplicates.number_files(paths)
    else:
        numbers = _duplicates.number(np.concatenate(tables), digests)
    return {
        split: (found, records.labels)
        for (split, records), found in zip(
            splits.items(), np.split(numbers, ends[:-1]), strict=True
        )
        if isinstance(records, FolderRecords | ZipRecords)
    }


class FolderRecords:
    """Image files with their classes, `labels`."""

    def __init__(self, folder: pathlib.Path, names: Sequence[str], labels: np.ndarray) -> None:
        self._folder = str(folder)
        self._names = tuple(names)
        self.labels = labels

    def __len__(self) -> int:
        return len(self._names)

    def read(self, start: int, stop: int) -> list[Example]:
        """Examples `start` to `stop` (exclusive).

        Raises:
          UserError: a file cannot be read.
        """
        return [self._example(place) for place in range(len(self))[start:stop]]

    def paths(self) -> list[str]:
        """Where the files are, in order."""
        return [os.path.join(self._folder, name) for name in self._names]

    def fingerprint(self) -> str:
        """SHA-256 of the files' paths, sizes and times, and of their labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.labels, "<i4").tobytes())
        for path in self.paths():
            digest.update(file_state(path))
        return digest.hexdigest()

    def identity(self) -> str:
        """SHA-256 of the files' names within the folder, their sizes, and their labels.

        Raises:
          UserError: a file is gone.
        """
        digest = hashlib.sha256(np.ascontiguousarray(self.labels, "<i4").tobytes())
        digest.update(np.asarray([file_size(path) for path in self.paths()], "<i8").tobytes())
        digest.update("\n".join(self._names).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _example(self, place: int) -> Example:
        path = os.path.join(self._folder, self._names[place])
        try:
            with open(path, "rb") as file:
                return Example(file.read(), int(self.labels[place]), repr(path))
        except OSError as error:
            raise UserError(f"{path!r} cannot be read: {error.strerror}") from error


class ZipRecords:
    """Entries of an archive with their classes, `labels`."""

    def __init__(self, entries: zips.Entries, labels: np.ndarray) -> None:
        self._entries = entries
        self.labels = labels

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, start: int, stop: int) -> list[Example]:
        """Examples `start` to `stop` (exclusive).

        Raises:
          UserError: an entry is damaged.
        """
        places = range(len(self))[start:stop]
        contents = zips.read(self._entries, places)
        return [
            Example(content, int(self.labels[place]), self._entries.where(place))
            for place, content in zip(places, contents, strict=True)
        ]

    def checksums(self) -> np.ndarray:
        """CRC-32 and size of the entries, int64 [N]."""
        table = self._entries.table
        return (table["crc"].astype(np.int64) << 31) | table["size"]

    def fingerprint(self) -> str:
        """SHA-256 of the entries' names, sizes and checksums, and of their labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.labels, "<i4").tobytes())
        digest.update(self._entries.table["size"].tobytes())
        digest.update(self._entries.table["crc"].tobytes())
        digest.update("\n".join(self._entries.names).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def identity(self) -> str:
        """The same as `fingerprint`, which depends on what is in the archive alone."""
        return self.fingerprint()
