"""Tables of method by budget, as the page's template takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ctl_jax import text
from ctl_jax.report.curves import DENSE, Mean, Point

Row = dict[str, Any]


def grid(
    methods: Sequence[str],
    columns: Sequence[Mapping[str, Point]],
    seeds: Sequence[int],
    *,
    lower_is_better: bool = False,
) -> list[Row]:
    """Returns rows of method by budget; marks the best of a column and what dense is better than.

    Args:
        methods: The run's methods.
        columns: For each budget the points by method; methods may be absent.
        seeds: The run's seeds, so that a cell with fewer says so.
        lower_is_better: Whether the numbers are errors.
    """
    best_of = min if lower_is_better else max
    sign = -1 if lower_is_better else 1
    rows = []
    for method in methods:
        cells = []
        for points in columns:
            point = points.get(method)
            cell = _empty()
            if point is not None:
                cell["value"] = text.metric(point.mean)
                cell["spread"] = "" if point.std is None else f"± {point.std:.3f}"
                if point.seeds < len(seeds):
                    cell["note"] = f"{point.seeds} of {len(seeds)} seeds"
                cell["best"] = point.mean == best_of(other.mean for other in points.values())
                cell["below"] = DENSE in points and sign * point.mean < sign * points[DENSE].mean
            cells.append(cell)
        rows.append({"method": method, "cells": cells})
    return rows


def relative_grid(methods: Sequence[str], columns: Sequence[Mean]) -> list[Row]:
    """Returns rows of the improvement over dense, method by budget."""
    rows = []
    for method in methods:
        cells = []
        for mean in columns:
            point = mean.relative.get(method)
            cell = _empty()
            if point is not None:
                cell["value"] = percent(point.mean)
                cell["spread"] = "" if point.std is None else f"± {100 * point.std:.1f}"
                cell["note"] = f"better on {mean.better[method]} of {len(mean.tasks)}"
                top = max(other.mean for other in mean.relative.values())
                cell["best"] = point.mean == top and point.mean > 0
                cell["below"] = point.mean < 0
            cells.append(cell)
        rows.append({"method": method, "cells": cells})
    return [row for row in rows if row["method"] != DENSE]


def percent(fraction: float) -> str:
    """Returns a signed percentage with a proper minus."""
    return text.percent(fraction).replace("-", text.MINUS)


def _empty() -> Row:
    return {"value": text.DASH, "spread": "", "note": "", "best": False, "below": False}
