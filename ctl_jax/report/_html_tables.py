"""Tables of method by budget, as the page's template takes them."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ctl_jax import formatting
from ctl_jax.report.aggregate import DENSE, Mean, Point, Scores, error
from ctl_jax.report.frontier import Leader
from ctl_jax.report.statistics import Interval

Row = dict[str, Any]
# What is made of each point before it is shown.
_Change = Callable[[Point], Point] | None


def grid(
    methods: Sequence[str],
    columns: Sequence[Mapping[str, Point]],
    seeds: Sequence[int],
    *,
    lower_is_better: bool = False,
    intervals: Sequence[Mapping[str, Interval]] = (),
    leaders: Sequence[Leader | None] = (),
) -> list[Row]:
    """Rows of method by budget; marks the best of a column and what dense is better than.

    The best is in bold only where its leader says that all others can be told from it.

    Args:
      methods: the run's methods.
      columns: for each budget the points by method; methods may be absent.
      seeds: the run's seeds, so that a cell with fewer says so.
      lower_is_better: whether the numbers are errors.
      intervals: for each budget those of the points, by method; may be none.
      leaders: for each budget the best method, and what cannot be told from it; may be none.
    """
    best_of = min if lower_is_better else max
    sign = -1 if lower_is_better else 1
    rows = []
    for method in methods:
        cells = []
        for points, ends, leader in itertools.zip_longest(columns, intervals, leaders):
            point = points.get(method)
            if point is None:
                cells.append(cell())
                continue
            cells.append(
                cell(
                    formatting.metric(point.mean),
                    interval=ends[method].ends if ends else "",
                    spread="" if point.std is None else f"± {point.std:.3f}",
                    note=f"{point.seeds} of {len(seeds)} seeds" if point.seeds < len(seeds) else "",
                    top=point.mean == best_of(other.mean for other in points.values()),
                    best=leader is not None and leader.method == method and leader.others == (),
                    below=DENSE in points and sign * point.mean < sign * points[DENSE].mean,
                )
            )
        rows.append({"method": method, "cells": cells})
    return rows


def percent(fraction: float) -> str:
    """A signed percentage with a proper minus."""
    return formatting.percent(fraction).replace("-", formatting.MINUS)


def cell(
    value: str = formatting.DASH,
    *,
    interval: str = "",
    spread: str = "",
    note: str = "",
    top: bool = False,
    best: bool = False,
    below: bool = False,
) -> Row:
    """What the template shows of a number.

    Args:
      value: the number.
      interval: below it.
      spread: below that.
      note: below all.
      top: whether it is the best of its column: underlined.
      best: whether an interval says so: bold.
      below: whether the baseline is better: marked.
    """
    return {
        "value": value,
        "interval": interval,
        "spread": spread,
        "note": note,
        "top": top,
        "best": best,
        "below": below,
    }


def group_views(
    found: Sequence[Scores], methods: Sequence[str], budgets: Collection[str], seeds: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """What the template shows of groups of tasks.

    Args:
      found: from `groups.scores`.
      methods: the run's methods.
      budgets: in the order of the columns.
      seeds: the run's seeds.

    Returns:
      For "other", "metric", "domain" and "year" the blocks of one table: `name`, `count` (of
      tasks) and the rows of `grid`. A grouping with one group alone has no blocks, since
      that is the whole stream.
    """

    def block(
        name: str,
        tasks: int,
        means: Mapping[str, Mean],
        change: _Change = None,
        intervals: Mapping[str, Mapping[str, Interval]] | None = None,
    ) -> Row:
        columns = [_points(means[budget], change) for budget in budgets]
        ends = [intervals[budget] for budget in budgets] if intervals else ()
        rows = grid(methods, columns, seeds, lower_is_better=change is error, intervals=ends)
        for row in rows:
            for shown, budget in zip(row["cells"], budgets, strict=True):
                # A mean over fewer tasks than its neighbour is not to be compared with it.
                if 0 < len(means[budget].tasks) < tasks:
                    shown["note"] = f"{len(means[budget].tasks)} of {tasks} tasks"
        return {"name": name, "count": _tasks(tasks), "rows": rows}

    whole = found[0]
    size = len(whole.group.tasks)
    with_top5 = max((len(mean.tasks) for mean in whole.top5.values()), default=0)
    other = [block("Error (1 - score), macro mean", size, whole.macro, error)]
    if any(mean.tasks for mean in whole.weighted.values()):
        other += [
            block("Score, weighted by examples", size, whole.weighted),
            block("Error, weighted by examples", size, whole.weighted, error),
        ]
    if with_top5:
        other.append(block("Top-5 accuracy, macro mean", with_top5, whole.top5))
    result = {"other": other}
    for by in ("metric", "domain", "year"):
        of = [scores for scores in found if scores.group.by == by]
        result[by] = [
            block(
                scores.group.name,
                len(scores.group.tasks),
                scores.macro,
                intervals=scores.intervals,
            )
            for scores in of
            if len(scores.group.tasks) < size
        ]
    return result


def _points(mean: Mean, change: _Change) -> dict[str, Point]:
    if change is None:
        return mean.points
    return {method: change(point) for method, point in mean.points.items()}


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
