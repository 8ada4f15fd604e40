"""What the figures of a report draw, each as a matplotlib figure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator

from ctl_jax import formatting
from ctl_jax.report._budgets import Axis, labels
from ctl_jax.report.aggregate import DENSE, Point
from ctl_jax.report.comparisons import Ranks
from ctl_jax.report.figures import BLACK, COLOURS, canvas, finished, placed, styles


def accuracy(
    title: str,
    metric: str,
    curves: Mapping[str, Mapping[str, Point]],
    methods: Sequence[str],
    budgets: Axis,
    chance: float | None = None,
) -> Figure:
    """Draws a metric against the training budget, one line a method.

    Args:
      title: title of the figure.
      metric: name of the metric.
      curves: method to budget to point; methods may be absent.
      methods: the run's methods, which fix order and colours.
      budgets: FLOPs of each budget.
      chance: level of a guess, drawn as a line, or None.

    Returns:
      The figure.
    """
    with canvas(title) as (figure, axes):
        _draw(axes, curves, methods, budgets, scale=1.0)
        axes.set_ylabel(f"{metric} (dev_test)")
        if chance is not None:
            label = f"chance ({formatting.metric(chance)})"
            axes.axhline(chance, color="#777777", linewidth=1.2, linestyle=(0, (1, 2)), label=label)
        return placed(figure, axes)


def relative(
    title: str,
    metric: str,
    curves: Mapping[str, Mapping[str, Point]],
    methods: Sequence[str],
    budgets: Axis,
) -> Figure:
    """Draws the improvement over dense in percent against the training budget.

    Args:
      title: title of the figure.
      metric: name of the metric.
      curves: method to budget to fraction (0.1 is 10% better than dense).
      methods: the run's methods, which fix order and colours.
      budgets: FLOPs of each budget.

    Returns:
      The figure.
    """
    with canvas(title) as (figure, axes):
        axes.axhline(0, color=BLACK, linewidth=1.9, label=DENSE)
        _draw(axes, curves, methods, budgets, scale=100.0)
        axes.set_ylabel(f"{metric} relative to dense (%)")
        return placed(figure, axes)


def training(
    title: str, losses: Mapping[int, float], scores: Mapping[int, float], metric: str
) -> Figure:
    """Draws the loss of a training, and the score on dev, against what was spent.

    Args:
      title: title of the figure.
      losses: by FLOPs.
      scores: by FLOPs; may be empty.
      metric: name of the score.

    Returns:
      The figure.
    """
    with canvas(title) as (figure, axes):
        axes.plot(list(losses), list(losses.values()), color=BLACK, label="training loss")
        axes.set_xlabel("training compute (FLOP)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda flops, place: formatting.si(flops)))
        axes.set_ylabel("training loss (nats)")
        if scores:
            beside = axes.twinx()
            beside.spines["right"].set_visible(True)
            beside.grid(visible=False)
            beside.plot(
                list(scores),
                list(scores.values()),
                color=COLOURS[0],
                marker="o",
                markersize=4,
                label=f"{metric} (dev)",
            )
            beside.set_ylabel(f"{metric} (dev)")
        return finished(figure, axes)


def ranks(title: str, by_budget: Mapping[str, Ranks], methods: Sequence[str]) -> Figure:
    """Draws average ranks, a line a budget, each with its critical difference.

    After the diagrams of Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets,
    2006: what a bar joins cannot be told apart.

    Args:
      title: title of the figure.
      by_budget: average ranks, with a critical difference.
      methods: the run's methods, which fix colours.

    Returns:
      The figure.
    """
    chosen = styles(methods)
    with canvas(title) as (figure, axes):
        for row, found in enumerate(by_budget.values()):
            for method, rank in found.ranks.items():
                style = chosen[method]
                axes.plot(
                    rank,
                    row,
                    color=style.colour,
                    marker=style.marker,
                    linestyle="none",
                    markeredgecolor="white",
                    markeredgewidth=0.7,
                    label="" if row else method.replace("$", r"\$"),
                )
            for number, (low, high) in enumerate(_joined(found)):
                place = row + 0.22 + 0.09 * number
                axes.plot([low, high], [place, place], color=BLACK, linewidth=2.4)
        axes.set_yticks(range(len(by_budget)), labels(by_budget))
        axes.set_ylim(len(by_budget) - 0.3, -0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("average rank, 1 the best (a bar joins what cannot be told apart)")
        return finished(figure, axes)


def compute_curves(
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    methods: Sequence[str],
    label: str,
    front: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Draws mean errors against FLOPs of all trials, one line a method.

    Args:
      title: title of the figure.
      curves: FLOPs and errors, by method.
      methods: the run's methods, which fix order and colours.
      label: of the error.
      front: points that no other beats in both, from few FLOPs to many; a line behind all.

    Returns:
      The figure.
    """
    chosen = styles(methods)
    with canvas(title) as (figure, axes):
        if front:
            x, y = zip(*front, strict=True)
            line: dict[str, Any] = {"color": "#bbbbbb", "linewidth": 5, "label": "front"}
            axes.plot(x, y, drawstyle="steps-post", zorder=2, **line)
        for method in (each for each in methods if each in curves):
            style = chosen[method]
            x, y = zip(*curves[method], strict=True)
            axes.plot(
                x,
                y,
                color=style.colour,
                marker=style.marker,
                linestyle=style.dash,
                markeredgecolor="white",
                markeredgewidth=0.7,
                label=method.replace("$", r"\$"),
                zorder=3,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda flops, place: formatting.si(flops)))
        axes.set_xlabel("FLOPs of all trials of all tasks so far (log scale)")
        axes.set_ylabel(label)
        return finished(figure, axes)


