"""JPEG files: a short way through the plain ones.

A JPEG is a sequence of segments: 0xFF and a marker, and mostly a length (uint16, big-endian, itself
included) and data; pixels follow the segment SOS. https://www.w3.org/Graphics/JPEG/itu-t81.pdf, B
"""

import struct

from PIL import Image

START = b"\xff\xd8\xff"

_MODES = {1: "L", 3: "RGB"}
# Start of frame: baseline, extended and progressive, all Huffman-coded.
_FRAMES = (0xC0, 0xC1, 0xC2)
_START_OF_SCAN = 0xDA
_EXIF_OR_XMP = 0xE1
# APP0 to APP15, comments, Huffman and quantisation tables, the restart interval.
_PLAIN = frozenset((*range(0xE0, 0xF0), 0xFE, 0xC4, 0xDB, 0xDD)) - {_EXIF_OR_XMP}


def read(
    content: bytes, least: int, max_pixels: int
) -> tuple[Image.Image, tuple[float, float]] | None:
    """A plain JPEG: grey or three channels of 8 bits, nothing said of an orientation.

    It is decoded at a half, a quarter or an eighth of its size where both sides stay at least
    `least` pixels; that is cheap, since the higher frequencies are left out. Pillow's `draft` does
    the same in more steps.

    Args:
      content: begins with `START`.
      least: pixels.
      max_pixels: larger images are left to the caller, counted before they are reduced.

    Returns:
      The image, and its width and height, which are less than those of its pixels where the size is
      no multiple of the reduction. None where the file is not of the plain kind, or not whole.
    """
    frame = _frame(content)
    if frame is None:
        return None
    width, height, mode = frame
    if not 0 < width * height <= max_pixels:
        return None
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or s * least <= min(width, height))
    size = -(-width // scale), -(-height // scale)
    try:
        image = Image.frombytes(mode, size, content, "jpeg", mode, "", scale, 0)
    except ValueError:
        # Too few pixels, or none that can be read: Pillow's own way says what is wrong.
        return None
    return image, (width / scale, height / scale)


def _frame(content: bytes) -> tuple[int, int, str] | None:
    """Width, height and mode, if all segments before the pixels are plain."""
    found = None
    place = 2
    while place + 4 <= len(content):
        prefix, marker, length = struct.unpack_from(">BBH", content, place)
        if prefix != 0xFF:
            return None
        if marker == _START_OF_SCAN:
            return found
        if marker in _FRAMES and found is None and place + 10 <= len(content):
            depth, height, width, channels = struct.unpack_from(">BHHB", content, place + 4)
            if depth != 8 or channels not in _MODES:
                return None
            found = width, height, _MODES[channels]
        elif marker not in _PLAIN:
            return None
        place += 2 + length
    return None
