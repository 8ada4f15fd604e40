"""TFRecord files and `tf.train.Example` messages without TensorFlow.

A record is its length (uint64), the masked CRC-32C of those 8 bytes (uint32), the data, and the
masked CRC-32C of the data (uint32), all little-endian.
https://www.tensorflow.org/tutorials/load_data/tfrecord

Messages are parsed by the protocol buffers that TFDS brings, which are safe with hostile bytes, and
ten times as fast as a parser written in Python.
"""

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np

from ctl_jax.data.sources.tfds.record_files import first_line
from ctl_jax.errors import UserError

_READ = 1 << 23  # Bytes that are read at once.


@dataclasses.dataclass(frozen=True)
class Index:
    """Where the records of a file lie.

    Attributes:
      path: the file.
      starts: int64 [N], the first byte of each record's data.
      lengths: int64 [N], the number of bytes of its data.
      checksums: uint32 [N], the masked CRC-32C of its data as it is stored; checked by `read_at`.
    """

    path: str
    starts: np.ndarray
    lengths: np.ndarray
    checksums: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


def index(path: str | os.PathLike[str]) -> Index:
    """Finds the records of a file by their lengths; reads 16 bytes a record.

    Raises:
      UserError: the file cannot be read, is cut off, or the checksum of a length is wrong.
    """
    starts: list[int] = []
    lengths: list[int] = []
    checksums: list[bytes] = []
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        place = 0
        while place < size:
            # In front of it is the checksum of the record before, read along with it.
            before = 4 if place else 0
            block = os.pread(file.fileno(), 12 + before, place - before)
            checksums.append(block[:before])
            head = block[before:]
            if len(head) < 12:
                what = "the file ends within a record's length"
                raise _broken(path, len(starts), place, what)
            if _masked(head[:8]) != head[8:]:
                raise _broken(path, len(starts), place, "the checksum of the length is wrong")
            starts.append(place + 12)
            lengths.append(int.from_bytes(head[:8], "little"))
            place += 16 + lengths[-1]
        if place > size:
            raise _broken(path, len(starts) - 1, starts[-1] - 12, "the file ends within the record")
        if place:
            checksums.append(os.pread(file.fileno(), 4, place - 4))
    return Index(
        os.fspath(path),
        np.asarray(starts, np.int64),
        np.asarray(lengths, np.int64),
        np.frombuffer(b"".join(checksums), "<u4"),
    )


def read_at(places: Index, positions: Sequence[int]) -> list[bytes]:
    """The records at these positions, in this order, with their checksums checked.

    May be called from several threads at once.

    Raises:
      UserError: the file cannot be read, is cut off, or a checksum does not fit its record.
    """
    records: list[bytes] = []
    with _open(places.path) as file:
        for first, last in _runs(places, positions):
            begin = int(places.starts[first])
            end = int(places.starts[last] + places.lengths[last]) + 4
            content = _read_range(file.fileno(), begin, end)
            for record in range(first, last + 1):
                start = int(places.starts[record]) - begin
                stop = start + int(places.lengths[record])
                data, stored = content[start:stop], content[stop : stop + 4]
                what = ""
                if len(stored) < 4:
                    what = "the file ends within the record"
                elif _masked(data) != stored:
                    what = "the checksum of the data is wrong"
                if what:
                    raise _broken(places.path, record, begin + start - 12, what)
                records.append(data)
    return records


def _open(path: str | os.PathLike[str]) -> io.FileIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise UserError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from error


def _runs(places: Index, positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of neighbouring records that are read at once, some megabytes at most."""
    start = 0
    while start < len(positions):
        first = last = positions[start]
        limit = int(places.starts[first]) + _READ
        start += 1
        while start < len(positions) and positions[start] == last + 1:
            if places.starts[last + 1] + places.lengths[last + 1] > limit:
                break
            last += 1
            start += 1
        yield first, last


def _read_range(descriptor: int, begin: int, end: int) -> bytes:
    """The bytes from `begin` to `end`, fewer where the file ends before."""
    parts = []
    while begin < end and (part := os.pread(descriptor, end - begin, begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


def _broken(path: str | os.PathLike[str], record: int, place: int, what: str) -> UserError:
    return UserError(
        f"{os.fspath(path)!r} is not a whole TFRecord file: record {record} at byte {place}: "
        f"{what}; prepare the data set again"
    )


def _masked(data: bytes) -> bytes:
    """The masked CRC-32C of some data, as it is stored."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def parse(record: bytes) -> Any:
    """The features of an example by name, for `values`.

    Raises:
      ValueError: the record is something else.
    """
    from tensorflow_datasets.proto import tf_example_pb2  # Takes half a second, once.

    try:
        return tf_example_pb2.Example.FromString(record).features.feature
    except Exception as error:  # Protocol buffers have exceptions of their own.
        raise ValueError(f"is not an example: {first_line(error)}") from error


def values(features: Any, name: str, kind: str) -> Sequence[Any]:
    """A feature's values; none where it is missing or empty.

    Args:
      features: from `parse`.
      name: of the feature.
      kind: "bytes_list", "int64_list" or "float_list".

    Raises:
      ValueError: its values are of another kind.
    """
    if name not in features:
        return ()
    found = features[name].WhichOneof("kind")
    if found not in (kind, None):
        raise ValueError(f"has {name} as a {found}; expected a {kind}")
    result: Sequence[Any] = getattr(features[name], kind).value
    return result