def matrix(
    title: str,
    scores: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    chosen: Sequence[tuple[int, int]],
) -> Figure:
    """Draws which network each task could have started from, and how good its features were.

    Args:
      title: title of the figure.
      scores: a row a task; not a number where there was no such network.
      rows: names of the tasks.
      columns: names of what the networks were trained on.
      chosen: row and column of those that tasks started from, marked.

    Returns:
      The figure.
    """
    with canvas(title) as (figure, axes):
        image = axes.imshow(scores, cmap="viridis", aspect="auto", vmin=0, vmax=1)
        figure.colorbar(image, label="score on dev, nearest neighbours")
        for row, column in chosen:
            axes.plot(column, row, marker="o", color="white", markeredgecolor=BLACK)
        for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
            every = -(-len(names) // 30)  # more names than these would touch
            axis.set_major_locator(FixedLocator(list(range(0, len(names), every))))
            axis.set_major_formatter(
                FixedFormatter([n.replace("$", r"\$") for n in names[::every]])
            )
        axes.tick_params(axis="x", rotation=90, labelsize=7)
        axes.tick_params(axis="y", labelsize=7)
        axes.grid(visible=False)
        axes.set_xlabel("network of (a circle: the task started from it)")
        return finished(figure, axes)


def _joined(found: Ranks) -> list[tuple[float, float]]:
    """The widest ranges of ranks that are within the critical difference."""
    apart = found.critical_difference or 0.0
    ranks = sorted(found.ranks.values())
    ranges: list[tuple[float, float]] = []
    for low in ranks:
        high = max(rank for rank in ranks if rank <= low + apart)
        if high > low and (not ranges or high > ranges[-1][1]):
            ranges.append((low, high))
    return ranges


class Expectation(NamedTuple):
    """A score that is expected.

    Attributes:
      flops: what an image takes.
      score: the score.
      low: the lower end of its 80% interval.
      high: its upper end.
      is_seen: whether there was a look.
      is_chosen: whether it was chosen.
    """

    flops: float
    score: float
    low: float
    high: float
    is_seen: bool
    is_chosen: bool


def expectations(
    title: str, metric: str, points: Sequence[Expectation], measured: float | None
) -> Figure:
    """Draws expected scores against the FLOPs of an image, each with its interval.

    Args:
      title: title of the figure.
      metric: name of the score.
      points: what is expected, at least one.
      measured: the score that was measured on dev, a line; None where there is none.

    Returns:
      The figure.
    """
    with canvas(title) as (figure, axes):
        others = [point for point in points if not point.is_chosen]
        chosen = [point for point in points if point.is_chosen]
        _expected(axes, others, "expected", color="#999999", marker="o")
        _expected(axes, chosen, "chosen", color=COLOURS[3], marker="*", markersize=11, zorder=4)
        if seen := [(point.flops, point.score) for point in points if point.is_seen]:
            x, y = zip(*seen, strict=True)
            axes.plot(
                x,
                y,
                color=COLOURS[0],
                marker="o",
                markersize=16,
                markerfacecolor="none",
                markeredgewidth=1.6,
                linestyle="none",
                label="looked at",
            )
        if measured is not None:
            label = f"on dev ({formatting.metric(measured)})"
            axes.axhline(measured, color=BLACK, linewidth=1.2, linestyle="--", label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda flops, place: formatting.si(flops)))
        axes.set_xlabel("FLOPs of an image: features, and its share of the fit (log scale)")
        axes.set_ylabel(f"{metric}, 80% interval of what is expected")
        return finished(figure, axes)


