"""Figures are pictures, the same bytes each time, whatever the user's matplotlibrc says."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ctl_jax.report import figures
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
    pixels = _pixels(figures.accuracy("A task", "accuracy", CURVES, methods, BUDGETS, chance=0.1))
    chosen = figures.styles(methods)
    assert _has(pixels, chosen["dense"].colour)
    assert _has(pixels, chosen["filters@0.5"].colour)
    assert not _has(pixels, chosen["absent"].colour)


def test_bytes_do_not_depend_on_the_users_style():
    drawn = ("Gain", "accuracy", CURVES, ["dense", "filters@0.5"], BUDGETS)
    first = figures.png(figures.relative(*drawn)), figures.pdf(figures.relative(*drawn))
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 22}):
        figure = figures.relative(*drawn)
        assert (figures.png(figure), figures.pdf(figure)) == first
        assert matplotlib.rcParams["font.size"] == 22


def test_spread_is_drawn():
    flat = {"dense": {b: Point(p.mean, None, 1) for b, p in CURVES["dense"].items()}}
    with_bars = figures.accuracy("t", "accuracy", {"dense": CURVES["dense"]}, ["dense"], BUDGETS)
    without = figures.accuracy("t", "accuracy", flat, ["dense"], BUDGETS)
    assert figures.png(without) != figures.png(with_bars)


def test_a_pdf_has_letters_and_no_title():
    figure = figures.accuracy("A title", "accuracy", CURVES, ["dense"], BUDGETS)
    content = figures.pdf(figure)
    assert content.startswith(b"%PDF")
    # Letters of a font, not of PDF's Type 3; one font, since only titles are bold.
    assert content.count(b"/FontFile2") == 1
    assert b"/Type3" not in content
    assert b"CreationDate" not in content
    assert figure.axes[0].get_title(loc="left") == "A title"


@pytest.mark.parametrize("title", ["costs $5 and $6", r"$\frac$", "<b>", "_x"])
def test_titles_are_no_formulas(title):
    method = f"filters {title}"
    curves = {method: {"1e11 flops": Point(0.5, None, 1)}}
    _pixels(figures.accuracy(title, "accuracy", curves, [method], BUDGETS))


def test_styles_keep_to_their_methods_and_differ():
    methods = ["a", "dense", *map(str, range(17))]
    chosen = figures.styles(methods)
    assert chosen["dense"].colour == "#000000"
    assert figures.styles(methods[:4])["0"] == chosen["0"]
    assert len(set(map(repr, chosen.values()))) == len(methods)


def test_many_budgets_keep_their_labels_apart():
    budgets = {f"{i} epochs": int(10**11 * 1.5**i) for i in range(1, 21)}
    curve = {name: Point(0.1 + 0.02 * i, None, 1) for i, name in enumerate(budgets)}
    _pixels(figures.accuracy("many", "accuracy", {"dense": curve}, ["dense"], budgets))


def test_budgets_are_named_as_the_config_does():
    """FLOPs by their number, since the axis says their unit; others with their unit."""
    names = []
    flops, both = {"100000000000 flops": 10**11}, {"30 seconds": 10**9, "1e11 flops": 10**11}
    for budgets in (flops, {"2 epochs": 10**11}, both):
        axes = Figure().add_subplot()
        figures._budget_axis(axes, budgets)
        names.append([label.get_text() for label in axes.get_xticklabels()])
    assert names == [["100 G"], ["2 epochs"], ["30 s", "100 GFLOP"]]
