"""Texture families: functions (rng, count) -> float32 [count, 32, 32] in about 0..1."""

from collections.abc import Callable, Mapping

import numpy as np

from ctl_jax.data.synthetic import canvas

Family = Callable[[np.random.Generator, int], np.ndarray]


def _plane(
    rng: np.random.Generator, count: int, period: tuple[float, float] = (0.25, 0.55)
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in periods, rotated at random, slightly bent, with a random phase."""
    u, v = canvas.pose(rng, count, scale=period, angle=np.pi, shift=1, stretch=0.3, wobble=0.15)
    return u, v


def _edge(value: np.ndarray, sharpness: float = 6.0) -> np.ndarray:
    """A soft threshold at zero."""
    return np.clip(0.5 + sharpness * value / 2, 0, 1)


def _cell(value: np.ndarray) -> np.ndarray:
    """Position within a period, -0.5..0.5."""
    return value - np.round(value)


def _stripes(rng: np.random.Generator, count: int) -> np.ndarray:
    u, _ = _plane(rng, count)
    return _edge(np.sin(2 * np.pi * u) - canvas.uniform(rng, count, -0.5, 0.5), 3)


def _checks(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.4, 0.8))
    return _edge(np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v))


def _dots(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.3, 0.55))
    radius = canvas.uniform(rng, count, 0.2, 0.38)
    return _edge(radius - np.hypot(_cell(u), _cell(v)), 12)


def _bricks(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.35, 0.6))
    u = u / 2 + 0.5 * (np.round(v) % 2)
    joint = canvas.uniform(rng, count, 0.06, 0.14)
    return np.minimum(
        _edge(0.5 - joint / 2 - abs(_cell(u)), 14), _edge(0.5 - joint - abs(_cell(v)))
    )


def _waves(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.3, 0.55))
    bend = canvas.uniform(rng, count, 0.25, 0.45)
    return _edge(np.sin(2 * np.pi * (u + bend * np.sin(2 * np.pi * v / 2))), 3)


def _clouds(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.clip(0.5 + 2.2 * (canvas.fractal(rng, count, (3, 6, 12)) - 0.5), 0, 1)


def _voronoi(rng: np.random.Generator, count: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest and the second nearest of random points."""
    nearest = np.full((count, canvas.SIZE, canvas.SIZE), 9, np.float32)
    second = nearest.copy()
    for _ in range(points):
        x = canvas.uniform(rng, count, -1.2, 1.2)
        y = canvas.uniform(rng, count, -1.2, 1.2)
        distance = np.hypot(canvas.X - x, canvas.Y - y)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return nearest, second


def _cracks(rng: np.random.Generator, count: int) -> np.ndarray:
    nearest, second = _voronoi(rng, count, 18)
    return _edge(second - nearest - canvas.uniform(rng, count, 0.06, 0.12), 14)


def _scales(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.4, 0.65))
    row = np.floor(v)
    result = np.zeros_like(u)
    # Each pixel is covered by scales of its own row and of the one below, which lies on top.
    for below in (0, 1):
        x = _cell(u + 0.5 * ((row + below) % 2))
        y = v - row - below + 0.5
        distance = np.hypot(x, y * 0.8)
        result = np.where(distance < 0.62, np.clip(1.1 - 1.6 * distance, 0, 1), result)
    return result


def _grain(rng: np.random.Generator, count: int) -> np.ndarray:
    fine = rng.random((count, canvas.SIZE, canvas.SIZE), dtype=np.float32)
    size = canvas.uniform(rng, count, 0, 0.6)
    soft = (fine + np.roll(fine, 1, 1) + np.roll(fine, 1, 2) + np.roll(fine, (1, 1), (1, 2))) / 4
    return np.clip(0.5 + 1.3 * ((1 - size) * fine + size * soft - 0.5), 0, 1)


def _weave(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.35, 0.6))
    over = (np.floor(u) + np.floor(v)) % 2
    across = np.cos(np.pi * _cell(u - 0.5)) * (0.6 + 0.4 * np.cos(2 * np.pi * _cell(v - 0.5)))
    along = np.cos(np.pi * _cell(v - 0.5)) * (0.6 + 0.4 * np.cos(2 * np.pi * _cell(u - 0.5)))
    return np.where(over > 0, 0.15 + 0.85 * across, 0.75 * along)


