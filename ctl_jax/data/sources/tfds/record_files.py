"""The files that hold a TFDS split, ArrayRecord or TFRecord, read at any place."""

import bisect
import itertools
import os
import threading
from collections.abc import Sequence
from typing import Any

from ctl_jax.data import _tfrecord
from ctl_jax.errors import UserError

FORMATS = ("array_record", "tfrecord")

# Readahead only costs where single records are wanted; threads are the caller's.
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
# Readers that are kept open when nobody uses them; a large set has a thousand files.
_IDLE = 32


class RecordFiles:
    """Records of several files as one sequence. May be read from several threads at once."""

    def __init__(self, paths: Sequence[str], lengths: Sequence[int], file_format: str) -> None:
        """Opens nothing yet.

        Args:
          paths: the files, in order.
          lengths: the number of records in each.
          file_format: one of `FORMATS`.
        """
        self.paths = tuple(paths)
        self.lengths = tuple(lengths)
        self._ends = tuple(itertools.accumulate(lengths))
        self._format = file_format
        self._lock = threading.Lock()
        self._indices: dict[int, _tfrecord.Index] = {}
        self._idle: list[tuple[int, Any]] = []

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __reduce__(self) -> tuple[Any, ...]:
        # Open files and a lock do not travel to another process.
        return RecordFiles, (self.paths, self.lengths, self._format)

    def where(self, position: int) -> str:
        """File and position in it, for people."""
        file, record = self._place(position)
        return f"{self.paths[file]!r}, record {record}"

    def read(self, positions: Sequence[int]) -> list[bytes]:
        """The records at these positions, in this order.

        Raises:
          UserError: a file is missing, damaged, or has another number of records than expected.
        """
        read = self._read_tfrecord if self._format == "tfrecord" else self._read_array_record
        result: list[bytes] = []
        for file, group in itertools.groupby(map(self._place, positions), lambda place: place[0]):
            result += read(file, [record for _, record in group])
        return result

    def _place(self, position: int) -> tuple[int, int]:
        """Number of the file and of the record in it."""
        file = bisect.bisect_right(self._ends, position)
        return file, position - (self._ends[file - 1] if file else 0)

    def _check_count(self, file: int, found: int) -> None:
        if found != self.lengths[file]:
            raise UserError(
                f"{self.paths[file]!r} has {found} records; expected {self.lengths[file]}"
            )

    def _read_tfrecord(self, file: int, records: Sequence[int]) -> list[bytes]:
        places = self._indices.get(file)
        if places is None:
            places = _tfrecord.index(self.paths[file])
            self._check_count(file, len(places))
            # Two threads may have made the same one.
            self._indices[file] = places
        return _tfrecord.read_at(places, records)

    def _read_array_record(self, file: int, records: list[int]) -> list[bytes]:
        reader = self._borrow(file)
        try:
            found: list[bytes] = reader.read(records)
        except (RuntimeError, ValueError, IndexError) as error:
            reader.close()
            raise self._damaged(file, records, error) from error
        self._give_back(file, reader)
        return found

    def _borrow(self, file: int) -> Any:
        """An open reader that no other thread uses."""
        with self._lock:
            for index, (owner, reader) in enumerate(self._idle):
                if owner == file:
                    del self._idle[index]
                    return reader
        try:
            reader = _open_array_record(self.paths[file])
            found = reader.num_records()
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise UserError(
                f"{self.paths[file]!r} is not a whole ArrayRecord file: {first_line(error)}"
            ) from error
        self._check_count(file, found)
        return reader

    def _give_back(self, file: int, reader: Any) -> None:
        with self._lock:
            self._idle.append((file, reader))
            oldest = self._idle.pop(0) if len(self._idle) > _IDLE else None
        if oldest is not None:
            oldest[1].close()

    def _damaged(self, file: int, records: Sequence[int], error: Exception) -> UserError:
        """Names the first record that cannot be read."""
        what = f"is not a whole ArrayRecord file: {first_line(error)}; prepare the data set again"
        for record in records:
            # A reader that has failed once stays so.
            try:
                reader = _open_array_record(self.paths[file])
                try:
                    reader.read([record])
                finally:
                    reader.close()
            except (OSError, RuntimeError, ValueError, IndexError):
                return UserError(f"{self.paths[file]!r}, record {record}, {what}")
        return UserError(f"{self.paths[file]!r} {what}")


def _open_array_record(path: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # It makes an empty reader of what is no file.
    os.stat(path)
    return ArrayRecordReader(path, options=_OPTIONS)


def first_line(error: BaseException) -> str:
    """The first line of what other libraries say."""
    return str(error).strip().split("\n")[0] or type(error).__name__
