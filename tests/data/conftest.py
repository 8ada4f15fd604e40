"""What several tests of this room share: data that is made once, and TFRecord framing."""

import os
import pathlib
import struct
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def embedded_dir() -> pathlib.Path:
    """The test run's folder for embedded data, filled as tests ask for it."""
    return pathlib.Path(os.environ["CTL_JAX_DATA"])


@pytest.fixture(scope="session")
def reference_crc32c() -> Callable[[bytes], int]:
    """CRC-32C bit by bit, from the polynomial."""

    def crc32c(data: bytes) -> int:
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        return crc ^ 0xFFFFFFFF

    return crc32c


@pytest.fixture(scope="session")
def frame(reference_crc32c: Callable[[bytes], int]) -> Callable[[bytes], bytes]:
    """A record as TensorFlow writes it."""

    def masked(part: bytes) -> bytes:
        crc = reference_crc32c(part)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    def framed(data: bytes) -> bytes:
        length = struct.pack("<Q", len(data))
        return length + masked(length) + data + masked(data)

    return framed
