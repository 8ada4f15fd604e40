"""Tasks made of drawn objects: letters, textures, silhouettes, signs, counting."""

import numpy as np

from ctl_jax.data.synthetic import atlas, canvas, textures

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHAPES = (
    "triangle",
    "rectangle",
    "pentagon",
    "star",
    "cross",
    "ell",
    "tee",
    "crescent",
    "ring",
    "arrow",
)
SIGN_BORDERS = ("triangle", "disc", "diamond", "square")
SIGN_SYMBOLS = ("bar", "arrow", "cross")


def backdrop(rng: np.random.Generator, tone: np.ndarray, strength: float = 0.35) -> np.ndarray:
    """A colour with smooth light and shade over it, [N, 3, 32, 32]."""
    count = len(tone)
    shade = canvas.fractal(rng, count, (2, 5)) - 0.5
    return np.clip(tone + (canvas.uniform(rng, count, 0, strength) * shade)[:, None], 0, 1)


def clutter(rng: np.random.Generator, count: int, strokes: int) -> np.ndarray:
    """A mask of thin random strokes, of which an image has at most `strokes`."""
    result = np.zeros((count, canvas.SIZE, canvas.SIZE), np.float32)
    for _ in range(strokes):
        u, v = canvas.pose(rng, count, angle=np.pi, shift=1.0)
        length = canvas.uniform(rng, count, -0.3, 0.5)
        result = np.maximum(result, canvas.fill(abs(v) - 0.05) * canvas.fill(abs(u) - length))
    return result


def letters(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Capital letters in twelve fonts, bent, on a ground with strokes of their colour."""
    count, fonts = len(labels), atlas.LATIN_FONTS
    index = labels * len(fonts) + rng.integers(len(fonts), size=count)
    u, v = canvas.pose(rng, count, scale=(0.5, 0.9), angle=0.5, shift=0.2, stretch=0.5, wobble=0.25)
    ink = canvas.warp(atlas.glyphs(LETTERS, fonts), index, u, v)
    paper, tone = canvas.two_tones(rng, count)
    image = canvas.paint(backdrop(rng, paper), tone, clutter(rng, count, 2))
    return canvas.develop(rng, canvas.paint(image, tone, ink), (0.0, 0.15))


def texture(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """A texture family at any scale and angle, in any two colours."""
    field = textures.draw(rng, labels, textures.TASK)
    low, high = canvas.two_tones(rng, len(labels), (0.12, 0.6))
    return canvas.develop(rng, canvas.paint(backdrop(rng, low), high, field), (0.0, 0.12))


def shapes(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Silhouettes at any angle, bent and stretched, among strokes of their colour."""
    count = len(labels)
    u, v = canvas.pose(
        rng, count, scale=(0.35, 0.75), angle=np.pi, shift=0.3, stretch=0.4, wobble=0.2
    )
    ink = canvas.warp(atlas.silhouettes(SHAPES), labels, u, v)
    ground, tone = canvas.two_tones(rng, count)
    image = canvas.paint(backdrop(rng, ground), tone, clutter(rng, count, 4))
    return canvas.develop(rng, canvas.paint(image, backdrop(rng, tone), ink), (0.0, 0.12))


def signs(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Traffic signs: the class is the border together with the symbol; colours tell nothing."""
    count = len(labels)
    border, symbol = np.divmod(labels, len(SIGN_SYMBOLS))
    u, v = canvas.pose(rng, count, scale=(0.55, 0.95), angle=0.3, shift=0.2, stretch=0.4)
    plate = canvas.warp(atlas.silhouettes(SIGN_BORDERS), border, u, v)
    inner = canvas.warp(atlas.silhouettes(SIGN_BORDERS), border, u * 1.3, v * 1.3)
    # A triangle's middle is below its centre, and it has room for a small symbol only.
    low = np.where(border == 0, 0.12, 0.0).astype(np.float32)[:, None, None]
    size = np.where(border == 0, 0.34, 0.45).astype(np.float32)[:, None, None]
    mark = canvas.warp(atlas.silhouettes(SIGN_SYMBOLS), symbol, u / size, (v - low) / size)
    scene = backdrop(rng, canvas.colour(rng, count, value=(0.1, 0.9), saturation=(0, 0.6)), 0.9)
    rim, face = canvas.two_tones(rng, count, (0.2, 0.6))
    ink = np.where(rng.random((count, 1, 1, 1)) < 0.5, rim, canvas.two_tones(rng, count)[0])
    # Ink too close to the face's colour would be invisible.
    ink = np.where(abs(ink - face).mean(1, keepdims=True) < 0.2, rim, ink)
    image = canvas.paint(canvas.paint(scene, rim, plate), face, inner)
    image = canvas.paint(image, ink, mark)
    light = canvas.uniform(rng, count, 0.35, 1.0, 1, 1, 1)
    return canvas.develop(rng, image * light, (0.0, 0.1))


def counting(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """1 to 8 objects, kept apart by giving each its own cell of a jittered 4 x 4 grid."""
    count = len(labels)
    forms = atlas.silhouettes(("disc", "square", "triangle", "star", "ring"))
    form = rng.integers(len(forms), size=count)
    cells = rng.permuted(np.tile(np.arange(16), (count, 1)), axis=1)
    ground, tone = canvas.two_tones(rng, count, (0.2, 0.6))
    image = canvas.paint(backdrop(rng, ground), tone, 0.5 * clutter(rng, count, 2))
    for k in range(8):
        centre_y, centre_x = np.divmod(cells[:, k], 4)
        x = (centre_x * 0.5 - 0.75).astype(np.float32)[:, None, None]
        y = (centre_y * 0.5 - 0.75).astype(np.float32)[:, None, None]
        u, v = canvas.pose(rng, count, scale=(0.13, 0.24), angle=np.pi, shift=0.04, centre=(x, y))
        ink = canvas.warp(forms, form, u, v) * (labels >= k)[:, None, None]
        own = np.clip(tone + canvas.uniform(rng, count, -0.12, 0.12, 3, 1, 1), 0, 1)
        image = canvas.paint(image, own, ink)
    return canvas.develop(rng, image, (0.0, 0.1))
