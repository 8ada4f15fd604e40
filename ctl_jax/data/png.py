"""PNG files: their checksums, and a short way through the plain ones.

A PNG is a signature and chunks: length (uint32, big-endian), type (4 bytes), data, and the CRC-32
of type and data. https://www.w3.org/TR/png-3/#5DataRep
"""

import struct
import zlib

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Colour types of 8 bits a channel whose pixels are in the data as they are: grey, RGB, and both
# with alpha.
_MODES = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}
# Chunks that change no pixel. Texts and eXIf may, since they can tell of an orientation, and so do
# those of an animation.
_PLAIN = frozenset(b"IHDR IDAT IEND bKGD cHRM cICP gAMA hIST iCCP pHYs sBIT sRGB tIME tRNS".split())


def read(content: bytes, max_pixels: int) -> Image.Image | None:
    """A plain PNG: 8 bits a channel, no palette, not interlaced, nothing said of an orientation.

    Pillow does the same in more steps, which is half of the time that a small image takes, and
    does not look at the checksums of the pixels.

    Args:
      content: begins with `SIGNATURE`.
      max_pixels: larger images are left to the caller.

    Returns:
      The image, or None where the file is not of the plain kind, or not whole.

    Raises:
      OSError: a checksum is wrong.
    """
    kinds, parts = _chunks(content)
    if not parts or kinds[0] != b"IHDR" or kinds[-1] != b"IEND" or not _PLAIN.issuperset(kinds):
        return None
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", content, 16)
    if depth != 8 or interlace or colour not in _MODES:
        return None
    if not 0 < width * height <= max_pixels:
        return None
    mode = _MODES[colour]
    try:
        return Image.frombytes(mode, (width, height), b"".join(parts), "zip", mode, 0)
    except ValueError:
        # Too few pixels, or none that can be read: Pillow's own way says what is wrong.
        return None


def _chunks(content: bytes) -> tuple[list[bytes], list[bytes]]:
    """The types of all chunks that are whole, up to the end, and the data of those with pixels."""
    kinds: list[bytes] = []
    parts: list[bytes] = []
    view = memoryview(content)
    place = len(SIGNATURE)
    while place + 12 <= len(content) and kinds[-1:] != [b"IEND"]:
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        kind = content[place + 4 : place + 8]
        if zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise OSError(f"damaged PNG: the checksum of chunk {kind!r} at byte {place} is wrong")
        kinds.append(kind)
        if kind == b"IDAT":
            parts.append(content[place + 8 : end])
        place = end + 4
    return kinds, parts
