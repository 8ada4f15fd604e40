"""How every figure looks, and its bytes as PNG and PDF: the same records give the same bytes."""

import contextlib
import dataclasses
import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from ctl_jax.report.aggregate import DENSE

# Okabe and Ito, "Color Universal Design" (2008), which people with any colour vision tell apart;
# without their yellow, which is too light for a line; in its place Tol's wine ("Colour Schemes",
# 2021), from a palette for the same purpose. Black is dense, the baseline.
BLACK = "#000000"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#882255")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
_DASHES = ("-", "--", ":")

_SIZE = (6.4, 4.4)  # inches
_ROW = 0.21  # of a legend, inches
# Around axes whose labels are as short as those of scores: left, right, below with the axis's name,
# above without a title, and a line of it; inches.
_LEFT, _RIGHT, _BELOW, _ABOVE, _LINE = 0.78, 0.12, 0.66, 0.12, 0.21
_DPI = 160
_TITLE = 52  # characters of a title that fit into a line
_STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.9,
    "lines.markersize": 6.5,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.constrained_layout.use": True,
}


@dataclasses.dataclass(frozen=True)
class Style:
    """How a method is drawn, the same in every figure."""

    colour: str
    marker: str
    dash: str


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """Each method's style: by its place in the run, dense always black."""
    others = [method for method in methods if method != DENSE]
    chosen = {
        method: Style(
            COLOURS[index % len(COLOURS)],
            _MARKERS[index % len(_MARKERS)],
            _DASHES[index // len(COLOURS) % len(_DASHES)],
        )
        for index, method in enumerate(others)
    }
    return {DENSE: Style(BLACK, "o", "-"), **chosen}


@contextlib.contextmanager
def canvas(title: str) -> Iterator[tuple[Figure, Axes]]:
    """Gives an empty figure in the style of all; `finished` adds its legend."""
    with _style():
        figure = Figure(figsize=_SIZE, dpi=_DPI)
        axes = figure.add_subplot()
        # Titles come from the catalogue: a dollar sign there is no formula.
        axes.set_title(textwrap.fill(title, _TITLE), parse_math=False)
        yield figure, axes


def finished(figure: Figure, axes: Axes) -> Figure:
    """The figure with its legend."""
    _add_legend(figure, axes, "outside lower center")
    return figure


def placed(figure: Figure, axes: Axes) -> Figure:
    """The figure with its legend, of one axes whose numbers are as short as scores.

    As by `finished`, whose layout measures every label, which takes as long as drawing them.
    """
    figure.set_layout_engine("none")
    rows = _add_legend(figure, axes, "lower center")
    width, height = figure.get_size_inches()
    across = 1 - (_LEFT + _RIGHT) / width
    axes.set_position((_LEFT / width, (_BELOW + _ROW * rows) / height, across, 0.1))
    _make_room(figure)
    return figure


def _add_legend(
    figure: Figure, axes: Axes, where: Literal["lower center", "outside lower center"]
) -> int:
    """Adds a legend, in as many rows as are returned."""
    handles, names = axes.get_legend_handles_labels()
    for beside in figure.axes[1:]:
        more = beside.get_legend_handles_labels()
        handles, names = handles + more[0], names + more[1]
    columns = len(names) if len(names) <= 4 else 3
    rows = -(-len(names) // columns) if names else 0
    # A legend of many methods takes no room from what is drawn.
    figure.set_size_inches(_SIZE[0], _SIZE[1] + _ROW * max(0, rows - 3))
    figure.legend(handles, names, loc=where, ncols=columns)
    return rows


def _make_room(figure: Figure) -> None:
    """Leaves as much above the axes of a figure that was `placed` as its title needs."""
    axes = figure.axes[0]
    above = _ABOVE + _LINE * len(axes.get_title(loc="left").splitlines())
    box = axes.get_position()
    top = 1 - above / figure.get_size_inches()[1]
    axes.set_position((box.x0, box.y0, box.width, top - box.y0))


@contextlib.contextmanager
def _style() -> Iterator[None]:
    # A user's matplotlibrc must not change the bytes.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    content = io.BytesIO()
    with _style():
        # Without the writer's version, so that another matplotlib's file differs only if it looks
        # so.
        FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return content.getvalue()


def pdf(figure: Figure) -> bytes:
    """A figure as PDF for a paper: without its title, which the caption says there.

    Letters are TrueType, since many publishers refuse PDF's Type 3.
    """
    title = figure.axes[0].get_title(loc="left")
    content = io.BytesIO()
    with _style():
        matplotlib.rcParams["pdf.fonttype"] = 42
        figure.axes[0].set_title("", loc="left")
        if not figure.axes[0].get_in_layout():
            _make_room(figure)
        nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
        FigureCanvasPdf(figure).print_pdf(content, metadata=nothing)
        figure.axes[0].set_title(title, loc="left", parse_math=False)
    return content.getvalue()
