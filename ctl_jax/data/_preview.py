"""A picture of a data set: samples of each class, and how many examples each split has."""

import io
import textwrap
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ctl_jax.data import images
from ctl_jax.data.dataset import DataSet, Example, Records
from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError

_CLASSES = 20  # rows
_SAMPLES = 10  # columns
_SIDE = 64  # pixels
_GAP = 2
# Of a large split so many examples are looked at, in blocks from all over it.
_LOOKED_AT = 16_384
_BLOCK = 64
_NAME = 28  # characters of a class's name


def render(title: str, dataset: DataSet) -> bytes:
    """Draws a data set.

    Args:
      title: its name.
      dataset: any; of a large one not every example is read.

    Returns:
      A PNG: at most 20 classes, spread over all of them, with up to 10 images of train each; and
      the number of examples of each split.

    Raises:
      UserError: an image is damaged.
    """
    found = samples(dataset.splits["train"], _SAMPLES)
    # Of many classes some, from the first to the last.
    chosen = sorted(found)
    if len(chosen) > _CLASSES:
        places = np.linspace(0, len(chosen) - 1, _CLASSES).round().astype(int)
        chosen = [chosen[place] for place in places]
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        # A class's name may be in a script that the font does not have.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        height = 1.6 + 0.42 * max(len(chosen), 4)
        figure = Figure(figsize=(10, height), dpi=120, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 1))
        figure.suptitle(textwrap.shorten(title, 80), parse_math=False)
        _draw_samples(left, dataset, chosen, found)
        _draw_counts(right, dataset)
        content = io.BytesIO()
        FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()


def samples(records: Records, count: int) -> dict[int, list[Example]]:
    """Up to `count` examples of each class, or of each label that an image may have.

    Args:
      records: a split; of a large one, blocks from all over it are read.
      count: of each class.

    Returns:
      Class to examples, without those that no example read is of.
    """
    found: dict[int, list[Example]] = {}
    blocks = -(-len(records) // _BLOCK)
    wanted = min(blocks, _LOOKED_AT // _BLOCK)
    for block in np.unique(np.linspace(0, blocks - 1, wanted).astype(int)):
        start = int(block) * _BLOCK
        for example in records.read(start, min(start + _BLOCK, len(records))):
            label = example.label
            classes = np.flatnonzero(label) if isinstance(label, np.ndarray) else [label]
            for number in map(int, classes):
                of_class = found.setdefault(number, [])
                if len(of_class) < count:
                    of_class.append(example)
    return found


def _draw_samples(
    axes: Axes, dataset: DataSet, chosen: Sequence[int], found: dict[int, list[Example]]
) -> None:
    step = _SIDE + _GAP
    canvas = np.full((step * max(len(chosen), 1), step * _SAMPLES, 3), 255, np.uint8)
    for row, number in enumerate(chosen):
        for column, example in enumerate(found[number]):
            top, left = row * step, column * step
            canvas[top : top + _SIDE, left : left + _SIDE] = _decoded(example)
    axes.imshow(canvas, interpolation="nearest")
    names = dataset.class_names
    labels = [
        textwrap.shorten(names[number], _NAME, placeholder="...") if names else f"class {number}"
        for number in chosen
    ]
    middles = [row * step + _SIDE / 2 for row in range(len(chosen))]
    axes.set_yticks(middles, labels, fontsize=8, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    kind = "labels" if dataset.kind == "multi_label" else "classes"
    axes.set_title(f"{len(chosen)} of {dataset.num_classes} {kind}", fontsize=10)


def _decoded(example: Example) -> np.ndarray:
    try:
        return images.decode(example.content, _SIDE)
    except OSError as error:
        raise UserError(f"{example.where}: {error}") from error


def _draw_counts(axes: Axes, dataset: DataSet) -> None:
    counts = [len(dataset.splits[name]) for name in SPLITS]
    bars = axes.barh(SPLITS, counts, color="#0072B2")
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * max(*counts, 1))
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title("examples of each split", fontsize=10)
