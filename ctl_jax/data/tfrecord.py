"""TFRecord files without TensorFlow: framing and checksums.

A record is its length (uint64), the masked CRC-32C of those 8 bytes (uint32), the data, and the
masked CRC-32C of the data (uint32), all little-endian.
https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import functools
import os
import struct
from collections.abc import Sequence

import numpy as np

from ctl_jax.errors import UserError

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed.
_BLOCK = 256  # Bytes that are checked in one column of a batch.


def read(path: str | os.PathLike[str]) -> list[bytes]:
    """All records of a file.

    Raises:
      UserError: the file is cut off, or a checksum does not fit what it covers.
    """
    with open(path, "rb") as file:
        content = file.read()
    starts: list[int] = []
    lengths: list[int] = []
    place = 0
    while place < len(content):
        if place + 12 > len(content):
            raise _broken(path, len(starts), place, "the file ends within a record's length")
        (length,) = struct.unpack_from("<Q", content, place)
        # Unchecked, a wrong length would send the reader anywhere.
        if _masked(_crc_of_length(content[place : place + 8])) != _word(content, place + 8):
            raise _broken(path, len(starts), place, "the checksum of the length is wrong")
        if place + 16 + length > len(content):
            raise _broken(path, len(starts), place, "the file ends within the record")
        starts.append(place + 12)
        lengths.append(length)
        place += 16 + length
    records = [content[a : a + n] for a, n in zip(starts, lengths, strict=True)]
    for index, crc in enumerate(crc32c(records)):
        end = starts[index] + lengths[index]
        if _masked(int(crc)) != _word(content, end):
            raise _broken(path, index, starts[index] - 12, "the checksum of the data is wrong")
    return records


def _broken(path: str | os.PathLike[str], record: int, place: int, what: str) -> UserError:
    return UserError(
        f"{os.fspath(path)!r} is not a whole TFRecord file: record {record} at byte {place}: "
        f"{what}; prepare the data set again"
    )


def _word(content: bytes, place: int) -> int:
    (word,) = struct.unpack_from("<I", content, place)
    return int(word)


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_length(data: bytes) -> int:
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
    # A record of less than four bytes cannot take all of the inverted start.
    if lengths.min() < 4:
        return np.asarray([_crc_of_length(record) for record in records], np.uint32)
    result = np.zeros(count, np.uint32)
    # Records of about the same length are padded together, some megabytes at a time.
    order = np.argsort(lengths, kind="stable")
    budget = 1 << 23
    start = 0
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
