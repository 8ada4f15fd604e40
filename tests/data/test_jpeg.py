"""The short way through plain JPEG files, against Pillow's own."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ctl_jax.data import jpeg


def encode(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def noise(mode: str, size: tuple[int, int], seed: int = 0) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, size[0] * size[1] * channels)
    return Image.frombytes(mode, size, values.astype(np.uint8).tobytes())


@given(
    mode=st.sampled_from(["L", "RGB"]),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    least=st.integers(1, 100),
    quality=st.integers(1, 95),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    comment=st.sampled_from([b"", b"some words"]),
)
def test_plain_files_are_read_as_pillow_reads_them(mode, size, least, **options):
    content = encode(noise(mode, size), **options)
    found, extent = jpeg.read(content, least, 10_000)
    with Image.open(io.BytesIO(content)) as image:
        _, box = image.draft(None, (least, least))
        image.load()
        assert (found.mode, found.size, extent) == (mode, image.size, box[2:])
        np.testing.assert_array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize(("least", "side"), [(20, 20), (21, 40), (40, 40), (41, 80), (200, 160)])
def test_both_sides_stay_as_large_as_wanted(least: int, side: int) -> None:
    content = encode(noise("RGB", (160, 320)))
    image, extent = jpeg.read(content, least, 1 << 20)
    assert image.size == extent == (side, 2 * side)


def test_a_size_that_is_no_multiple_keeps_its_fraction() -> None:
    image, extent = jpeg.read(encode(noise("L", (161, 323))), 40, 1 << 20)
    assert image.size == (41, 81)
    assert extent == (40.25, 80.75)


def test_other_kinds_are_left_to_pillow() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert jpeg.read(encode(noise("CMYK", (9, 9))), 4, 100) is None
    assert jpeg.read(encode(noise("RGB", (9, 9)), exif=exif), 4, 100) is None
    assert jpeg.read(encode(noise("RGB", (9, 9)), xmp=b"<x:xmpmeta/>"), 4, 100) is None


def test_so_are_large_ones() -> None:
    content = encode(noise("RGB", (80, 80)))
    assert jpeg.read(content, 4, 6400) is not None
    assert jpeg.read(content, 4, 6399) is None


def test_a_file_that_is_cut_off_anywhere_is_left_to_pillow() -> None:
    content = encode(noise("RGB", (9, 9)))
    for end in range(3, len(content) - 2):
        assert jpeg.read(content[:end], 4, 100) is None
