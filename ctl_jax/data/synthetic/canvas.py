"""Drawing many 32x32 images at once: poses, masks, noise, colours.

Everything works on batches: a field is float32 [N, 32, 32], an image float32 [N, 3, 32, 32] in
0..1 (planes, as numpy is slow where the last axis is short), a colour float32 [N, 3, 1, 1].
Coordinates run from -1 to 1, y downwards.
"""

import numpy as np

SIZE = 32
PIXEL = 2 / SIZE
_CENTRES = ((np.arange(SIZE) + 0.5) * PIXEL - 1).astype(np.float32)
Y, X = np.meshgrid(_CENTRES, _CENTRES, indexing="ij")


def uniform(
    rng: np.random.Generator, count: int, low: float, high: float, *shape: int
) -> np.ndarray:
    """One number an image, [count, 1, 1] (or [count, *shape])."""
    return rng.uniform(low, high, (count, *(shape or (1, 1)))).astype(np.float32)


def pose(
    rng: np.random.Generator,
    count: int,
    *,
    scale: tuple[float, float] = (1, 1),
    angle: float = 0.0,
    shift: float = 0.0,
    stretch: float = 0.0,
    wobble: float = 0.0,
    centre: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Object coordinates (u, v) of every pixel, for an object that fills -1..1.

    Args:
      rng: source of the random poses.
      count: number of images.
      scale: range of the object's size; 1 fills the image.
      angle: rotations lie in -angle..angle (radians).
      shift: largest shift along each axis.
      stretch: the two axes differ by a factor of up to exp(stretch).
      wobble: amplitude of a smooth random distortion.
      centre: where the object is before it is shifted, x and y, each [count, 1, 1].

    Returns:
      u and v, each [count, 32, 32].
    """
    middle_x, middle_y = centre or (np.float32(0), np.float32(0))
    x = X - middle_x - uniform(rng, count, -shift, shift)
    y = Y - middle_y - uniform(rng, count, -shift, shift)
    if wobble:
        x = x + wobble * (noise(rng, count, 3) - 0.5)
        y = y + wobble * (noise(rng, count, 3) - 0.5)
    turn = uniform(rng, count, -angle, angle)
    size = uniform(rng, count, *scale)
    ratio = np.exp(uniform(rng, count, -stretch / 2, stretch / 2))
    cos, sin = np.cos(turn), np.sin(turn)
    return (cos * x + sin * y) / (size * ratio), (cos * y - sin * x) * ratio / size


def noise(rng: np.random.Generator, count: int, cells: int) -> np.ndarray:
    """Smooth noise in 0..1 with about `cells` bumps a side, [count, 32, 32]."""
    grid = rng.random((count, cells + 1, cells + 1), dtype=np.float32)
    rows = _interpolation(cells)
    return rows @ grid @ rows.T


def _interpolation(cells: int) -> np.ndarray:
    """[32, cells + 1]: smoothstep weights from a coarse grid to the pixels."""
    place = (np.arange(SIZE) + 0.5) / SIZE * cells
    low = np.floor(place).astype(int)
    part = place - low
    part = part * part * (3 - 2 * part)
    weights = np.zeros((SIZE, cells + 1), np.float32)
    weights[np.arange(SIZE), low] = 1 - part
    weights[np.arange(SIZE), low + 1] = part
    return weights


def fractal(
    rng: np.random.Generator, count: int, cells: tuple[int, ...] = (3, 6, 12)
) -> np.ndarray:
    """Several octaves of smooth noise, each half as strong as the one before, in 0..1."""
    weights = [0.5**octave for octave in range(len(cells))]
    parts = [weight * noise(rng, count, c) for weight, c in zip(weights, cells, strict=True)]
    return np.sum(parts, axis=0) / np.float32(sum(weights))


def fill(distance: np.ndarray, soft: float = PIXEL) -> np.ndarray:
    """Mask in 0..1 of the region where a signed distance is negative, with soft edges."""
    return np.clip(0.5 - distance / soft, 0, 1)


def warp(atlas: np.ndarray, index: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear samples of atlas images at object coordinates; zero outside.

    Args:
      atlas: [K, A, A] masks.
      index: [N] which mask each image takes.
      u: [N, 32, 32] horizontal object coordinates; -1..1 spans the mask.
      v: [N, 32, 32] vertical ones.

    Returns:
      [N, 32, 32].
    """
    side = atlas.shape[-1]
    # A border of zeros, so that clipped coordinates read zero.
    padded = np.pad(atlas, ((0, 0), (1, 1), (1, 1)))
    wide = side + 2
    column = np.clip((u + 1) / 2 * side + 0.5, 0, side + 0.999)
    row = np.clip((v + 1) / 2 * side + 0.5, 0, side + 0.999)
    left, top = column.astype(np.int32), row.astype(np.int32)
    column, row = column - left.astype(np.float32), row - top.astype(np.float32)
    flat = padded.reshape(-1)
    start = (index[:, None, None].astype(np.int32) * wide + top) * wide + left
    upper = flat[start] * (1 - column) + flat[start + 1] * column
    lower = flat[start + wide] * (1 - column) + flat[start + wide + 1] * column
    return upper * (1 - row) + lower * row


def hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Colours from hue (0..1, periodic), saturation and value, [N, 3, 1, 1] from [N, 1, 1]."""
    offset = np.asarray([5, 3, 1], np.float32)[:, None, None]
    k = (offset + 6 * hue[:, None]) % 6
    ramp = np.clip(np.minimum(k, 4 - k), 0, 1)
    return value[:, None] * (1 - saturation[:, None] * ramp)


def colour(
    rng: np.random.Generator,
    count: int,
    hue: tuple[float, float] = (0, 1),
    saturation: tuple[float, float] = (0, 1),
    value: tuple[float, float] = (0, 1),
) -> np.ndarray:
    """Random colours, [count, 3, 1, 1]."""
    return hsv(*(uniform(rng, count, low, high) for low, high in (hue, saturation, value)))


def two_tones(
    rng: np.random.Generator, count: int, contrast: tuple[float, float] = (0.25, 0.7)
) -> tuple[np.ndarray, np.ndarray]:
    """Two colours an image whose brightness differs by `contrast`, either one the brighter.

    Returns:
      Two arrays [count, 3, 1, 1].
    """
    first = uniform(rng, count, 0, 1, 1, 1, 1)
    step = uniform(rng, count, *contrast, 1, 1, 1)
    step = np.where(rng.random(step.shape) < 0.5, step, -step)
    step = np.where((first + step < 0) | (first + step > 1), -step, step)
    tint = uniform(rng, count, -0.2, 0.2, 3, 1, 1), uniform(rng, count, -0.2, 0.2, 3, 1, 1)
    return (
        np.clip(first + tint[0], 0, 1),
        np.clip(np.clip(first + step, 0, 1) + tint[1], 0, 1),
    )


def paint(image: np.ndarray, tone: np.ndarray | float, mask: np.ndarray) -> np.ndarray:
    """Lays `tone` (a colour, an image or a grey) over `image` where `mask` [N, 32, 32] says so."""
    mask = mask.astype(np.float32, copy=False)
    return image + (np.asarray(tone, np.float32) - image) * mask[:, None]


def develop(
    rng: np.random.Generator, image: np.ndarray, grain: tuple[float, float] = (0.0, 0.08)
) -> np.ndarray:
    """uint8 [N, 32, 32, 3] with sensor noise whose strength varies from image to image."""
    strength = uniform(rng, len(image), *grain, 1, 1, 1)
    image = image + strength * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
