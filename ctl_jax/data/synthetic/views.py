"""Tasks that show a whole view: scenes and faces."""

import numpy as np

from ctl_jax.data.synthetic import canvas
from ctl_jax.data.synthetic.canvas import uniform
from ctl_jax.data.synthetic.objects import backdrop

SCENES = ("coast", "mountain", "forest", "field", "skyline", "street", "room", "canyon")
EXPRESSIONS = ("neutral", "smile", "sad", "surprise", "anger", "wink")


def _sky(rng: np.random.Generator, count: int) -> np.ndarray:
    """Any time of day: bright, grey, red or dark, with clouds."""
    top = canvas.colour(rng, count, (0.5, 1.1), (0, 0.6), (0.15, 1))
    bottom = canvas.colour(rng, count, (0.5, 1.1), (0, 0.4), (0.3, 1))
    part = (canvas.Y + 1) / 2
    clouds = canvas.fractal(rng, count, (3, 6)) - 0.5
    cover = uniform(rng, count, 0, 0.8)
    return top * (1 - part) + bottom * part + (cover * clouds)[:, None]


def _below(
    image: np.ndarray, tone: np.ndarray, horizon: np.ndarray, roughness: np.ndarray | float = 0.0
) -> np.ndarray:
    """Paints everything under a horizon."""
    return canvas.paint(image, tone, canvas.fill(horizon + roughness - canvas.Y))


def _profile(rng: np.random.Generator, count: int, cells: int) -> np.ndarray:
    """A random height for each column, [count, 1, 32], in about -0.5..0.5."""
    return canvas.noise(rng, count, cells)[:, :1, :] - 0.5


def _earth(rng: np.random.Generator, count: int, hue: tuple[float, float]) -> np.ndarray:
    tone = canvas.colour(rng, count, hue, (0.05, 0.6), (0.15, 0.8))
    return backdrop(rng, tone, 0.6)


def _coast(rng: np.random.Generator, count: int) -> np.ndarray:
    horizon = uniform(rng, count, -0.3, 0.2)
    image = _below(_sky(rng, count), _earth(rng, count, (0.45, 0.68)), horizon)
    foam = np.sin(uniform(rng, count, 10, 16) * np.log(np.maximum(canvas.Y - horizon, 0.02)))
    water = canvas.fill(horizon - canvas.Y) * np.clip(foam - 0.6, 0, 1)
    image = canvas.paint(image, 1, uniform(rng, count, 0.2, 0.9) * water)
    slope = uniform(rng, count, -0.5, 0.5) * canvas.X
    shore = horizon + uniform(rng, count, 0.4, 0.8) + slope
    return _below(image, _earth(rng, count, (0.05, 0.18)), shore)


def _mountain(rng: np.random.Generator, count: int) -> np.ndarray:
    image = _sky(rng, count)
    peak_tone = canvas.colour(rng, count, (0.5, 1.1), (0, 0.3), (0.15, 0.7))
    for depth in range(3):
        x = uniform(rng, count, -0.8, 0.8)
        ridge = uniform(rng, count, -0.7, 0) + uniform(rng, count, 0.7, 1.4) * abs(canvas.X - x)
        rough = 0.25 * _profile(rng, count, 10)
        image = _below(image, np.clip(peak_tone * (1.2 - 0.3 * depth), 0, 1), ridge, rough)
        if depth < 2:
            snow = canvas.fill(ridge + rough - canvas.Y) * canvas.fill(canvas.Y - ridge - 0.25)
            image = canvas.paint(image, 0.95, snow * uniform(rng, count, 0, 1))
    return _below(image, _earth(rng, count, (0.1, 0.4)), uniform(rng, count, 0.5, 0.95))


