"""Image files to uint8 arrays of one size."""

import contextlib
import functools
import io
import struct
import threading
import warnings
import zlib
from typing import Final

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

# Changes with anything that changes a pixel: caches are told apart by it.
VERSION = 1
# Larger images are not decoded: Pillow's own limit, above which it only warns. 268 MB as RGB.
MAX_PIXELS = 89_478_485
# Larger ones are decoded one at a time, whatever the number of threads.
_LARGE_PIXELS = 1 << 24
_large = threading.Lock()
# A JPEG is decoded at a half, a quarter or an eighth of its size where what is left is at least so
# many times as large as wanted. Differences are then below those between bilinear and bicubic
# resizing (measured: 1.5 of 255 at most, 39 dB).
_DRAFT_MARGIN = 1.5

_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks of a PNG that say nothing of its pixels: a profile, which is ignored, and texts.
_NO_PIXELS = {b"iCCP", b"iTXt", b"tEXt", b"zTXt"}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats of Pillow but PostScript: reading that would run a program that came as data."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


# Pillow warns of an image above its limit where it should refuse it.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


# How images are resized unless something else is asked for: as all that is trained here.
INTERPOLATION: Final = "bilinear"


def decode(content: bytes, size: int, interpolation: str = INTERPOLATION) -> np.ndarray:
    """An encoded image as RGB with its short side resized to `size`, cropped to its middle.

    The middle square is cut out before it is resized, which is the same and cheaper. Reducing is
    antialiased. An orientation in EXIF is applied; of an animation the first picture counts. What
    is not RGB with 8 bits a channel becomes so:

    - Grey becomes three equal channels.
    - Transparency is dropped, and the colours below it shown, as Pillow and TensorFlow have it,
      and so the benchmark.
    - 16 bits lose the lower eight. Floats in 0 .. 1 are scaled by 255. Other floats, and integers
      of 32 bits, have no range of their own: their least value becomes 0 and their largest 255.
    - CMYK is converted without a colour profile, and RGB profiles are ignored.

    Args:
      content: a file in any format that Pillow reads, but PostScript.
      size: S, in pixels.
      interpolation: a name of Pillow's filters, "bilinear", "bicubic", ...

    Returns:
      uint8 [S, S, 3].

    Raises:
      OSError: not an image, a damaged one, or one of more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(_readable(content)), formats=_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError(f"image of {image.width} x {image.height} pixels: too large")
            return np.asarray(_read(image, size, interpolation))
    except UnidentifiedImageError as error:
        raise OSError("not an image in a format that Pillow reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise OSError(f"too large; expected at most {MAX_PIXELS} pixels: {error}") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # Of damaged files Pillow's plugins raise whatever their parsing came upon: SyntaxError,
        # ValueError, struct.error, IndexError, zlib.error, ...
        raise OSError(f"damaged image: {error or type(error).__name__}") from error


def short_side(content: bytes) -> int:
    """The shorter side of an encoded image, in pixels; its pixels are not decoded.

    Raises:
      OSError: not an image, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(_readable(content)), formats=_formats()) as image:
            return min(image.size)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"damaged image: {error or type(error).__name__}") from error


def resize(pixels: np.ndarray, size: int, interpolation: str = INTERPOLATION) -> np.ndarray:
    """Pixels uint8 [H, W, 3] with their short side resized to `size`, cropped to their middle.

    As `decode` does it, but for JPEGs that it decodes at a fraction of their size.

    Args:
      pixels: RGB.
      size: S, in pixels.
      interpolation: as for `decode`.

    Returns:
      uint8 [S, S, 3].
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(_square(image, image.size, size, interpolation))


def _readable(content: bytes) -> bytes:
    """An encoded image as Pillow reads it: of a PNG, without its texts and its colour profile.

    Pillow refuses a whole PNG for a text or profile of more than a megabyte. And loading one, it
    does not look at the checksums of its pixels; its `verify` does, but refuses files that lack no
    pixels, and only their end. https://www.w3.org/TR/png-3/#5DataRep

    Raises:
      OSError: the CRC-32 of a chunk of a PNG is wrong.
    """
    if not content.startswith(_PNG):
        return content
    view, place, kept = memoryview(content), len(_PNG), [content[: len(_PNG)]]
    begin = place
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        if zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise OSError(f"damaged PNG: the checksum of chunk {kind!r} at byte {place} is wrong")
        if kind in _NO_PIXELS:
            kept.append(content[begin:place])
            begin = end + 4
        if kind == b"IEND":
            break
        place = end + 4
    return content if begin == len(_PNG) else b"".join([*kept, content[begin:]])


def _read(image: Image.Image, size: int, interpolation: str) -> Image.Image:
    """Decodes what Pillow has opened."""
    reduced = image.draft(None, (int(size * _DRAFT_MARGIN),) * 2)
    large = image.width * image.height > _LARGE_PIXELS
    with _large if large else contextlib.nullcontext():
        image.load()
        extent = image.size if reduced is None else reduced[1][2:]
        small = _square(_eight_bits(image), extent, size, interpolation)
    turn = _TURNS.get(_orientation(image))
    return small if turn is None else small.transpose(turn)


def _square(
    image: Image.Image, extent: tuple[float, float], size: int, interpolation: str
) -> Image.Image:
    """The middle square at the wanted size, as RGB.

    Args:
      image: as `_eight_bits` has it, or a mode that Pillow converts and resizes.
      extent: its width and height; less than those of its pixels where a JPEG was decoded at a
        fraction of a size that is no multiple.
      size: S.
      interpolation: as for `decode`.
    """
    # A grey one is resized as it is: a third of the work.
    if image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    if not image.size == (size, size) == extent:
        side = min(extent)
        left, top = (extent[0] - side) / 2, (extent[1] - side) / 2
        box = (left, top, left + side, top + side)
        how = Image.Resampling[interpolation.upper()]
        image = image.resize((size, size), how, box, reducing_gap=2.0)
    return image.convert("RGB") if image.mode == "L" else image


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in a mode that Pillow converts to RGB as it should be."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I" and image.format == "PPM":
        # The one format that says how large its integers get; Pillow scales them to 16 bits.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image, np.float64)))
    if image.mode in ("La", "RGBa"):
        return image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode == "P" and "transparency" in image.info:
        # Pillow warns where it is asked to drop it at once.
        return image.convert("RGBA")
    return image


def _stretch(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise OSError("pixels that are not finite numbers")
    if low < 0 or high > 1:
        values = (values - low) / (high - low if high > low else 1)
    return np.rint(values * 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Damaged EXIF does not make a damaged picture.
        return 1
