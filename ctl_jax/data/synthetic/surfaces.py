"""Tasks seen from above or through a lens: land cover, blood cells, image quality."""

import numpy as np

from ctl_jax.data.synthetic import atlas, canvas, textures
from ctl_jax.data.synthetic.canvas import uniform
from ctl_jax.data.synthetic.objects import backdrop

LAND = ("water", "forest", "fields", "houses", "river", "road", "dunes", "industry")
CELLS = ("normal", "sickle", "target", "spherocyte", "parasite", "nucleus", "burr")
DEFECTS = ("none", "blur", "noise", "blocks", "fog", "banding", "specks", "ghost")


def _ground(rng: np.random.Generator, count: int) -> np.ndarray:
    """Bare or green ground whose hue varies with an imagined season."""
    tone = canvas.colour(rng, count, hue=(0.08, 0.38), saturation=(0.1, 0.6), value=(0.25, 0.8))
    return backdrop(rng, tone, 0.5)


def _water(rng: np.random.Generator, count: int) -> np.ndarray:
    tone = canvas.colour(rng, count, hue=(0.4, 0.65), saturation=(0.1, 0.7), value=(0.15, 0.6))
    ripple = canvas.noise(rng, count, 16) - 0.5
    return backdrop(rng, tone, 0.3) + (uniform(rng, count, 0, 0.2) * ripple)[:, None]


def _forest(rng: np.random.Generator, count: int) -> np.ndarray:
    tone = canvas.colour(rng, count, hue=(0.1, 0.45), saturation=(0.2, 0.7), value=(0.2, 0.6))
    crowns = canvas.fractal(rng, count, (8, 13)) - 0.5
    return backdrop(rng, tone, 0.3) + (uniform(rng, count, 0.5, 1.1) * crowns)[:, None]


