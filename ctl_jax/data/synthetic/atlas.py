"""Masks that are drawn once, large, and then warped into many images: glyphs and silhouettes."""

import functools
import math
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 64
_OVERSAMPLE = 4

# Fonts that matplotlib ships (DejaVu, STIX and Computer Modern), by file name.
LATIN_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
)
WIDE_FONTS = LATIN_FONTS[:6]


@functools.cache
def glyphs(characters: str, fonts: tuple[str, ...]) -> np.ndarray:
    """Masks of characters, each scaled to fill most of its square.

    Args:
      characters: what to draw.
      fonts: names out of `LATIN_FONTS`.

    Returns:
      [len(characters) * len(fonts), 64, 64] float32 in 0..1; the fonts of a character follow
      one another.
    """
    import matplotlib  # Only for its fonts: slow to import.

    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts/ttf"
    faces = [
        ImageFont.truetype(folder / f"{font}.ttf", 96, layout_engine=ImageFont.Layout.BASIC)
        for font in fonts
    ]
    return np.stack([_glyph(character, face) for character in characters for face in faces])


def _glyph(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    canvas = Image.new("L", (256, 256))
    ImageDraw.Draw(canvas).text((64, 64), character, fill=255, font=font)
    left, top, right, bottom = canvas.getbbox() or (0, 0, 1, 1)
    # A square round the ink: a capital I stays thin.
    half = max(right - left, bottom - top) / 2 * 1.15
    x, y = (left + right) / 2, (top + bottom) / 2
    box = (x - half, y - half, x + half, y + half)
    square = canvas.transform(
        (SIDE * 2, SIDE * 2), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    )
    return np.asarray(square.reduce(2), np.float32) / 255


Points = list[tuple[float, float]]


def _outline(radius: Callable[[float], float], points: int = 96) -> Points:
    """A closed curve from its radius at each angle, which runs clockwise from the top."""
    turns = [2 * math.pi * k / points for k in range(points)]
    return [(radius(t) * math.sin(t), -radius(t) * math.cos(t)) for t in turns]


def _regular(corners: int) -> Points:
    return _outline(lambda _: 1.0, corners)


def _star(corners: int, inner: float) -> Points:
    points = _outline(lambda _: 1.0, 2 * corners)
    return [(x * inner, y * inner) if k % 2 else (x, y) for k, (x, y) in enumerate(points)]


def _heart() -> Points:
    turns = [2 * math.pi * k / 96 for k in range(96)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in turns
    ]


# Polygons in -1..1, y downwards. A second polygon, where there is one, is cut out of the first.
_CIRCLE = _regular(64)
SILHOUETTES: dict[str, tuple[Points, Points]] = {
    "triangle": (_regular(3), []),
    "rectangle": ([(-0.55, -0.9), (0.55, -0.9), (0.55, 0.9), (-0.55, 0.9)], []),
    "pentagon": (_regular(5), []),
    "star": (_star(5, 0.42), []),
    "cross": (
        [
            (-0.3, -0.9),
            (0.3, -0.9),
            (0.3, -0.3),
            (0.9, -0.3),
            (0.9, 0.3),
            (0.3, 0.3),
            (0.3, 0.9),
            (-0.3, 0.9),
            (-0.3, 0.3),
            (-0.9, 0.3),
            (-0.9, -0.3),
            (-0.3, -0.3),
        ],
        [],
    ),
    "ell": ([(-0.7, -0.9), (-0.1, -0.9), (-0.1, 0.3), (0.7, 0.3), (0.7, 0.9), (-0.7, 0.9)], []),
    "tee": (
        [
            (-0.85, -0.8),
            (0.85, -0.8),
            (0.85, -0.2),
            (0.3, -0.2),
            (0.3, 0.85),
            (-0.3, 0.85),
            (-0.3, -0.2),
            (-0.85, -0.2),
        ],
        [],
    ),
    "crescent": (_CIRCLE, [(0.8 * x + 0.5, 0.8 * y) for x, y in _CIRCLE]),
    "ring": (_CIRCLE, [(0.5 * x, 0.5 * y) for x, y in _CIRCLE]),
    "arrow": (
        [
            (0, -0.95),
            (0.75, -0.1),
            (0.28, -0.1),
            (0.28, 0.9),
            (-0.28, 0.9),
            (-0.28, -0.1),
            (-0.75, -0.1),
        ],
        [],
    ),
    "disc": (_CIRCLE, []),
    "square": ([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], []),
    "diamond": (_regular(4), []),
    "bar": ([(-0.85, -0.28), (0.85, -0.28), (0.85, 0.28), (-0.85, 0.28)], []),
    "heart": (_heart(), []),
    "ellipse": ([(0.5 * x, y) for x, y in _CIRCLE], []),
    "half": ([(x, max(y, 0) - 0.45) for x, y in _CIRCLE], []),
    "trapezoid": ([(-0.4, -0.7), (0.4, -0.7), (0.95, 0.7), (-0.95, 0.7)], []),
    "kite": ([(0, -0.95), (0.6, -0.3), (0, 0.95), (-0.6, -0.3)], []),
    "hourglass": ([(-0.8, -0.9), (0.8, -0.9), (0.08, 0), (0.8, 0.9), (-0.8, 0.9), (-0.08, 0)], []),
    "gear": (
        _outline(lambda t: 0.95 if math.sin(8 * t) > 0 else 0.7),
        [(0.3 * x, 0.3 * y) for x, y in _CIRCLE],
    ),
    "drop": (_outline(lambda t: 0.45 + 0.5 * max(math.cos(t), 0) ** 3), []),
    "zed": (
        [
            (-0.8, -0.85),
            (0.8, -0.85),
            (0.8, -0.4),
            (-0.1, 0.4),
            (0.8, 0.4),
            (0.8, 0.85),
            (-0.8, 0.85),
            (-0.8, 0.4),
            (0.1, -0.4),
            (-0.8, -0.4),
        ],
        [],
    ),
    "cup": (
        [
            (-0.8, -0.85),
            (-0.3, -0.85),
            (-0.3, 0.35),
            (0.3, 0.35),
            (0.3, -0.85),
            (0.8, -0.85),
            (0.8, 0.85),
            (-0.8, 0.85),
        ],
        [],
    ),
    "house": ([(0, -0.95), (0.85, -0.15), (0.85, 0.9), (-0.85, 0.9), (-0.85, -0.15)], []),
    "bolt": (
        [(0.2, -0.95), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 0.95), (0.6, -0.25), (0.05, -0.25)],
        [],
    ),
    "frame": (
        [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        [(-0.45, -0.45), (0.45, -0.45), (0.45, 0.45), (-0.45, 0.45)],
    ),
    "flower": (_outline(lambda t: 0.65 + 0.3 * math.cos(5 * t)), []),
    "hexagram": (_star(6, 0.55), []),
    "fish": (
        [
            (0.95, 0),
            (0.45, -0.4),
            (-0.1, -0.4),
            (-0.5, -0.08),
            (-0.95, -0.5),
            (-0.95, 0.5),
            (-0.5, 0.08),
            (-0.1, 0.4),
            (0.45, 0.4),
        ],
        [],
    ),
}


@functools.cache
def silhouettes(names: tuple[str, ...]) -> np.ndarray:
    """Masks of the named shapes, [len(names), 64, 64] float32 in 0..1."""
    side = SIDE * _OVERSAMPLE
    masks = []
    for name in names:
        image = Image.new("L", (side, side))
        draw = ImageDraw.Draw(image)
        for polygon, ink in zip(SILHOUETTES[name], (255, 0), strict=True):
            if polygon:
                draw.polygon([((x + 1) / 2 * side, (y + 1) / 2 * side) for x, y in polygon], ink)
        masks.append(np.asarray(image.reduce(_OVERSAMPLE), np.float32) / 255)
    return np.stack(masks)
