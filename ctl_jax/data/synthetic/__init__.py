"""Data that the package carries: small tasks of every Nevis'22 domain, and one to pretrain on."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from ctl_jax.data.synthetic import canvas, objects, source, surfaces, textures, views

# Part of the folder name of what is prepared: raise it when any image changes.
VERSION = "1.0.1"
# The TFDS builder that makes them, each as a configuration of it.
BUILDER = "ctl_jax"

# Images are drawn in batches of this size, each with its own random numbers.
_BATCH = 256

Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class SyntheticTask:
    """A set of images that is made, not downloaded.

    Attributes:
      name: its name, also in file names.
      title: name for people.
      domain: one of the domains of Nevis'22.
      classes: the names of the classes.
      sizes: examples of train, dev, dev_test and test.
      seed: of its random numbers.
      draw: makes uint8 images [N, 32, 32, 3] for labels [N]; None for the real digits.
    """

    name: str
    title: str
    domain: str
    classes: tuple[str, ...]
    sizes: tuple[int, int, int, int]
    seed: int
    draw: Draw | None


_SIZES = (1500, 400, 400, 500)
_SIGNS = tuple(f"{a} {b}" for a in objects.SIGN_BORDERS for b in objects.SIGN_SYMBOLS)

_ALL = (
    SyntheticTask("digits", "Digits", "ocr", tuple("0123456789"), (1000, 250, 250, 297), 0, None),
    SyntheticTask(
        "letters",
        "Letters",
        "ocr",
        tuple(objects.LETTERS),
        (2000, 400, 400, 500),
        1,
        objects.letters,
    ),
    SyntheticTask(
        "textures", "Textures", "texture", tuple(textures.TASK), _SIZES, 2, objects.texture
    ),
    SyntheticTask("shapes", "Shapes", "shape", objects.SHAPES, _SIZES, 3, objects.shapes),
    SyntheticTask("signs", "Signs", "object", _SIGNS, _SIZES, 4, objects.signs),
    SyntheticTask(
        "counting", "Counting", "counting", tuple("12345678"), _SIZES, 5, objects.counting
    ),
    SyntheticTask(
        "land_cover", "Land cover", "satellite", surfaces.LAND, _SIZES, 6, surfaces.land_cover
    ),
    SyntheticTask(
        "blood_cells", "Blood cells", "medical", surfaces.CELLS, _SIZES, 7, surfaces.cells
    ),
    SyntheticTask("quality", "Quality", "quality", surfaces.DEFECTS, _SIZES, 8, surfaces.quality),
    SyntheticTask("scenes", "Scenes", "scene", views.SCENES, _SIZES, 9, views.scenes),
    SyntheticTask("faces", "Faces", "face", views.EXPRESSIONS, _SIZES, 10, views.faces),
)

# The stream "synthetic", in its order.
TASKS = {task.name: task for task in _ALL}
SOURCES = {
    "synthetic_source": SyntheticTask(
        "synthetic_source",
        "Synthetic source",
        "object",
        source.CLASSES,
        (20000, 1000, 1000, 1000),
        100,
        source.draw,
    )
}


def folder(task: SyntheticTask, data_dir: pathlib.Path) -> pathlib.Path:
    """Where a task's data set is in a TFDS data folder, once it is made."""
    return data_dir / BUILDER / task.name / VERSION


def examples(task: SyntheticTask) -> Iterator[tuple[np.ndarray, int]]:
    """All images (uint8 [32, 32, 3]) and labels of a task: train, then dev, dev_test and test.

    The same on every machine, up to the last bit of its floating-point functions.
    """
    if task.draw is None:
        yield from _digits(task.seed)
        return
    total = sum(task.sizes)
    # Each split is balanced to within one example, and so is each batch.
    labels = np.arange(total) % len(task.classes)
    for start in range(0, total, _BATCH):
        part = labels[start : start + _BATCH]
        rng = np.random.default_rng([task.seed, start])
        yield from zip(task.draw(rng, part), part.tolist(), strict=True)


def _digits(seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """The handwritten digits of the UCI repository, 8x8, as scikit-learn carries them."""
    from PIL import Image
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    # The file is in order of writers, a few dozen digits each: mixed, so that splits are alike.
    for index in np.random.default_rng(seed).permutation(len(labels)):
        small = Image.fromarray(np.round(images[index] * (255 / 16)).astype(np.uint8).reshape(8, 8))
        large = small.resize((canvas.SIZE, canvas.SIZE), Image.Resampling.BICUBIC)
        yield np.asarray(large.convert("RGB")), int(labels[index])