def _rings(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = canvas.pose(rng, count, scale=(0.2, 0.4), shift=0.7, stretch=0.4)
    return _edge(np.sin(2 * np.pi * np.hypot(u, v)), 3)


def _rays(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = canvas.pose(rng, count, angle=np.pi, shift=0.7, wobble=0.2)
    arms = rng.integers(4, 10, (count, 1, 1)).astype(np.float32)
    return _edge(np.sin(arms * np.arctan2(v, u)), 3)


def _spiral(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = canvas.pose(rng, count, scale=(0.3, 0.5), angle=np.pi, shift=0.6)
    arms = (rng.integers(1, 4, (count, 1, 1)) * rng.choice((-1, 1), (count, 1, 1))).astype(
        np.float32
    )
    return _edge(np.sin(2 * np.pi * np.hypot(u, v) + arms * np.arctan2(v, u)), 3)


def _hexagons(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.35, 0.6))
    third = np.float32(2 * np.pi / 3)
    parts = [np.cos(2 * np.pi * (u * np.cos(k * third) + v * np.sin(k * third))) for k in range(3)]
    return _edge(np.sum(parts, axis=0) + canvas.uniform(rng, count, -0.3, 0.8), 3)


def _chevrons(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.3, 0.5))
    return _edge(np.sin(2 * np.pi * (u + 1.6 * abs(_cell(v / 2)))), 3)


def _plaid(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.5, 0.9))
    broad = _edge(np.sin(2 * np.pi * u), 4) + _edge(np.sin(2 * np.pi * v), 4)
    fine = (abs(_cell(u)) < 0.06) | (abs(_cell(v)) < 0.06)
    return np.where(fine, 1 - broad / 2, broad / 2)


def _crosses(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.45, 0.75))
    a, b = abs(_cell(u)), abs(_cell(v))
    return np.maximum(
        np.minimum(_edge(0.09 - a, 14), _edge(0.33 - b, 14)),
        np.minimum(_edge(0.09 - b, 14), _edge(0.33 - a, 14)),
    )


def _triangles(rng: np.random.Generator, count: int) -> np.ndarray:
    u, v = _plane(rng, count, (0.45, 0.75))
    return _edge((u % 1) - (v % 1), 10)


def _marble(rng: np.random.Generator, count: int) -> np.ndarray:
    u, _ = _plane(rng, count, (0.5, 0.9))
    return 0.5 + 0.5 * np.sin(2 * np.pi * (u + 2.5 * canvas.fractal(rng, count, (3, 6))))


def _patches(rng: np.random.Generator, count: int) -> np.ndarray:
    result = np.zeros((count, canvas.SIZE, canvas.SIZE), np.float32)
    nearest = np.full_like(result, 9)
    for _ in range(14):
        x, y = canvas.uniform(rng, count, -1, 1), canvas.uniform(rng, count, -1, 1)
        distance = np.hypot(canvas.X - x, canvas.Y - y)
        result = np.where(distance < nearest, canvas.uniform(rng, count, 0, 1), result)
        nearest = np.minimum(nearest, distance)
    return result


def _spots(rng: np.random.Generator, count: int) -> np.ndarray:
    nearest, _ = _voronoi(rng, count, 14)
    return _edge(canvas.uniform(rng, count, 0.1, 0.18) - nearest, 14)


def _scratches(rng: np.random.Generator, count: int) -> np.ndarray:
    result = np.zeros((count, canvas.SIZE, canvas.SIZE), np.float32)
    for _ in range(9):
        u, v = canvas.pose(rng, count, angle=np.pi, shift=0.9)
        line = canvas.fill(abs(v) - 0.04) * canvas.fill(abs(u) - 0.45)
        result = np.maximum(result, line * canvas.uniform(rng, count, 0.5, 1))
    return result


def _terraces(rng: np.random.Generator, count: int) -> np.ndarray:
    height = canvas.noise(rng, count, 4)
    return _edge(np.sin(2 * np.pi * 4 * height), 3)


# Two disjoint sets: what the texture task asks for is not in the source task.
TASK: Mapping[str, Family] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "bricks": _bricks,
    "waves": _waves,
    "clouds": _clouds,
    "cracks": _cracks,
    "scales": _scales,
    "grain": _grain,
    "weave": _weave,
}
SOURCE: Mapping[str, Family] = {
    "rings": _rings,
    "rays": _rays,
    "spiral": _spiral,
    "hexagons": _hexagons,
    "chevrons": _chevrons,
    "plaid": _plaid,
    "crosses": _crosses,
    "triangles": _triangles,
    "marble": _marble,
    "patches": _patches,
    "spots": _spots,
    "scratches": _scratches,
    "terraces": _terraces,
}


def draw(
    rng: np.random.Generator, labels: np.ndarray, families: Mapping[str, Family]
) -> np.ndarray:
    """A field of its label's family for each image, [N, 32, 32]."""
    result = np.zeros((len(labels), canvas.SIZE, canvas.SIZE), np.float32)
    for label, family in enumerate(families.values()):
        chosen = labels == label
        if chosen.any():
            result[chosen] = family(rng, int(chosen.sum()))
    return result