def _forest(rng: np.random.Generator, count: int) -> np.ndarray:
    image = _below(_sky(rng, count), _earth(rng, count, (0.1, 0.4)), uniform(rng, count, 0, 0.6))
    for depth in range(6):
        x = uniform(rng, count, -1, 1)
        width = uniform(rng, count, 0.03, 0.1) * (1 + depth / 4)
        bark = canvas.colour(rng, count, (0.02, 0.15), (0, 0.5), (0.1, 0.5))
        lean = uniform(rng, count, -0.08, 0.08) * canvas.Y
        foot = uniform(rng, count, 0.3, 0.9)
        trunk = canvas.fill(abs(canvas.X - x - lean) - width) * canvas.fill(canvas.Y - foot)
        image = canvas.paint(image, bark, trunk)
    leaves = canvas.fractal(rng, count, (6, 12)) + 0.35 * uniform(rng, count, 0.5, 1.2) * -canvas.Y
    green = backdrop(rng, canvas.colour(rng, count, (0.08, 0.42), (0.2, 0.8), (0.2, 0.7)), 0.6)
    return canvas.paint(image, green, np.clip((leaves - 0.55) * 8, 0, 1))


def _field(rng: np.random.Generator, count: int) -> np.ndarray:
    horizon = uniform(rng, count, -0.3, 0.2)
    image = _below(_sky(rng, count), _earth(rng, count, (0.08, 0.42)), horizon)
    depth = np.maximum(canvas.Y - horizon, 0.03)
    rows = np.sin(uniform(rng, count, 5, 10) * (canvas.X - uniform(rng, count, -0.6, 0.6)) / depth)
    furrow = canvas.fill(horizon - canvas.Y) * np.clip(rows, 0, 1) * np.clip(depth * 3, 0, 1)
    image = canvas.paint(image, 0.5 * image, uniform(rng, count, 0.4, 1) * furrow)
    hedge = abs(canvas.Y - horizon) - 0.06 - 0.12 * _profile(rng, count, 9)
    return canvas.paint(image, _earth(rng, count, (0.2, 0.4)) * 0.6, canvas.fill(hedge))


