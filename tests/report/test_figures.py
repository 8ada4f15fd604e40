"""Figures are the same bytes each time, whatever the user's matplotlibrc says."""

import matplotlib

from ctl_jax.report import drawings, figures
from ctl_jax.report.aggregate import Point

CURVES = {
    "dense": {"1e11 flops": Point(0.4, 0.02, 2), "1e12 flops": Point(0.8, 0.01, 2)},
    "filters@0.5": {"1e11 flops": Point(0.6, None, 1)},
}
BUDGETS = {"1e11 flops": 10**11, "1e12 flops": 10**12}


def test_bytes_do_not_depend_on_the_users_style():
    drawn = ("Gain", "accuracy", CURVES, ["dense", "filters@0.5"], BUDGETS)
    first = figures.png(drawings.relative(*drawn)), figures.pdf(drawings.relative(*drawn))
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 22}):
        figure = drawings.relative(*drawn)
        assert (figures.png(figure), figures.pdf(figure)) == first
        assert matplotlib.rcParams["font.size"] == 22


def test_a_pdf_has_letters_and_no_title():
    figure = drawings.accuracy("A title", "accuracy", CURVES, ["dense"], BUDGETS)
    content = figures.pdf(figure)
    assert content.startswith(b"%PDF")
    # Letters of a font, not of PDF's Type 3; one font, since only titles are bold.
    assert content.count(b"/FontFile2") == 1
    assert b"/Type3" not in content
    assert b"CreationDate" not in content
    assert figure.axes[0].get_title(loc="left") == "A title"


def test_styles_keep_to_their_methods_and_differ():
    methods = ["a", "dense", *map(str, range(17))]
    chosen = figures.styles(methods)
    assert chosen["dense"].colour == "#000000"
    assert figures.styles(methods[:4])["0"] == chosen["0"]
    assert len(set(map(repr, chosen.values()))) == len(methods)


def test_axes_make_room_for_the_legend_and_the_title():
    def axes_of(title, methods):
        curves = dict.fromkeys(methods, CURVES["dense"])
        figure = drawings.accuracy(title, "accuracy", curves, methods, BUDGETS)
        figures.png(figure)
        inches = figure.get_size_inches()[1]
        legend = figure.legends[0].get_window_extent().ymax / figure.dpi
        box = figure.axes[0].get_tightbbox()
        return figure, legend, box.ymin / figure.dpi, box.ymax / figure.dpi, inches

    for methods in (["dense"], [f"filters@{i}" for i in range(20)]):
        for title in ("A task", "words " * 30):
            figure, legend, low, high, inches = axes_of(title, methods)
            assert legend < low < high < inches
            assert figure.axes[0].get_tightbbox().xmin > 0
