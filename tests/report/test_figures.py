"""Figures are pictures, the same bytes each time, whatever the user's matplotlibrc says."""

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ctl_jax.report import figures
from ctl_jax.report.curves import Point

CURVES = {
    "dense": {10**11: Point(0.4, 0.02, 2), 10**12: Point(0.8, 0.01, 2)},
    "filters@0.5": {10**11: Point(0.6, None, 1)},
}


def _pixels(png):
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert "Software" not in image.info
    return np.asarray(image.convert("RGB"))


def _has(pixels, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((pixels == np.array(rgb, np.uint8)).all(axis=-1).any())


def test_lines_have_the_colours_of_their_methods():
    methods = ["dense", "filters@0.5", "absent"]
    pixels = _pixels(figures.accuracy("A task", "accuracy", CURVES, methods, chance=0.1))
    chosen = figures.styles(methods)
    assert _has(pixels, chosen["dense"].colour)
    assert _has(pixels, chosen["filters@0.5"].colour)
    assert not _has(pixels, chosen["absent"].colour)


def test_bytes_do_not_depend_on_the_users_style():
    first = figures.relative("Gain", "accuracy", CURVES, ["dense", "filters@0.5"])
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 22}):
        assert figures.relative("Gain", "accuracy", CURVES, ["dense", "filters@0.5"]) == first
        assert matplotlib.rcParams["font.size"] == 22


def test_spread_is_drawn():
    flat = {"dense": {b: Point(p.mean, None, 1) for b, p in CURVES["dense"].items()}}
    with_bars = figures.accuracy("t", "accuracy", {"dense": CURVES["dense"]}, ["dense"])
    assert figures.accuracy("t", "accuracy", flat, ["dense"]) != with_bars


@pytest.mark.parametrize("title", ["costs $5 and $6", r"$\frac$", "<b>", "_x"])
def test_titles_are_no_formulas(title):
    method = f"filters {title}"
    curves = {method: {10**11: Point(0.5, None, 1)}}
    _pixels(figures.accuracy(title, "accuracy", curves, [method]))


def test_styles_keep_to_their_methods_and_differ():
    methods = ["a", "dense", *map(str, range(17))]
    chosen = figures.styles(methods)
    assert chosen["dense"].colour == "#000000"
    assert figures.styles(methods[:4])["0"] == chosen["0"]
    assert len(set(map(repr, chosen.values()))) == len(methods)


def test_many_budgets_keep_their_labels_apart():
    budgets = {int(10**11 * 1.5**i): Point(0.1 + 0.02 * i, None, 1) for i in range(20)}
    _pixels(figures.accuracy("many", "accuracy", {"dense": budgets}, ["dense"]))
