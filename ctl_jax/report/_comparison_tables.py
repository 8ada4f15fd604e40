"""The page's headline and its tables of methods against a baseline, and the same as CSV."""

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ctl_jax import formatting
from ctl_jax.formatting import DASH
from ctl_jax.report._budgets import Axis, labels
from ctl_jax.report._html_tables import Row, cell, percent
from ctl_jax.report._table import Table
from ctl_jax.report.aggregate import DENSE, Mean, values
from ctl_jax.report.comparisons import Comparisons, Curve
from ctl_jax.report.frontier import Leader, at_budget
from ctl_jax.report.statistics import TESTED_TASKS, Interval

# Places on the axis of log10 FLOPs that differ by less are one.
_NEAR = 1e-6


def best_on_dev(table: Table, found_rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The method of the highest mean on dev, by budget that has one."""
    dev = values(found_rows, "dev")
    found = {b: at_budget(dev, table.task_names, table.methods, b) for b in table.budgets}
    return {
        budget: max(by_method, key=lambda method: statistics.fmean(by_method[method]))
        for budget, by_method in found.items()
        if by_method
    }


def ends(at_budget: Mapping[str, Mean]) -> list[str]:
    """The smallest and the largest of the budgets that have a mean over tasks."""
    known = [budget for budget, mean in at_budget.items() if mean.points]
    return list(dict.fromkeys(known[:1] + known[-1:]))


def headline(
    at_budget: Mapping[str, Mean],
    chosen: Mapping[str, str],
    leaders: Mapping[str, Leader],
    compared: Comparisons,
) -> Iterator[tuple[str, bool]]:
    """Sentences of who wins where compute is scarce and where it is plentiful.

    Args:
      at_budget: means over tasks.
      chosen: the method that is best on dev, by budget: dev_test, which is shown, chose nothing.
      leaders: by budget; their intervals are of the same means.
      compared: methods against the baseline.

    Returns:
      Each with whether it may be shown in bold: its interval excludes zero.
    """
    budgets = list(at_budget)
    for budget in ends(at_budget):
        method = chosen[budget]
        where = {budgets[0]: "smallest", budgets[-1]: "largest"}.get(budget)
        place = f"the {where} budget" if where and len(budgets) > 1 else "the budget"
        said = f"At {place} ({_label(budget)}) {method} is best on dev"
        said += f", with {leaders[budget].scores[method].shown} on dev_test"
        found = compared.at.get((method, budget))
        if found:
            said += f": {signed(found.difference)} "
            said += f"or {_percents(found.relative)} " if found.relative else ""
            said += f"against {compared.baseline}"
            said += _saved(compared, method, budget)
        yield f"{said}.", bool(found and found.difference.excludes_zero)


def losses(
    methods: Sequence[str], at_budget: Mapping[str, Mean], compared: Comparisons
) -> Iterator[str]:
    """Sentences of the methods that are below dense, and whether an interval says so."""
    known = {budget: mean for budget, mean in at_budget.items() if mean.points}
    for method in methods:
        lost = {
            budget: mean.relative[method].mean
            for budget, mean in known.items()
            if method in mean.relative and mean.relative[method].mean < 0
        }
        if not lost:
            continue
        worst = min(lost, key=lost.__getitem__)
        said = (
            f"{method} is below dense at {len(lost)} of {len(known)} budgets, "
            f"at worst {percent(lost[worst])} ({_label(worst)})"
        )
        if compared.baseline == DENSE:
            clear = sum(compared.at[method, budget].difference.excludes_zero for budget in lost)
            said += f"; at {clear} of them the interval of the difference excludes zero"
        yield f"{said}."


def _saved(compared: Comparisons, method: str, budget: str) -> str:
    """That the method needs less compute for what the baseline has, where it surely does."""
    curve = compared.curves.get(method)
    saving = curve.saving.get(budget) if curve else None
    if curve is None or saving is None or saving.high is None or saving.high > -_NEAR:
        return ""
    value, interval = _saving(curve, budget)
    has = f"it has the accuracy of {compared.baseline} there"
    return f"; {has} for {value}{f' ({interval})' if interval else ''} of the compute"


def caveats(compared: Comparisons, tasks: int, seeds: int) -> list[str]:
    """What cannot be said of a run of few seeds or tasks, in sentences."""
    said = []
    if seeds == 1:
        said.append(
            "One seed: how much another seed would change is not known. Intervals are over tasks, "
            "and of a single task no difference means anything."
        )
    if tasks == 1:
        said.append("One task tells no interval: nothing is known of other tasks.")
    elif tasks < TESTED_TASKS and compared.at:
        few = ", and of fewer than about six the intervals are too narrow" if tasks < 6 else ""
        said.append(f"{tasks} tasks: fewer than ten are not tested for significance{few}.")
    return said


def signed(interval: Interval) -> str:
    """A difference as people read it: `+0.041 (+0.017 to +0.066)`."""
    value = f"{interval.estimate:+.3f}"
    if interval.low is not None and interval.high is not None:
        value += f" ({interval.low:+.3f} to {interval.high:+.3f})"
    return value.replace("-", formatting.MINUS)


def difference_rows(
    compared: Comparisons, methods: Sequence[str], budgets: Iterable[str]
) -> list[Row]:
    """Rows of the paired difference to the baseline, method by budget; bold excludes zero."""

    def one(method: str, budget: str) -> dict[str, Any]:
        found = compared.at.get((method, budget))
        if found is None:
            return cell()
        value, _, interval = signed(found.difference).partition(" ")
        notes = [f"{found.wins} won, {found.ties} tied, {found.losses} lost"]
        notes += [] if found.p is None else [f"p {_p(found.p)}"]
        return cell(
            value,
            interval=interval.strip("()"),
            note="; ".join(notes),
            best=found.difference.excludes_zero,
            below=found.difference.excludes_zero and found.difference.estimate < 0,
        )

    return _rows(one, compared, methods, budgets)


def relative_rows(
    compared: Comparisons, methods: Sequence[str], budgets: Iterable[str]
) -> list[Row]:
    """Rows of the improvement over the baseline in percent, method by budget; bold excludes zero.

    Bold goes by the difference, whose interval is the surer one where the baseline is near zero.
    """

    def one(method: str, budget: str) -> dict[str, Any]:
        found = compared.at.get((method, budget))
        if found is None or found.relative is None:
            return cell()
        value, _, interval = _percents(found.relative).partition(" ")
        is_sure = found.difference.excludes_zero
        return cell(
            value,
            interval=interval.strip("()"),
            best=is_sure,
            below=is_sure and found.difference.estimate < 0,
        )

    return _rows(one, compared, methods, budgets)


def _percents(relative: Interval) -> str:
    """An improvement as people read it: `+12.1% (+3.0% to +24.5%)`."""
    value = percent(relative.estimate)
    if relative.low is None or relative.high is None:
        return value
    return f"{value} ({percent(relative.low)} to {percent(relative.high)})"


def improvement_rows(
    compared: Comparisons, methods: Sequence[str], budgets: Iterable[str]
) -> list[Row]:
    """Rows of the probability that a run is above one of the baseline, method by budget."""

    def one(method: str, budget: str) -> dict[str, Any]:
        found = compared.at.get((method, budget))
        if found is None:
            return cell()
        value, low, high = found.improvement
        interval = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
        return cell(f"{value:.2f}", interval=interval)

    return _rows(one, compared, methods, budgets)


def saving_rows(compared: Comparisons, methods: Sequence[str], budgets: Iterable[str]) -> list[Row]:
    """Rows of the FLOPs that a method needs for the baseline's accuracy, as a share of its own."""

    def one(method: str, budget: str) -> dict[str, Any]:
        curve = compared.curves.get(method)
        if curve is None or budget not in curve.saving:
            return cell()
        value, interval = _saving(curve, budget)
        return cell(value, interval=interval, best=curve.saving[budget].excludes_zero)

    return _rows(one, compared, methods, budgets)


def curve_rows(compared: Comparisons) -> list[tuple[str, ...]]:
    """Of each method over all budgets: area, its difference, crossover, asymptote, tasks."""
    return [
        (
            method,
            curve.area.shown,
            DASH if curve.area_difference is None else signed(curve.area_difference),
            _crossover(curve),
            DASH if curve.asymptote is None else curve.asymptote.shown,
            str(curve.tasks),
        )
        for method, curve in compared.curves.items()
    ]


def view(compared: Comparisons, methods: Sequence[str], budgets: Axis) -> dict[str, Any] | None:
    """What the template shows of methods against a baseline; None where nothing compares them."""
    if not compared.at:
        return None
    return {
        "baseline": compared.baseline,
        "difference": difference_rows(compared, methods, budgets),
        "relative": relative_rows(compared, methods, budgets),
        "improvement": improvement_rows(compared, methods, budgets),
        "saving": saving_rows(compared, methods, budgets),
        "curves": curve_rows(compared),
        "is_tested": any(each.p is not None for each in compared.at.values()),
        "is_fitted": any(curve.asymptote for curve in compared.curves.values()),
    }


def handover_sentences(curves: Mapping[tuple[str, str], Curve]) -> list[str]:
    """Where one method takes over from another on the frontier; from `comparisons.handovers`."""
    return [
        f"{one} against {other}: {_crossover(curve)}."
        for (one, other), curve in curves.items()
        if curve.ahead_first
    ]


def _rows(
    one: Callable[[str, str], dict[str, Any]],
    compared: Comparisons,
    methods: Iterable[str],
    budgets: Iterable[str],
) -> list[Row]:
    budgets = list(budgets)
    return [
        {"method": method, "cells": [one(method, budget) for budget in budgets]}
        for method in methods
        if method != compared.baseline
    ]


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0")


def _saving(curve: Curve, budget: str) -> tuple[str, str]:
    """A share of the baseline's compute and its interval, as people read them."""
    first, *_, last = curve.places.values()
    here = curve.places[budget]

    def shown(share: float) -> str:
        if here + share > last + _NEAR:
            return "not reached"
        at_most = "at most " if here + share < first + _NEAR else ""
        return f"{at_most}{10**share:.2f}"

    estimate, low, high = curve.saving[budget]
    if low is None or high is None or shown(low) == shown(high):
        return shown(estimate), ""
    return shown(estimate), f"{shown(low)} to {shown(high)}"


def _crossover(curve: Curve) -> str:
    """Up to where a method stays ahead of the baseline, or behind it."""
    if curve.crossover is None:
        return DASH
    first, *_, last = curve.places.values()

    def shown(place: float) -> str:
        if place < first - _NEAR:
            return f"below {formatting.flops(10**first)}"
        if place > last + _NEAR:
            return f"beyond {formatting.flops(10**last)}"
        return formatting.flops(10**place)

    side = "ahead" if curve.ahead_first else "behind"
    estimate, low, high = curve.crossover
    where = "at all budgets" if estimate > last + _NEAR else f"up to {shown(estimate)}"
    if low is None or high is None or shown(low) == shown(high):
        return f"{side} {where}"
    return f"{side} {where} ({shown(low)} to {shown(high)})"


def _label(budget: str) -> str:
    return labels([budget])[0]


AT_COLUMNS = (
    *("method", "baseline", "budget", "budget_flops", "tasks", "seeds"),
    *("difference", "difference_low", "difference_high", "relative", "relative_low"),
    *("relative_high", "wins", "ties", "losses", "p_holm"),
    *("improvement", "improvement_low", "improvement_high"),
    *("compute_ratio", "compute_ratio_low", "compute_ratio_high", "average_rank"),
)
CURVE_COLUMNS = (
    *("method", "baseline", "tasks", "area", "area_low", "area_high"),
    *("area_difference", "area_difference_low", "area_difference_high", "side_first"),
    *("crossover_flops", "crossover_flops_low", "crossover_flops_high"),
    *("asymptote", "asymptote_low", "asymptote_high"),
)


def at_csv(compared: Comparisons, budgets: Axis) -> str:
    """comparisons.csv: a line a method and budget against the baseline.

    A compute ratio is inf where the baseline's accuracy is not reached, and an upper bound where it
    is the smallest budget's.
    """
    lines = []
    for (method, budget), found in compared.at.items():
        curve, ranks = compared.curves.get(method), compared.ranks.get(budget)
        saving = curve.saving.get(budget) if curve else None
        last = max(curve.places.values()) - curve.places[budget] if curve and saving else 0.0
        lines.append(
            {
                "method": method,
                "baseline": compared.baseline,
                "budget": budget,
                "budget_flops": budgets[budget],
                **{name: getattr(found, name) for name in ("tasks", "seeds")},
                **_three("difference", found.difference),
                **_three("relative", found.relative),
                **{name: getattr(found, name) for name in ("wins", "ties", "losses")},
                "p_holm": found.p,
                **_three("improvement", found.improvement),
                **_powers("compute_ratio", saving, last),
                "average_rank": ranks.ranks.get(method) if ranks else None,
            }
        )
    return _csv(AT_COLUMNS, lines)


def curves_csv(compared: Comparisons) -> str:
    """curves.csv: a line a method, over all budgets.

    A crossover is inf where there is none up to the largest budget, and a tenth of the smallest
    budget where there is none from the smallest on.
    """
    lines = [
        {
            "method": method,
            "baseline": compared.baseline,
            "tasks": curve.tasks,
            **_three("area", curve.area),
            **_three("area_difference", curve.area_difference),
            "side_first": curve.crossover and ("ahead" if curve.ahead_first else "behind"),
            **_powers("crossover_flops", curve.crossover, max(curve.places.values())),
            **_three("asymptote", curve.asymptote),
        }
        for method, curve in compared.curves.items()
    ]
    return _csv(CURVE_COLUMNS, lines)


def _three(name: str, interval: Interval | None) -> dict[str, float | None]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval or (None,) * 3, strict=True))


def _powers(name: str, interval: Interval | None, last: float) -> dict[str, float | None]:
    """The same of logarithms; inf behind the last one that is known."""

    def power(value: float | None) -> float | None:
        if value is None:
            return None
        return math.inf if value > last + _NEAR else 10**value

    return {key: power(value) for key, value in _three(name, interval).items()}


def _csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
