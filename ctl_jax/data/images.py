"""Image files to uint8 arrays of one size."""

import io
import os
from collections.abc import Sequence
from concurrent import futures

import numpy as np
from PIL import Image


def decode(content: bytes, size: int) -> np.ndarray:
    """An encoded image as RGB with its short side resized to `size`, cropped to its middle.

    The middle square is cut out before it is resized, which is the same and cheaper. Reducing is
    antialiased.

    Args:
      content: PNG, JPEG or whatever else Pillow reads; grey images become three equal channels.
      size: S, in pixels.

    Returns:
      uint8 [S, S, 3].

    Raises:
      OSError: not an image, or a damaged one.
    """
    with Image.open(io.BytesIO(content)) as image:
        rgb = image.convert("RGB")
    side = min(rgb.size)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    if rgb.size != (size, size):
        box = (left, top, left + side, top + side)
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR, box)
    return np.asarray(rgb)


def decode_into(out: np.ndarray, contents: Sequence[bytes]) -> None:
    """Decodes images into `out` [N, S, S, 3] on all cores.

    Raises:
      OSError: one of them is not an image; the message starts with its number.
    """

    def one(index: int) -> None:
        try:
            out[index] = decode(contents[index], out.shape[1])
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            # Pillow reports some damaged files as a SyntaxError.
            raise OSError(f"image {index}: {error}") from error

    def some(start: int) -> None:
        for index in range(start, min(start + 64, len(contents))):
            one(index)

    # Pillow lets go of the interpreter's lock while it decodes and resizes.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(some, range(0, len(contents), 64)))