def _windows(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((u % 1 > 0.45) & (v % 1 > 0.45)).astype(np.float32)


def _skyline(rng: np.random.Generator, count: int) -> np.ndarray:
    image = _sky(rng, count)
    for _ in range(6):
        x, half = uniform(rng, count, -1, 1), uniform(rng, count, 0.12, 0.28)
        top = uniform(rng, count, -0.7, 0.4)
        wall = canvas.colour(rng, count, (0, 1), (0, 0.35), (0.1, 0.8))
        lamp = canvas.colour(rng, count, (0.05, 0.65), (0, 0.5), (0.1, 1))
        body = canvas.fill(np.maximum(abs(canvas.X - x) - half, top - canvas.Y))
        image = canvas.paint(image, wall, body)
        glass = _windows((canvas.X - x + half) * 5.4, (canvas.Y - top) * 5.4)
        image = canvas.paint(image, lamp, body * glass * 0.9)
    return _below(image, _earth(rng, count, (0, 1)), uniform(rng, count, 0.6, 0.9))


def _street(rng: np.random.Generator, count: int) -> np.ndarray:
    """A road between two rows of houses that run to a vanishing point."""
    x, y = canvas.X - uniform(rng, count, -0.3, 0.3), canvas.Y - uniform(rng, count, -0.2, 0.2)
    image = _sky(rng, count)
    depth = np.maximum(abs(x), 0.05)
    for side in (-1, 1):
        tall = uniform(rng, count, 0.7, 1.8)
        wall = canvas.colour(rng, count, (0, 1), (0, 0.5), (0.2, 0.9))
        body = canvas.fill(np.maximum(-y - tall * side * x, y - 0.9 * side * x)) * (side * x > 0.05)
        image = canvas.paint(image, wall, body)
        glass = _windows(uniform(rng, count, 1, 1.6) / depth, 4 * y / depth)
        image = canvas.paint(image, 0.5 * wall, body * glass * 0.8)
    road = canvas.fill(abs(x) - 0.9 * y)
    tarmac = canvas.colour(rng, count, (0, 1), (0, 0.15), (0.15, 0.6))
    image = canvas.paint(image, backdrop(rng, tarmac), road * (y > 0))
    line = canvas.fill(abs(x) - 0.06 * y) * (y > 0) * (np.sin(6 / np.maximum(y, 0.05)) > 0)
    return canvas.paint(image, 0.95, line)


def _room(rng: np.random.Generator, count: int) -> np.ndarray:
    """Back wall, side walls, floor and ceiling, with a window or a picture and a box."""
    x, y = canvas.X - uniform(rng, count, -0.3, 0.3), canvas.Y - uniform(rng, count, -0.2, 0.2)
    wide, tall = uniform(rng, count, 0.35, 0.7), uniform(rng, count, 0.3, 0.6)
    wall = canvas.colour(rng, count, (0, 1), (0, 0.5), (0.3, 0.95))
    floor = backdrop(rng, canvas.colour(rng, count, (0, 0.15), (0, 0.7), (0.15, 0.7)))
    inside = np.maximum(abs(x) - wide, abs(y) - tall)
    image = wall * 0.75
    vertical = canvas.fill(abs(x) / wide - abs(y) / tall, 0.15)
    image = canvas.paint(image, floor, vertical * (y > 0))
    image = canvas.paint(image, np.clip(wall * 1.2, 0, 1), vertical * (y < 0))
    image = canvas.paint(image, backdrop(rng, wall, 0.2), canvas.fill(inside))
    frame_x, frame_y = x - wide * uniform(rng, count, -0.5, 0.5), y + tall * 0.3
    frame = np.maximum(abs(frame_x) - uniform(rng, count, 0.1, 0.25), abs(frame_y) - 0.18)
    image = canvas.paint(image, canvas.colour(rng, count), canvas.fill(frame))
    box_x, box_y = x - uniform(rng, count, -0.5, 0.5), y - tall - uniform(rng, count, 0, 0.2)
    box = np.maximum(abs(box_x) - uniform(rng, count, 0.15, 0.35), abs(box_y) - 0.15)
    return canvas.paint(image, canvas.colour(rng, count, value=(0.1, 0.8)), canvas.fill(box))


def _canyon(rng: np.random.Generator, count: int) -> np.ndarray:
    """Layered rock walls on both sides of an opening."""
    rock = canvas.colour(rng, count, (0, 0.14), (0.1, 0.7), (0.3, 0.8))
    tilt = uniform(rng, count, -0.3, 0.3) * canvas.X + 0.3 * canvas.noise(rng, count, 4)
    layers = np.sin(uniform(rng, count, 8, 18) * (canvas.Y + tilt))
    stone = rock * (1 + 0.35 * layers[:, None])
    gap = uniform(rng, count, 0.15, 0.45) + uniform(rng, count, 0, 0.3) * -canvas.Y
    edge = 0.25 * (canvas.noise(rng, count, 8) - 0.5)
    walls = canvas.fill(gap + edge - abs(canvas.X - uniform(rng, count, -0.4, 0.4)))
    image = _below(_sky(rng, count), _earth(rng, count, (0.0, 0.4)), uniform(rng, count, 0.2, 0.8))
    return canvas.paint(image, stone, walls)


_SCENES = (_coast, _mountain, _forest, _field, _skyline, _street, _room, _canyon)


def scenes(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Landscapes, streets and rooms at any time of day."""
    count = len(labels)
    image = np.zeros((count, 3, canvas.SIZE, canvas.SIZE), np.float32)
    for label, family in enumerate(_SCENES):
        chosen = labels == label
        if chosen.any():
            image[chosen] = family(rng, int(chosen.sum()))
    # A third of the pictures are grey, as in 15 Scenes.
    grey = rng.random((count, 1, 1, 1)) < 0.33
    image = np.where(grey, image.mean(1, keepdims=True), image)
    flip = rng.random((count, 1, 1, 1)) < 0.5
    image = np.where(flip, image[..., ::-1], image)
    gain = uniform(rng, count, 0.5, 1.1, 1, 1, 1)
    return canvas.develop(rng, image * gain, (0.0, 0.1))


def faces(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Drawn faces of many people; the label is the expression."""
    count = len(labels)
    kind = labels[:, None, None]
    image = backdrop(rng, canvas.colour(rng, count, value=(0.1, 0.95)), 0.8)
    u, v = canvas.pose(rng, count, scale=(0.7, 1.0), angle=0.3, shift=0.12, stretch=0.25)
    skin = canvas.colour(rng, count, (0.03, 0.1), (0.15, 0.65), (0.3, 1))
    hair = canvas.colour(rng, count, (0, 0.15), (0, 0.8), (0.05, 0.9))
    ink = skin * uniform(rng, count, 0.1, 0.4, 1, 1, 1)
    head = np.hypot(u, v * uniform(rng, count, 0.75, 0.9))
    image = canvas.paint(image, hair, canvas.fill(np.hypot(u, v + 0.12) - 0.92, 0.08))
    image = canvas.paint(image, backdrop(rng, skin, 0.3), canvas.fill(head - 0.78, 0.08))
    fringe = canvas.fill(head - 0.8) * canvas.fill(v + uniform(rng, count, 0.5, 0.75), 0.08)
    image = canvas.paint(image, hair, fringe)

    apart, eye_y = uniform(rng, count, 0.26, 0.36), uniform(rng, count, -0.24, -0.12)
    open_eye = np.where(kind == 3, 1.4, 1) * uniform(rng, count, 0.07, 0.11)
    slant = np.where(kind == 4, 0.55, np.where(kind == 2, -0.45, 0)) + uniform(
        rng, count, -0.12, 0.12
    )
    winking = rng.choice((-1, 1), (count, 1, 1))
    for side in (-1, 1):
        x, y = u - side * apart, v - eye_y
        closed = (kind == 5) & (winking == side)
        ball = canvas.fill(np.hypot(x * 0.8, y) - open_eye)
        image = canvas.paint(image, 0.95, ball * ~closed)
        image = canvas.paint(
            image, ink * 0.4, canvas.fill(np.hypot(x, y) - 0.6 * open_eye) * ~closed
        )
        image = canvas.paint(image, ink, _line(x, y - 0.5 * x * x, 0.14) * closed)
        lift = np.where(kind == 3, 0.3, 0.2)
        image = canvas.paint(image, hair * 0.6, _line(x, y + lift + side * slant * x, 0.17))

    nose = _line(v - 0.08, u - 0.05 * np.sign(slant), 0.1)
    image = canvas.paint(image, ink, 0.5 * nose)
    mouth_y = v - uniform(rng, count, 0.38, 0.46)
    smiling = np.where((kind == 1) | ((kind == 5) & (winking > 0)), 1, 0)
    sad = (kind == 2) | (kind == 4)
    bend = np.where(smiling, 2.4, np.where(sad, -2.2, 0)) * uniform(rng, count, 0.6, 1.1)
    half = uniform(rng, count, 0.26, 0.36)
    lips = canvas.colour(rng, count, (-0.04, 0.04), (0.3, 0.8), (0.2, 0.6))
    image = canvas.paint(image, lips, _line(u, mouth_y + bend * (u * u - 0.04), half) * (kind != 3))
    gape = np.hypot(u, mouth_y * uniform(rng, count, 0.6, 0.9)) - uniform(rng, count, 0.12, 0.17)
    image = canvas.paint(image, ink * 0.3, canvas.fill(gape) * (kind == 3))

    rim = abs(np.hypot(abs(u) - apart, v - eye_y) - 0.2) - 0.02
    glasses = canvas.fill(rim) * (rng.random((count, 1, 1)) < 0.3)
    image = canvas.paint(image, 0.1, glasses)
    light = uniform(rng, count, -0.3, 0.3) * u + uniform(rng, count, 0.6, 1.05)
    return canvas.develop(rng, image * light[:, None], (0.0, 0.06))


def _line(along: np.ndarray, across: np.ndarray, half: np.ndarray | float) -> np.ndarray:
    """A stroke of about two pixels, from -half to half."""
    return canvas.fill(abs(across) - 0.06) * canvas.fill(abs(along) - half)