def _expected(axes: Axes, points: Sequence[Expectation], label: str, **style: Any) -> None:
    if points:
        scores = [point.score for point in points]
        down = [max(0.0, point.score - point.low) for point in points]
        up = [max(0.0, point.high - point.score) for point in points]
        axes.errorbar(
            [point.flops for point in points],
            scores,
            yerr=[down, up],
            label=label,
            linestyle="none",
            elinewidth=1.1,
            capsize=2,
            **style,
        )


def _draw(
    axes: Axes,
    curves: Mapping[str, Mapping[str, Point]],
    methods: Sequence[str],
    budgets: Axis,
    scale: float,
) -> None:
    chosen = styles(methods)
    drawn = {budget for curve in curves.values() for budget in curve}
    # Where there is a point there were trials, which tell how many FLOPs a budget came to.
    places = {budget: flops for budget, flops in budgets.items() if flops and budget in drawn}
    for method in methods:
        points = curves.get(method, {})
        curve = [(flops, points[budget]) for budget, flops in places.items() if budget in points]
        if not curve:
            continue
        style = chosen[method]
        # Dense lies on top: it is what the others are compared with.
        layer = 4 if method == DENSE else 3
        axes.plot(
            [flops for flops, _ in curve],
            [scale * point.mean for _, point in curve],
            color=style.colour,
            marker=style.marker,
            linestyle=style.dash,
            markeredgecolor="white",
            markeredgewidth=0.7,
            label=method.replace("$", r"\$"),
            zorder=layer,
        )
        bars = [
            (flops, scale * (p.mean - p.std), scale * (p.mean + p.std))
            for flops, p in curve
            if p.std is not None
        ]
        if bars:
            x, low, high = zip(*bars, strict=True)
            axes.vlines(x, low, high, colors=style.colour, zorder=layer - 1)
    _budget_axis(axes, places)


def _budget_axis(axes: Axes, places: Mapping[str, int]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("training budget (FLOP, log scale)")
    every = -(-len(places) // 7)  # more labels than seven would touch
    budgets = list(places.values())
    axes.xaxis.set_major_locator(FixedLocator([float(flops) for flops in budgets[::every]]))
    axes.xaxis.set_minor_locator(NullLocator())
    # Budgets in FLOPs need no unit, which stands below the axis.
    in_flops = all(name.endswith(" flops") for name in places)
    names = [formatting.si(flops) for flops in budgets] if in_flops else labels(places)
    axes.xaxis.set_major_formatter(FixedFormatter(names[::every]))
    if budgets:
        # One budget alone has no range of its own.
        room = max((budgets[-1] / budgets[0]) ** 0.05, 1.1)
        axes.set_xlim(budgets[0] / room, budgets[-1] * room)