def _fields(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = canvas.pose(rng, count, scale=(0.5, 0.9), angle=np.pi, shift=1, stretch=0.8)
    image = _ground(rng, count)
    for parity in range(3):
        tone = canvas.colour(rng, count, (0.08, 0.4), (0.1, 0.7), (0.25, 0.85))
        furrow = uniform(rng, count, 0, 0.12) * np.sin(2 * np.pi * 5 * (u if parity % 2 else v))
        plot = (np.floor(u) + 2 * np.floor(v)) % 4 == parity
        image = canvas.paint(image, tone + furrow[:, None], plot.astype(np.float32))
    return image


def _houses(rng: np.random.Generator, count: int) -> np.ndarray:
    """Small roofs, each with a shadow, on a street grid."""
    image = _ground(rng, count)
    u, v = canvas.pose(rng, count, scale=(0.28, 0.38), angle=np.pi, shift=1, wobble=0.1)
    roof = canvas.hsv(
        uniform(rng, count, 0, 0.12), uniform(rng, count, 0, 0.6), uniform(rng, count, 0.4, 1)
    )
    a, b = u - np.round(u), v - np.round(v)
    # About a quarter of the lots is empty; which ones follows from the lot's own numbers.
    built = np.sin(12.9 * np.round(u) + 78.2 * np.round(v)) > -0.7
    shadow = canvas.fill(np.maximum(abs(a - 0.1), abs(b - 0.1)) - 0.28, 0.3) * built
    body = canvas.fill(np.maximum(abs(a), abs(b)) - 0.26, 0.2) * built
    return canvas.paint(canvas.paint(image, 0.4 * image, shadow), roof, body)


def _river(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = canvas.pose(rng, count, angle=np.pi, shift=0.4)
    bend = uniform(rng, count, 0.15, 0.35) * np.sin(
        uniform(rng, count, 2, 4) * u + uniform(rng, count, 0, 6)
    )
    bank = 0.15 * (canvas.noise(rng, count, 6) - 0.5)
    mask = canvas.fill(abs(v + bend + bank) - uniform(rng, count, 0.1, 0.25))
    return canvas.paint(_land_cover_mix(rng, count), _water(rng, count), mask)


def _road(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = canvas.pose(rng, count, angle=np.pi, shift=0.4)
    curve = v + uniform(rng, count, -0.25, 0.25) * u * u
    grey = canvas.colour(rng, count, saturation=(0, 0.1), value=(0.3, 0.75))
    width = uniform(rng, count, 0.1, 0.22)
    image = canvas.paint(_land_cover_mix(rng, count), grey, canvas.fill(abs(curve) - width))
    line = canvas.fill(abs(curve) - 0.02) * (np.sin(14 * u) > 0)
    return canvas.paint(image, 0.95, line * 0.8)


def _land_cover_mix(rng: np.random.Generator, count: int) -> np.ndarray:
    """What a river or a road runs through: ground or forest."""
    wooded = rng.random((count, 1, 1, 1)) < 0.5
    return np.where(wooded, _forest(rng, count), _ground(rng, count))


def _dunes(rng: np.random.Generator, count: int) -> np.ndarray:
    tone = canvas.colour(rng, count, hue=(0.06, 0.15), saturation=(0.15, 0.6), value=(0.4, 0.9))
    u, _ = canvas.pose(rng, count, scale=(0.25, 0.5), angle=np.pi, shift=1, wobble=0.5)
    crest = abs(u - np.round(u)) - 0.25
    return tone + (uniform(rng, count, 0.3, 0.9) * crest)[:, None]


def _industry(rng: np.random.Generator, count: int) -> np.ndarray:
    """A few large flat roofs on paved ground."""
    image = backdrop(rng, canvas.colour(rng, count, (0, 1), (0, 0.15), (0.3, 0.7)))
    turn = rng.uniform(0, np.pi, (count, 1, 1)).astype(np.float32)
    cos, sin = np.cos(turn), np.sin(turn)
    for _ in range(4):
        x = canvas.X - uniform(rng, count, -0.8, 0.8)
        y = canvas.Y - uniform(rng, count, -0.8, 0.8)
        a, b = cos * x + sin * y, cos * y - sin * x
        wide, deep = uniform(rng, count, 0.2, 0.5), uniform(rng, count, 0.15, 0.35)
        shade = canvas.fill(np.maximum(abs(a - 0.08) - wide, abs(b - 0.08) - deep))
        roof = canvas.fill(np.maximum(abs(a) - wide, abs(b) - deep))
        tone = canvas.colour(rng, count, (0, 1), (0, 0.3), (0.5, 1))
        image = canvas.paint(canvas.paint(image, 0.4 * image, shade), tone, roof)
    return image


_LAND = (_water, _forest, _fields, _houses, _river, _road, _dunes, _industry)


def land_cover(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Satellite pictures through haze of any colour."""
    count = len(labels)
    image = np.zeros((count, 3, canvas.SIZE, canvas.SIZE), np.float32)
    for label, family in enumerate(_LAND):
        chosen = labels == label
        if chosen.any():
            image[chosen] = family(rng, int(chosen.sum()))
    haze = uniform(rng, count, 0, 0.45, 1, 1, 1)
    image = image * (1 - haze) + haze * uniform(rng, count, 0.4, 0.9, 3, 1, 1)
    return canvas.develop(rng, image, (0.0, 0.08))


def _disc_with_pallor(
    distance: np.ndarray, radius: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mask of a red cell and its thickness, thinner in the middle."""
    body = canvas.fill(distance - radius)
    return body, 1 - depth * np.exp(-((distance / (0.5 * radius)) ** 2))


def cells(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """A blood smear: one cell near the middle, normal or with one of six signs of disease."""
    count = len(labels)
    plasma = canvas.colour(rng, count, (0.0, 0.2), (0.0, 0.25), (0.75, 1.0))
    stain = canvas.colour(rng, count, (0.88, 1.05), (0.3, 0.75), (0.45, 0.85))
    dark = canvas.colour(rng, count, (0.65, 0.85), (0.4, 0.9), (0.15, 0.5))
    image = backdrop(rng, plasma, 0.25)
    for _ in range(4):
        # Neighbours are normal cells that are at the border of the picture.
        turn = uniform(rng, count, 0, 2 * np.pi)
        away = uniform(rng, count, 0.95, 1.4)
        x, y = canvas.X - away * np.cos(turn), canvas.Y - away * np.sin(turn)
        body, depth = _disc_with_pallor(
            np.hypot(x, y), uniform(rng, count, 0.35, 0.5), uniform(rng, count, 0.1, 0.5)
        )
        image = canvas.paint(image, plasma + (stain - plasma) * depth[:, None], body * 0.9)

    u, v = canvas.pose(rng, count, angle=np.pi, shift=0.2, stretch=0.25, wobble=0.15)
    distance, turn = np.hypot(u, v), np.arctan2(v, u)
    radius = uniform(rng, count, 0.42, 0.58)
    kind = labels[:, None, None]
    spikes = rng.integers(9, 13, (count, 1, 1)).astype(np.float32) * turn
    edge = radius * np.where(kind == 6, 1 + uniform(rng, count, 0.1, 0.2) * np.sin(spikes), 1)
    edge = np.where(kind == 3, 0.8 * edge, edge)
    shallow, deep = uniform(rng, count, 0.25, 0.65), uniform(rng, count, 0.0, 0.12)
    body, depth = _disc_with_pallor(distance, edge, np.where(kind == 3, deep, shallow))
    ring = abs(distance / radius - 0.45)
    depth = np.where(kind == 2, 0.35 + 0.65 * np.clip(abs(ring / 0.25), 0, 1), depth)
    bitten = canvas.fill(radius - np.hypot(u - 0.55 * radius, v * 0.8))
    body = np.where(kind == 1, body * bitten, body)
    depth = np.where(kind == 1, 0.95, depth)
    image = canvas.paint(image, plasma + (stain - plasma) * depth[:, None], body)
    image = canvas.paint(image, dark, body * (kind == 4) * _parasites(rng, u, v, radius))
    lobe = np.hypot(u - uniform(rng, count, -0.1, 0.1), v) - uniform(rng, count, 0.5, 0.7) * radius
    image = canvas.paint(image, dark, (kind == 5) * canvas.fill(lobe) * 0.85)
    focus = uniform(rng, count, 0.0, 0.8, 1, 1, 1)
    return canvas.develop(rng, (1 - focus) * image + focus * blur(image, 1), (0.0, 0.08))


def _parasites(
    rng: np.random.Generator, u: np.ndarray, v: np.ndarray, radius: np.ndarray
) -> np.ndarray:
    """One to three small dots within a cell."""
    count = len(u)
    wanted = rng.integers(1, 4, (count, 1, 1))
    result = np.zeros_like(u)
    for k in range(3):
        place = uniform(rng, count, 0.2, 0.7) * radius
        turn = uniform(rng, count, 0, 2 * np.pi)
        distance = np.hypot(u - place * np.cos(turn), v - place * np.sin(turn))
        dot = canvas.fill(distance - uniform(rng, count, 0.09, 0.15)) * (wanted > k)
        result = np.maximum(result, dot)
    return result


def blur(image: np.ndarray, passes: int) -> np.ndarray:
    """Binomial blur (1, 2, 1) / 4 along both axes of a plane, edges repeated."""
    for _ in range(passes):
        for axis in (2, 3):
            first, last = image.take([0], axis), image.take([-1], axis)
            padded = np.concatenate([first, image, last], axis)
            size = image.shape[axis]
            left = padded.take(range(size), axis)
            right = padded.take(range(2, size + 2), axis)
            image = 0.5 * image + 0.25 * (left + right)
    return image


def quality(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """A picture of anything, spoilt in one way (or not at all) to a varying degree."""
    count = len(labels)
    low, high = canvas.two_tones(rng, count, (0.3, 0.8))
    family = rng.integers(len(textures.TASK), size=count)
    image = canvas.paint(backdrop(rng, low), high, textures.draw(rng, family, textures.TASK))
    image = np.where(rng.random((count, 1, 1, 1)) < 0.6, backdrop(rng, low, 0.9), image)
    forms = atlas.silhouettes(tuple(atlas.SILHOUETTES))
    for _ in range(3):
        u, v = canvas.pose(rng, count, scale=(0.2, 0.6), angle=np.pi, shift=0.8)
        ink = canvas.warp(forms, rng.integers(len(forms), size=count), u, v)
        image = canvas.paint(image, canvas.colour(rng, count), ink)
    for label, spoil in enumerate(_SPOIL):
        chosen = labels == label
        if chosen.any():
            image[chosen] = spoil(rng, image[chosen])
    # A little noise in every picture, so that its absence tells nothing.
    return canvas.develop(rng, image, (0.0, 0.02))


def _spoil_none(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return image


def _spoil_blur(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    part = uniform(rng, len(image), 0.7, 1, 1, 1, 1)
    return (1 - part) * blur(image, 1) + part * blur(image, 4)


def _spoil_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    strength = uniform(rng, len(image), 0.06, 0.2, 1, 1, 1)
    return image + strength * rng.standard_normal(image.shape, dtype=np.float32)


def _spoil_blocks(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Each 4 x 4 block keeps its mean and little of its detail, as in hard compression."""
    tiles = image.reshape(len(image), 3, 8, 4, 8, 4)
    mean = tiles.mean((3, 5), keepdims=True)
    rest = uniform(rng, len(image), 0.1, 0.45, 1, 1, 1, 1, 1)
    return (mean + rest * (tiles - mean)).reshape(image.shape)


def _spoil_fog(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    veil = uniform(rng, len(image), 0.6, 0.85, 1, 1, 1)
    return (1 - veil) * image + veil * uniform(rng, len(image), 0.2, 0.8, 1, 1, 1)


def _spoil_banding(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    levels = rng.integers(2, 5, (len(image), 1, 1, 1)).astype(np.float32)
    return np.round(np.clip(image, 0, 1) * levels) / levels


def _spoil_specks(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    dice = rng.random((len(image), 1, *image.shape[2:]), dtype=np.float32)
    rate = uniform(rng, len(image), 0.01, 0.06, 1, 1, 1)
    return np.where(dice < rate, 0, np.where(dice > 1 - rate, 1, image)).astype(np.float32)


def _spoil_ghost(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A second, shifted exposure of the same picture."""
    step = rng.integers(3, 7, len(image))
    across = rng.integers(-2, 3, len(image))
    rows = (np.arange(canvas.SIZE) + across[:, None]) % canvas.SIZE
    columns = (np.arange(canvas.SIZE) + step[:, None]) % canvas.SIZE
    every = np.arange(len(image))[:, None, None, None], np.arange(3)[:, None, None]
    copy = image[*every, rows[:, None, :, None], columns[:, None, None, :]]
    part = uniform(rng, len(image), 0.35, 0.5, 1, 1, 1)
    return (1 - part) * image + part * copy


_SPOIL = (
    _spoil_none,
    _spoil_blur,
    _spoil_noise,
    _spoil_blocks,
    _spoil_fog,
    _spoil_banding,
    _spoil_specks,
    _spoil_ghost,
)
