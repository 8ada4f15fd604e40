"""The short way through plain PNG files, against Pillow's own."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ctl_jax.data import png


@given(
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    level=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_plain_files_are_read_as_pillow_reads_them(mode, width, height, level, seed):
    shape = (height, width, len(mode)) if mode != "L" else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    content = _encode(Image.fromarray(pixels), compress_level=level)
    image = png.read(content, 1600)
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_pixels_in_several_chunks_are_read() -> None:
    # Pillow's chunks are of 64 KiB.
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    content = _encode(Image.fromarray(pixels))
    assert content.count(b"IDAT") > 2
    np.testing.assert_array_equal(np.asarray(png.read(content, 90_000)), pixels)


@pytest.mark.parametrize("mode", ["1", "P", "I;16"])
def test_other_kinds_are_left_to_pillow(mode: str) -> None:
    assert png.read(_encode(Image.new(mode, (9, 9))), 100) is None


def test_so_are_files_that_may_tell_of_an_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert png.read(_encode(Image.new("L", (9, 9)), exif=exif), 100) is None


def test_so_are_large_ones() -> None:
    content = _encode(Image.new("L", (9, 9)))
    assert png.read(content, 81).size == (9, 9)
    assert png.read(content, 80) is None


def test_so_are_animations() -> None:
    later = [Image.new("L", (9, 9), 7)]
    content = _encode(Image.new("L", (9, 9)), save_all=True, append_images=later)
    assert png.read(content, 100) is None


@pytest.mark.parametrize("place", [20, 50])
def test_a_wrong_checksum_is_named(place: int) -> None:
    content = bytearray(_encode(Image.new("L", (9, 9))))
    content[place] ^= 1
    name, start = ("IHDR", 8) if place == 20 else ("IDAT", 33)
    with pytest.raises(OSError, match=f"checksum of chunk b'{name}' at byte {start} is wrong"):
        png.read(bytes(content), 100)


def _encode(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()
