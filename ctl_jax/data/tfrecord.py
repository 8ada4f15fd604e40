"""TFRecord files without TensorFlow: framing, checksums, and reading at any place.

A record is its length (uint64), the masked CRC-32C of those 8 bytes (uint32), the data, and the
masked CRC-32C of the data (uint32), all little-endian.
https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import dataclasses
import functools
import io
import os
from collections.abc import Iterator, Sequence

import numpy as np

from ctl_jax.errors import UserError

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed.
_BLOCK = 256  # Bytes that are checked in one column of a batch.
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
    heads: list[bytes] = []
    starts: list[int] = []
    checksums: list[bytes] = []
    what = None
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        place = 0
        while place < size:
            # In front of it lies the checksum of the record before, read along with it.
            before = 4 if place else 0
            block = os.pread(file.fileno(), 12 + before, place - before)
            checksums.append(block[:before])
            head = block[before:]
            if len(head) < 12:
                what = "the file ends within a record's length"
                break
            heads.append(head)
            starts.append(place + 12)
            place += 16 + int.from_bytes(head[:8], "little")
        if 0 < place == size:
            checksums.append(os.pread(file.fileno(), 4, place - 4))
    table = np.frombuffer(b"".join(heads), np.dtype([("length", "<u8"), ("crc", "<u4")]))
    wrong = np.flatnonzero(_masked(_crc_of_lengths(table["length"])) != table["crc"])
    # A wrong length has sent the reader anywhere: what was found from there on does not count.
    if wrong.size:
        record = int(wrong[0])
        raise _broken(path, record, starts[record] - 12, "the checksum of the length is wrong")
    if what is not None:
        raise _broken(path, len(starts), place, what)
    if place > size:
        raise _broken(path, len(starts) - 1, starts[-1] - 12, "the file ends within the record")
    return Index(
        os.fspath(path),
        np.asarray(starts, np.int64),
        table["length"].astype(np.int64),
        np.frombuffer(b"".join(checksums), "<u4"),
    )


def read_at(places: Index, positions: Sequence[int]) -> list[bytes]:
    """The records at these positions, in this order, with their checksums checked.

    May be called from several threads at once.

    Raises:
      UserError: the file cannot be read, is cut off, or a checksum does not fit its record.
    """
    records: list[bytes] = []
    words: list[int] = []
    with _open(places.path) as file:
        for first, last in _runs(places, positions):
            begin = int(places.starts[first])
            end = int(places.starts[last] + places.lengths[last]) + 4
            content = _read_range(file.fileno(), begin, end)
            for record in range(first, last + 1):
                start = int(places.starts[record]) - begin
                stop = start + int(places.lengths[record])
                if stop + 4 > len(content):
                    place = begin + start - 12
                    raise _broken(places.path, record, place, "the file ends within the record")
                records.append(content[start:stop])
                words.append(int.from_bytes(content[stop : stop + 4], "little"))
    wrong = np.flatnonzero(_masked(crc32c(records)) != np.asarray(words, np.uint32))
    if wrong.size:
        record = positions[int(wrong[0])]
        place = int(places.starts[record]) - 12
        raise _broken(places.path, record, place, "the checksum of the data is wrong")
    return records


def read(path: str | os.PathLike[str]) -> list[bytes]:
    """All records of a file.

    Raises:
      UserError: the file cannot be read, is cut off, or a checksum does not fit what it covers.
    """
    places = index(path)
    return read_at(places, range(len(places)))


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


def _masked(crc: np.ndarray) -> np.ndarray:
    """What is stored of CRCs, uint32 [N]."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def _crc_of_lengths(lengths: np.ndarray) -> np.ndarray:
    """CRC-32C of the eight bytes of each length, uint32 [N]."""
    words = np.ascontiguousarray(lengths, "<u8").view("<u2").reshape(-1, 4)
    crc = np.full(len(words), 0xFFFFFFFF, np.uint32)
    for column in words.T:
        crc = (crc >> 16) ^ _word_table().take(crc.astype(np.uint16) ^ column)
    return crc ^ np.uint32(0xFFFFFFFF)


def _crc_of_few(data: bytes) -> int:
    """CRC-32C of a few bytes, one by one."""
    table = _byte_table_list()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def crc32c(records: Sequence[bytes]) -> np.ndarray:
    """CRC-32C of many byte strings at once, [N] uint32.

    The CRC is linear over GF(2). Records are cut into blocks; all blocks are taken through the
    table together, two bytes a step; then each record's blocks are joined, the CRC of a
    concatenation being that of its head moved on by the tail's length, plus that of its tail.
    Leading zeros do not change a CRC that starts from zero, so records are padded in front; the
    usual start from ones is the same as inverting a record's first four bytes.
    """
    count = len(records)
    if not count:
        return np.zeros(0, np.uint32)
    lengths = np.asarray([len(record) for record in records])
    result = np.zeros(count, np.uint32)
    # A record of less than four bytes cannot take all of the inverted start.
    for short in np.flatnonzero(lengths < 4).tolist():
        result[short] = _crc_of_few(records[short])
    # Records of about the same length are padded together, some megabytes at a time.
    order = np.argsort(lengths, kind="stable")
    budget = 1 << 23
    start = int(np.count_nonzero(lengths < 4))
    while start < count:
        stop = start + 1
        while stop < count and (stop + 1 - start) * (lengths[order[stop]] + _BLOCK) <= budget:
            stop += 1
        chosen = order[start:stop]
        result[chosen] = _crc_batch([records[i] for i in chosen])
        start = stop
    return result


def _crc_batch(records: Sequence[bytes]) -> np.ndarray:
    count = len(records)
    blocks = -(-max(map(len, records)) // _BLOCK)
    width = blocks * _BLOCK
    padded = np.zeros((count, width), np.uint8)
    for row, record in zip(padded, records, strict=True):
        row[width - len(record) :] = np.frombuffer(record, np.uint8)
        row[width - len(record) : width - len(record) + 4] ^= 0xFF
    words = padded.view("<u2").reshape(count * blocks, _BLOCK // 2).T
    table = _word_table()
    crc = np.zeros(count * blocks, np.uint32)
    for column in np.ascontiguousarray(words):
        crc = (crc >> 16) ^ table.take(crc.astype(np.uint16) ^ column)
    parts = crc.reshape(count, blocks).T
    joined = parts[0]
    for part in parts[1:]:
        joined = _move_on(joined) ^ part
    return joined ^ np.uint32(0xFFFFFFFF)


@functools.cache
def _byte_table_list() -> list[int]:
    """CRC-32C of each byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return [int(entry) for entry in table]


@functools.cache
def _word_table() -> np.ndarray:
    """CRC-32C of each pair of bytes, [65536]."""
    table = np.asarray(_byte_table_list(), np.uint32)
    crc = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(2):
        crc = (crc >> 8) ^ table[crc & 0xFF]
    return crc


@functools.cache
def _block_tables() -> np.ndarray:
    """What each byte of a CRC becomes after a block of zeros, [4, 256]."""
    table = _word_table()
    place = np.arange(4, dtype=np.uint32)[:, None] * 8
    crc = np.arange(256, dtype=np.uint32)[None] << place
    for _ in range(_BLOCK // 2):
        crc = (crc >> 16) ^ table[crc & 0xFFFF]
    return crc


def _move_on(crc: np.ndarray) -> np.ndarray:
    """The CRCs after a block of zeros."""
    tables = _block_tables()
    result = tables[0][crc & 0xFF]
    for byte in range(1, 4):
        result = result ^ tables[byte][(crc >> np.uint32(8 * byte)) & 0xFF]
    return result
