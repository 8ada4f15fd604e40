"""TFRecord files: checksums against published values, damage found and named."""

import pathlib
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.data import tfrecord
from ctl_jax.errors import UserError


@pytest.mark.parametrize(
    ("data", "crc"),
    # RFC 3720, appendix B.4.
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_published_checksums(data: bytes, crc: int) -> None:
    assert tfrecord.crc32c([data]).tolist() == [crc]


@hypothesis.given(st.lists(st.integers(0, 1500), max_size=8), st.integers(0, 2**32))
@hypothesis.settings(max_examples=40, deadline=None)
def test_checksums_of_records_of_all_lengths(
    reference_crc32c: Callable[[bytes], int], lengths: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    records = [rng.bytes(length) for length in lengths]
    assert tfrecord.crc32c(records).tolist() == [reference_crc32c(record) for record in records]


def test_checksums_around_block_and_batch_borders(
    reference_crc32c: Callable[[bytes], int],
) -> None:
    block = tfrecord._BLOCK
    rng = np.random.default_rng(0)
    lengths = [block - 1, block, block + 1, 2 * block, 5, (1 << 23) // 3, (1 << 23) // 3, 1 << 23]
    records = [rng.bytes(length) for length in lengths]
    alone = [int(tfrecord.crc32c([record])[0]) for record in records]
    assert tfrecord.crc32c(records).tolist() == alone
    assert alone[:5] == [reference_crc32c(record) for record in records[:5]]


def test_reads_what_was_written(frame: Callable[[bytes], bytes], tmp_path: pathlib.Path) -> None:
    records = [b"", b"a", b"bcd" * 100, bytes(1000)]
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(map(frame, records)))
    assert tfrecord.read(path) == records
    path.write_bytes(b"")
    assert tfrecord.read(path) == []


def test_damage_is_named(frame: Callable[[bytes], bytes], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.tfrecord"
    first, second = frame(b"first record"), frame(b"second record")
    whole = first + second
    path.write_bytes(whole)
    assert len(tfrecord.read(path)) == 2
    place = len(first)
    damages = [
        (whole[:-1], 1, place, "ends within the record"),
        (whole[: place + 12], 1, place, "ends within the record"),
        (whole[: place + 3], 1, place, "ends within a record's length"),
        (whole + b"\0", 2, len(whole), "ends within a record's length"),
        (_flip(whole, place + 2), 1, place, "checksum of the length"),
        (_flip(whole, place + 9), 1, place, "checksum of the length"),
        (_flip(whole, place + 15), 1, place, "checksum of the data"),
        (_flip(whole, len(whole) - 1), 1, place, "checksum of the data"),
        (_flip(whole, 13), 0, 0, "checksum of the data"),
    ]
    for content, record, byte, what in damages:
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            tfrecord.read(path)
        message = str(error.value)
        assert "\n" not in message
        assert str(path) in message
        assert f"record {record} at byte {byte}" in message
        assert what in message


def _flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]
