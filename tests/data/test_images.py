"""Image files to arrays of one size."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ctl_jax.data import images


def encode(image: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has hardly a pixel."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(9)), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, -1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "QOI"])
def test_same_size_is_unchanged(picture: np.ndarray, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    # A GIF has 256 colours.
    image = picture // 85 * 85 if kind == "GIF" else picture
    np.testing.assert_array_equal(images.decode(encode(image, kind, **options), 20), image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "BMP"])
def test_grey_becomes_three_equal_channels(grey: np.ndarray, kind: str) -> None:
    np.testing.assert_array_equal(images.decode(encode(grey, kind), 20), three(grey))


def test_black_and_white_is_black_and_white(grey: np.ndarray) -> None:
    content = encode(Image.fromarray(grey > 127))
    np.testing.assert_array_equal(images.decode(content, 20), three((grey > 127) * np.uint8(255)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped(picture: np.ndarray, mode: str, kind: str) -> None:
    alpha = picture[..., :1][::-1]
    whole = np.concatenate([picture[..., : len(mode) - 1], alpha], -1)
    expected = picture if mode == "RGBA" else three(picture[..., 0])
    np.testing.assert_array_equal(images.decode(encode(whole, kind), 20), expected)


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(0, 256, 64))])
def test_palette_becomes_its_colours(grey: np.ndarray, transparency: object) -> None:
    indices = grey % 4
    palette = np.asarray([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 8, 7]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(images.decode(encode(image, **options), 20), palette[indices])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_lose_the_lower_eight(grey: np.ndarray, kind: str) -> None:
    deep = grey.astype(np.uint16) * 256 + 77
    np.testing.assert_array_equal(images.decode(encode(deep, kind), 20), three(grey))


def test_floats_up_to_one_are_scaled_by_255(grey: np.ndarray) -> None:
    # The range that they use does not matter.
    content = encode((grey // 2 / np.float32(255)).astype(np.float32), "TIFF")
    np.testing.assert_array_equal(images.decode(content, 20), three(grey // 2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize(("factor", "offset"), [(1, 0), (1000, -70_000), (3, 5)])
def test_values_without_a_range_are_stretched(
    grey: np.ndarray, dtype: type, factor: int, offset: int
) -> None:
    grey[0, :2] = 0, 255
    content = encode((grey.astype(np.int64) * factor + offset).astype(dtype), "TIFF")
    np.testing.assert_array_equal(images.decode(content, 20), three(grey))


def test_equal_values_without_a_range_are_black() -> None:
    content = encode(np.full((20, 20), 700, np.int32), "TIFF")
    assert images.decode(content, 20).max() == 0


def test_values_that_are_not_finite_are_refused() -> None:
    content = encode(np.full((20, 20), np.nan, np.float32), "TIFF")
    with pytest.raises(OSError, match="not finite"):
        images.decode(content, 20)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_is_converted(kind: str) -> None:
    ink = np.zeros((20, 20, 4), np.uint8)
    ink[:, :, 0] = 255  # Cyan.
    content = encode(Image.frombytes("CMYK", (20, 20), ink.tobytes()), kind)
    assert abs(images.decode(content, 20).astype(int) - [0, 255, 255]).max() <= 2


# Where a corner of the picture as it should be seen comes to be in the file: rows from the top
# or the bottom, columns from the left or the right, and both exchanged. EXIF 2.32, table 6.
SEEN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [*SEEN, 9])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    stored = np.zeros((20, 20, 3), np.uint8)
    stored[:10, :10], stored[:10, 10:], stored[10:, :10] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(stored, kind, exif=exif, quality=100)
    seen = SEEN.get(orientation, SEEN[1])(stored)
    assert abs(images.decode(content, 20).astype(int) - seen)[5::10, 5::10].max() <= 16


def test_damaged_exif_does_not_matter(picture: np.ndarray) -> None:
    content = encode(picture, "PNG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff")
    np.testing.assert_array_equal(images.decode(content, 20), picture)


def test_of_an_animation_the_first_picture_counts(picture: np.ndarray) -> None:
    later = Image.fromarray(255 - picture)
    content = encode(picture, "PNG", save_all=True, append_images=[later])
    np.testing.assert_array_equal(images.decode(content, 20), picture)


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (20, 21), (21, 20)])
def test_the_middle_is_cut_out(picture: np.ndarray, height: int, width: int) -> None:
    wide = np.zeros((height, width, 3), np.uint8)
    top, left = (height - 20) // 2, (width - 20) // 2
    wide[top : top + 20, left : left + 20] = picture
    result = images.decode(encode(wide), 20)
    if (height - width) % 2 == 0:
        np.testing.assert_array_equal(result, picture)
    assert result.shape == (20, 20, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_one_pixel_wide(shape: tuple[int, int]) -> None:
    image = np.zeros(shape, np.uint8)
    image[(shape[0] - 1) // 2 : shape[0] // 2 + 1, (shape[1] - 1) // 2 : shape[1] // 2 + 1] = 200
    np.testing.assert_array_equal(images.decode(encode(image), 8), np.full((8, 8, 3), 200))


def test_short_side_is_resized_before_the_crop() -> None:
    # Left half black, right half white, twice as wide as high: the middle holds the border.
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 40:] = 255
    result = images.decode(encode(wide), 10)
    assert result[:, :4].max() == 0
    assert result[:, 6:].min() == 255


@pytest.mark.parametrize("side", [64, 1000])
def test_reducing_is_antialiased(side: int) -> None:
    checks = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    result = images.decode(encode(checks), 16).astype(int)
    assert abs(result[2:-2, 2:-2] - 127).max() <= 3


@pytest.mark.parametrize("shape", [(224, 224), (300, 224), (193, 450), (640, 427), (1500, 2000)])
def test_a_jpeg_decoded_at_a_fraction_is_about_the_same(shape: tuple[int, int]) -> None:
    """As close as two usual ways of resizing are."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8))
    content = encode(small.resize(shape[::-1], Image.Resampling.BICUBIC), "JPEG", quality=90)
    with Image.open(io.BytesIO(content)) as image:
        whole = encode(image.convert("RGB"))
    difference = images.decode(content, 64).astype(int) - images.decode(whole, 64)
    assert abs(difference).mean() < 1.5
    # And not moved to a side: a shift of half a pixel would be far above it.
    assert abs(difference.mean()) < 0.5
    assert 10 * np.log10(255**2 / np.square(difference).mean()) > 39


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("keep", [0.95, 0.5, 0.1, 0.0])
def test_a_file_that_is_cut_off_is_refused(picture: np.ndarray, kind: str, keep: float) -> None:
    content = encode(np.tile(picture, (4, 4, 1)), kind)
    with pytest.raises(OSError, match=r"."):
        images.decode(content[: int(len(content) * keep)], 20)


