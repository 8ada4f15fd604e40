"""What the page's charts draw, as plain values for its script."""

from collections.abc import Mapping, Sequence
from typing import Any

from ctl_jax import formatting
from ctl_jax.records import PURPOSES, RunTask
from ctl_jax.report import _choices, aggregate, figures, gallery, spending, stream
from ctl_jax.report._budgets import labels
from ctl_jax.report._table import Table
from ctl_jax.report._winners import Best, of_table
from ctl_jax.report.aggregate import Point
from ctl_jax.report.gallery import Results

# A number, its spread over seeds (None of one) and how many seeds, and where it has one the ends of
# its interval over tasks; None where there is none.
_Numbers = list[list[list[float | None] | None]]  # by method and budget

# Digits that are kept: more than anybody sees.
_DIGITS = 5
# Of a training's losses so many are drawn.
_MOST_LOSSES = 400
_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
}
# What is too dark on a dark page, and what is drawn instead.
_ON_DARK = {"#000000": "#f2f4f8", "#0072B2": "#3c9be0", "#882255": "#e0609a"}
_DASHES = {"-": "solid", "--": "dash", ":": "dot"}


def data(results: Results) -> dict[str, Any]:
    """Everything that the charts and the table of results show."""
    table = results.table
    groups = [_group(place, scores, table) for place, scores in enumerate(results.scores)]
    return {
        "methods": methods(table.methods),
        "budgets": _budgets(table),
        "groups": groups,
        "tasks": [_task(results, task) for task in table.tasks],
        "ranks": _ranks(results),
        "compute": _compute(results),
        "along": _along(results),
        "transfer": _transfer(results),
        "training": [_training(results, best) for best in of_table(table)],
        "choices": [_choice(choice) for choice in _choices.of_table(table)],
        "ledger": _ledger(table),
    }


def _group(place: int, scores: aggregate.Scores, table: Table) -> dict[str, Any]:
    tasks = [i for i, task in enumerate(table.tasks) if task.name in set(scores.group.tasks)]
    return {
        "index": place,
        "by": scores.group.by,
        "name": scores.group.name,
        "metric": aggregate.metric_name(table.tasks[i] for i in tasks),
        "tasks": tasks,
        "points": _with_intervals(scores, table),
        "relative": _numbers([mean.relative for mean in scores.macro.values()], table),
    }


def _with_intervals(scores: aggregate.Scores, table: Table) -> _Numbers:
    found = _numbers([mean.points for mean in scores.macro.values()], table)
    for method, of_method in zip(table.methods, found, strict=True):
        for intervals, point in zip(scores.intervals.values(), of_method, strict=True):
            if point and (interval := intervals[method]).low is not None:
                point += [_rounded(interval.low), _rounded(interval.high)]
    return found


def methods(names: Sequence[str]) -> list[dict[str, str]]:
    """How each method is drawn: name, colours on light and on dark, dash, symbol."""
    return [
        {
            "name": name,
            "light": style.colour,
            "dark": _ON_DARK.get(style.colour, style.colour),
            "dash": _DASHES[style.dash],
            "symbol": _SYMBOLS[style.marker],
        }
        for name, style in ((name, figures.styles(names)[name]) for name in names)
    ]


def _budgets(table: Table) -> list[dict[str, Any]]:
    in_flops = all(name.endswith(" flops") for name in table.budgets)
    return [
        # Budgets in FLOPs need no unit on an axis of FLOPs.
        {"label": label, "tick": formatting.si(flops or 0) if in_flops else label, "flops": flops}
        for label, flops in zip(labels(table.budgets), table.budgets.values(), strict=True)
    ]


def _numbers(columns: Sequence[Mapping[str, Point]], table: Table) -> _Numbers:
    return [[_number(points.get(method)) for points in columns] for method in table.methods]


def _number(point: Point | None) -> list[float | None] | None:
    if point is None:
        return None
    return [round(point.mean, _DIGITS), _rounded(point.std), point.seeds]


