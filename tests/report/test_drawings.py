"""Figures show the numbers that they are given, whatever their names."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ctl_jax.report import drawings, figures
from ctl_jax.report.aggregate import Point

CURVES = {
    "dense": {"1e11 flops": Point(0.4, 0.02, 2), "1e12 flops": Point(0.8, 0.01, 2)},
    "filters@0.5": {"1e11 flops": Point(0.6, None, 1)},
}
BUDGETS = {"1e11 flops": 10**11, "1e12 flops": 10**12}


def _pixels(figure):
    image = Image.open(io.BytesIO(figures.png(figure)))
    assert image.format == "PNG"
    assert "Software" not in image.info
    return np.asarray(image.convert("RGB"))


def _has(pixels, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((pixels == np.array(rgb, np.uint8)).all(axis=-1).any())


def test_lines_have_the_colours_of_their_methods():
    methods = ["dense", "filters@0.5", "absent"]
    pixels = _pixels(drawings.accuracy("A task", "accuracy", CURVES, methods, BUDGETS, chance=0.1))
    chosen = figures.styles(methods)
    assert _has(pixels, chosen["dense"].colour)
    assert _has(pixels, chosen["filters@0.5"].colour)
    assert not _has(pixels, chosen["absent"].colour)


def test_spread_is_drawn():
    flat = {"dense": {b: Point(p.mean, None, 1) for b, p in CURVES["dense"].items()}}
    with_bars = drawings.accuracy("t", "accuracy", {"dense": CURVES["dense"]}, ["dense"], BUDGETS)
    without = drawings.accuracy("t", "accuracy", flat, ["dense"], BUDGETS)
    assert figures.png(without) != figures.png(with_bars)


@pytest.mark.parametrize("title", ["costs $5 and $6", r"$\frac$", "<b>", "_x"])
def test_titles_are_no_formulas(title):
    method = f"filters {title}"
    curves = {method: {"1e11 flops": Point(0.5, None, 1)}}
    _pixels(drawings.accuracy(title, "accuracy", curves, [method], BUDGETS))


def test_many_budgets_keep_their_labels_apart():
    budgets = {f"{i} epochs": int(10**11 * 1.5**i) for i in range(1, 21)}
    curve = {name: Point(0.1 + 0.02 * i, None, 1) for i, name in enumerate(budgets)}
    _pixels(drawings.accuracy("many", "accuracy", {"dense": curve}, ["dense"], budgets))


def test_budgets_are_named_as_the_config_does():
    """FLOPs by their number, since the axis says their unit; others with their unit."""
    names = []
    flops, both = {"100000000000 flops": 10**11}, {"30 seconds": 10**9, "1e11 flops": 10**11}
    for budgets in (flops, {"2 epochs": 10**11}, both):
        axes = Figure().add_subplot()
        drawings._budget_axis(axes, budgets)
        names.append([label.get_text() for label in axes.get_xticklabels()])
    assert names == [["100 G"], ["2 epochs"], ["30 s", "100 GFLOP"]]
