"""The examples of a task's split, wherever they are in the files of TFDS."""

import bisect
import hashlib
import itertools
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctl_jax.data.dataset import Example
from ctl_jax.data.formats.file_state import file_size
from ctl_jax.data.sources.tfds import fields
from ctl_jax.data.sources.tfds.record_files import RecordFiles
from ctl_jax.errors import UserError

# Records that are read at once when a field is looked up.
_BATCH = 512


class Column:
    """One number of every example of a TFDS split, read when it is first wanted.

    The images are passed over, not decoded.
    """

    def __init__(self, files: RecordFiles, field: str, allowed: Sequence[int]) -> None:
        """Reads nothing yet.

        Args:
          files: those of the split.
          field: the feature.
          allowed: the values that it may have.
        """
        self.field = field
        self._files = files
        self._allowed = frozenset(allowed)
        self._lock = threading.Lock()
        self._values: np.ndarray | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (self._files, self.field, tuple(self._allowed))

    def values(self) -> np.ndarray:
        """The numbers, int64 [N].

        Raises:
          UserError: a file is damaged, or an example has another value.
        """
        with self._lock:
            if self._values is None:
                self._values = self._read()
            return self._values

    def _read(self) -> np.ndarray:
        result = np.empty(len(self._files), np.int64)
        for start in range(0, len(result), _BATCH):
            positions = range(start, min(start + _BATCH, len(result)))
            records = self._files.read(positions)
            for position, record in zip(positions, records, strict=True):
                try:
                    value = fields.integer(record, self.field)
                except ValueError as error:
                    raise UserError(f"{self._files.where(position)} {error}") from error
                if value not in self._allowed:
                    raise UserError(
                        f"{self._files.where(position)} has {self.field} {value}; "
                        f"expected one of {', '.join(map(str, sorted(self._allowed)))}"
                    )
                result[position] = value
        return result


class Piece:
    """Some examples of one TFDS split, in its order."""

    def __init__(
        self,
        files: RecordFiles,
        start: int,
        stop: int,
        column: Column | None = None,
        values: tuple[int, ...] = (),
    ) -> None:
        """Reads nothing yet.

        Args:
          files: those of the split.
          start: first example.
          stop: end, exclusive.
          column: numbers to choose by; None for all examples.
          values: the numbers that are chosen.
        """
        self.files = files
        self.start = start
        self.stop = stop
        self.column = column
        self.values = values

    def positions(self) -> Sequence[int]:
        """Where its examples are in the TFDS split."""
        if self.column is None:
            return range(self.start, self.stop)
        chosen = np.isin(self.column.values()[self.start : self.stop], self.values)
        positions: list[int] = (self.start + np.flatnonzero(chosen)).tolist()
        return positions

    def identity(self) -> str:
        """Which examples these are, and of which files by name and number of records."""
        lines = [f"{self.start}:{self.stop}"]
        if self.column is not None:
            lines.append(f"{self.column.field} {self.values}")
        for path, length in zip(self.files.paths, self.files.lengths, strict=True):
            lines.append(f"{os.path.basename(path)} {length} {file_size(path)}")
        return "\n".join(lines)

    def describe(self) -> str:
        """All that decides which examples these are, for a fingerprint.

        Raises:
          UserError: a file is missing.
        """
        lines = [f"{self.start}:{self.stop}"]
        if self.column is not None:
            lines.append(f"{self.column.field} {self.values}")
        for path in self.files.paths:
            try:
                state = os.stat(path)
            except OSError as error:
                raise UserError(f"file {path!r} cannot be read: {error.strerror}") from error
            lines.append(f"{os.path.realpath(path)} {state.st_size} {state.st_mtime_ns}")
        return "\n".join(lines)


class TfdsRecords:
    """The examples of a task's split, read as they are asked for; see `dataset.Records`."""

    def __init__(self, pieces: Sequence[Piece], labels: fields.Labels, identity: str = "") -> None:
        """Reads nothing yet.

        Args:
          pieces: where the examples are, one after the other.
          labels: how their labels are read.
          identity: of the examples that these are made from, where they are.
        """
        self._identity = identity
        self._pieces = tuple(pieces)
        self._labels = labels
        self._places: list[Sequence[int]] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._positions()))

    def read(self, start: int, stop: int) -> list[Example]:
        """Examples `start` to `stop` (exclusive).

        Raises:
          UserError: a file is damaged.
          IndexError: there are no such examples.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"examples {start} to {stop} of {len(self)}")
        places = self._positions()
        ends = list(itertools.accumulate(map(len, places)))
        result: list[Example] = []
        piece = bisect.bisect_right(ends, start)
        while start < stop:
            before = ends[piece] - len(places[piece])
            end = min(stop, ends[piece])
            files = self._pieces[piece].files
            positions = places[piece][start - before : end - before]
            for position, record in zip(positions, files.read(positions), strict=True):
                result.append(self._example(files.where(position), record))
            start, piece = end, piece + 1
        return result

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of which files these are, which examples, and which labels."""
        lines = [repr(self._labels), *(piece.describe() for piece in self._pieces)]
        return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()

    def identity(self) -> str:
        """SHA-256 (hexadecimal) of which examples and which labels these are."""
        if self._identity:
            return self._identity
        lines = [repr(self._labels), *(piece.identity() for piece in self._pieces)]
        return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()

    def _positions(self) -> list[Sequence[int]]:
        if self._places is None:
            self._places = [piece.positions() for piece in self._pieces]
        return self._places

    def _example(self, where: str, record: bytes) -> Example:
        try:
            content, label = fields.parse(record, self._labels)
        except ValueError as error:
            raise UserError(f"{where} {error}") from error
        return Example(content, label, where)