def _task(results: Results, task: RunTask) -> dict[str, Any]:
    table, found = results.table, results.values
    curves = aggregate.task_curves(found, task.name)
    points = [
        {method: curve[budget] for method, curve in curves.items() if budget in curve}
        for budget in table.budgets
    ]
    # Of the methods that have results at the budget: others may lack them.
    relative = [
        aggregate.means(found, [task.name], list(column), [budget])[budget].relative
        for column, budget in zip(points, table.budgets, strict=True)
    ]
    return {
        "title": task.title,
        "domain": task.domain,
        "year": task.year,
        "metric": aggregate.metric(task),
        "chance": aggregate.chance(task),
        "points": _numbers(points, table),
        "relative": _numbers(relative, table),
    }


def _ranks(results: Results) -> list[dict[str, Any]]:
    """Average ranks among all methods by budget, and how far apart they are told apart."""
    return [
        {
            "label": labels([budget])[0],
            "tasks": found.tasks,
            "apart": round(found.critical_difference or 0, _DIGITS),
            "ranks": [_rounded(found.ranks.get(method)) for method in results.table.methods],
        }
        for budget, found in gallery.ranks(results).items()
    ]


def _compute(results: Results) -> list[dict[str, Any]]:
    """Methods after the whole stream; of the front the page's script knows."""
    place = _places(results.table)
    return [
        {
            "method": place[each.method],
            "label": labels([each.budget])[0],
            "flops": round(each.total_flops),
            "error": round(each.error, _DIGITS),
            "seeds": each.seeds,
        }
        for each in gallery.learners(results)
    ]


def _along(results: Results) -> dict[str, Any] | None:
    """FLOPs and mean error after each task of the stream, by method."""
    budget, passed = gallery.running(results)
    if not passed:
        return None
    return {
        "label": labels([budget])[0],
        "passed": [
            [[each.total_flops, round(each.mean_error, _DIGITS)] for each in passed.get(method, ())]
            for method in results.table.methods
        ],
    }


def _transfer(results: Results) -> list[dict[str, Any]]:
    """Which network each task could have started from, by method."""
    place = _places(results.table)
    return [
        {
            "method": place[each.method],
            "label": labels([each.budget])[0],
            "tasks": each.tasks,
            "sources": [source or "its own start" for source in each.sources],
            "scores": [[_rounded(score) for score in row] for row in each.scores],
            "starts": each.starts,
        }
        for each in stream.matrices(results.passed, list(results.table.budgets))
    ]


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, _DIGITS)


def _places(table: Table) -> dict[str, int]:
    return {method: index for index, method in enumerate(table.methods)}


def _training(results: Results, best: Best) -> dict[str, Any] | None:
    found = gallery.training(results, best)
    if found is None:
        return None
    every = -(-len(found.losses) // _MOST_LOSSES)
    losses = list(found.losses.items())[::every]
    return {
        "metric": best.test.metric,
        "losses": [[flops, round(loss, _DIGITS)] for flops, loss in losses],
        "scores": [[flops, round(score, _DIGITS)] for flops, score in found.scores.items()],
    }


def _choice(choice: _choices.Choice) -> dict[str, Any]:
    return {
        "metric": choice.metric,
        "measured": choice.trial.dev,
        "options": [
            {"name": option.method, **point._asdict()}
            for option, point in zip(choice.last.options, gallery.expectations(choice), strict=True)
        ],
    }


def _ledger(table: Table) -> dict[str, Any]:
    place = _places(table)
    lines = [
        {
            "name": line.name,
            "method": place.get(line.name),
            "flops": {purpose: flops for purpose, flops in line.flops.items() if flops},
            "seconds": {part: round(s, 3) for part, s in line.seconds.items() if s},
        }
        for line in spending.lines(table)
    ]
    if (steps := spending.sharing(table)).steps:
        seconds = {"other": round(steps.wall_s, 3)}
        name = "steps that trials share"
        lines.append({"name": name, "method": None, "flops": {}, "seconds": seconds})
    return {
        "purposes": {
            unit: [
                {"name": name, "colour": colour}
                for name, colour in zip(names, figures.COLOURS, strict=False)
            ]
            for unit, names in (("flops", PURPOSES), ("seconds", spending.PARTS))
        },
        "lines": lines,
    }
