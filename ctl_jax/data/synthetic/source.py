"""The larger task to pretrain on: 55 classes of glyphs, silhouettes and textures.

None of its classes is one of a synthetic task: other characters, other shapes, other textures.
"""

import numpy as np

from ctl_jax.data.synthetic import atlas, canvas, objects, textures
from ctl_jax.data.synthetic.objects import backdrop, clutter

GLYPHS = "αβγδεζηθλμξπσφψωΓΔΘΛΞΠΣΦΨΩ"
_TASK_SHAPES = {*objects.SHAPES, *objects.SIGN_BORDERS, *objects.SIGN_SYMBOLS}
SHAPES = tuple(name for name in atlas.SILHOUETTES if name not in _TASK_SHAPES)
CLASSES = (*GLYPHS, *SHAPES, *textures.SOURCE)


def draw(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Each class on grounds of every kind, so that no ground gives a class away."""
    count = len(labels)
    low, high = canvas.two_tones(rng, count, (0.2, 0.7))
    other = np.clip(low + canvas.uniform(rng, count, -0.18, 0.18, 3, 1, 1), 0, 1)
    families = len(textures.SOURCE)
    first_shape, first_texture = len(GLYPHS), len(GLYPHS) + len(SHAPES)
    is_texture = (labels >= first_texture)[:, None, None]

    # The ground of a glyph or a silhouette: a faint texture under strokes, of any family.
    family = np.where(
        labels >= first_texture, labels - first_texture, rng.integers(families, size=count)
    )
    field = textures.draw(rng, family, textures.SOURCE)
    faint = canvas.uniform(rng, count, 0, 1) * (rng.random((count, 1, 1)) < 0.5)
    ground = canvas.paint(backdrop(rng, low), other, field * faint)
    ground = canvas.paint(ground, high, clutter(rng, count, 2))
    textured = canvas.paint(backdrop(rng, low), high, field)
    image = np.where(is_texture[:, None], textured, ground)

    fonts = atlas.WIDE_FONTS
    masks = np.concatenate([atlas.glyphs(GLYPHS, fonts), atlas.silhouettes(SHAPES)])
    glyph = labels * len(fonts) + rng.integers(len(fonts), size=count)
    shape = first_shape * len(fonts) + labels - first_shape
    index = np.where(labels < first_shape, glyph, np.minimum(shape, len(masks) - 1))
    angle = np.where(labels < first_shape, 0.5, np.pi).astype(np.float32)[:, None, None]
    u, v = canvas.pose(rng, count, scale=(0.45, 0.9), shift=0.25, stretch=0.4, wobble=0.2)
    turn = angle * canvas.uniform(rng, count, -1, 1)
    u, v = np.cos(turn) * u + np.sin(turn) * v, np.cos(turn) * v - np.sin(turn) * u
    ink = canvas.warp(masks, index, u, v) * ~is_texture
    return canvas.develop(rng, canvas.paint(image, backdrop(rng, high), ink), (0.0, 0.12))