def test_a_wrong_byte_in_a_png_never_changes_the_picture(picture: np.ndarray) -> None:
    content = bytearray(encode(picture))
    refused = []
    for place in range(8, len(content)):
        content[place] ^= 1
        try:
            np.testing.assert_array_equal(images.decode(bytes(content), 20), picture)
        except OSError:
            refused.append(place)
        content[place] ^= 1
    # All but some bytes of lengths, which Pillow does without.
    assert len(refused) > 0.99 * len(content) - 8


@pytest.mark.parametrize(
    ("place", "chunk"), [(20, "b'IHDR' at byte 8"), (50, "b'IDAT' at byte 33")]
)
def test_a_wrong_checksum_in_a_png_is_named(grey: np.ndarray, place: int, chunk: str) -> None:
    content = bytearray(encode(grey))
    content[place] ^= 1
    with pytest.raises(OSError, match=f"the checksum of chunk {chunk} is wrong"):
        images.decode(bytes(content), 20)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP", b"tEXt"])
@pytest.mark.parametrize("behind", [33, -12])
def test_texts_and_profiles_of_a_png_do_not_matter(
    picture: np.ndarray, kind: bytes, behind: int
) -> None:
    """Of any length, also wrong ones, before and behind the pixels; Pillow refuses such files."""
    whole = encode(picture)
    long = b"a\0" + b"\0" * (kind == b"zTXt" or kind == b"iCCP") + zlib.compress(bytes(1 << 24))
    for text in (long, b"", b"a\0\xff\xff"):
        chunk = kind + text
        held = struct.pack(">I", len(text)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        content = whole[:behind] + 2 * held + whole[behind:]
        np.testing.assert_array_equal(images.decode(content, 20), picture)
        assert images.short_side(content) == 20


def test_a_png_that_lacks_only_its_end_is_read(picture: np.ndarray) -> None:
    np.testing.assert_array_equal(images.decode(encode(picture)[:-12], 20), picture)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(OSError, match=r"."):
        images.decode(content, 8)


def test_noise_in_a_file_never_raises_anything_else(picture: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO", "TGA", "PCX", "SGI"):
        whole = np.frombuffer(encode(picture, kind), np.uint8)
        for _ in range(20):
            content = whole.copy()
            places = rng.integers(0, len(content), 8)
            content[places] = rng.integers(0, 256, 8)
            with contextlib.suppress(OSError):
                assert images.decode(content.tobytes(), 8).shape == (8, 8, 3)


def _bmp_header(width: int, height: int) -> bytes:
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + sizes


@pytest.mark.parametrize(
    "content",
    [png_header(50_000, 50_000), _bmp_header(50_000, 50_000), b"P5 50000 50000 255 "],
    ids=["png", "bmp", "pgm"],
)
def test_an_image_of_50000_by_50000_is_refused(content: bytes) -> None:
    with pytest.raises(OSError, match=r"too large.*89478485.*2500000000"):
        images.decode(content, 64)


@pytest.mark.parametrize("content", [png_header(9_460, 9_460), _bmp_header(9_460, 9_460)])
def test_so_is_one_just_above_the_limit(content: bytes) -> None:
    """Pillow only warns of it."""
    with pytest.raises(OSError, match=r"too large.*89478485"):
        images.decode(content, 64)


def test_a_large_image_is_read(monkeypatch: pytest.MonkeyPatch, picture: np.ndarray) -> None:
    """The way of images that are decoded one at a time."""
    monkeypatch.setattr(images, "_LARGE_PIXELS", 100)
    np.testing.assert_array_equal(images.decode(encode(picture), 20), picture)


def test_postscript_is_not_run() -> None:
    with pytest.raises(OSError, match="not an image"):
        images.decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n", 8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_pixels_are_resized_as_files_are(interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 47, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    found = images.resize(pixels, 16, interpolation)
    np.testing.assert_array_equal(found, images.decode(file.getvalue(), 16, interpolation))
    assert (found == images.resize(pixels, 16)).all() == (interpolation == images.INTERPOLATION)
    assert images.resize(found, 16) is found


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_short_side_of_an_image(kind: str) -> None:
    for size in ((30, 20), (20, 40)):
        assert images.short_side(encode(Image.new("RGB", size), kind)) == 20


def test_the_short_side_is_told_without_the_pixels() -> None:
    assert images.short_side(png_header(3000, 4000)) == 3000
    for content in (b"", b"no image"):
        with pytest.raises(OSError, match=r"image"):
            images.short_side(content)
