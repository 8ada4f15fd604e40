"""Scores by method and budget: of a task, and as means over all tasks or groups of them."""

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctl_jax.records import MissingTask, RunTask
from ctl_jax.report._table import Table
from ctl_jax.report.statistics import Interval, mean_intervals

DENSE = "dense"
# Of means.csv.
MEANS_COLUMNS = (
    "by",
    "group",
    "method",
    "budget_flops",
    "tasks",
    "score",
    "score_std",
    "score_low",
    "score_high",
    "error",
    "examples",
    "weighted_score",
    "weighted_error",
    "top5_tasks",
    "top5",
    "budget",
)

# values[task][method][budget][seed] = dev_test
Values = dict[str, dict[str, dict[str, dict[int, float]]]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A number at one budget, and how far it varies.

    Attributes:
      mean: the number.
      std: its sample standard deviation over seeds, None where fewer than two are there.
      seeds: how many seeds are in it; of a mean over tasks, in the task with the fewest.
    """

    mean: float
    std: float | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over tasks at one budget.

    Attributes:
      tasks: the tasks it is over: those where every method has a result at this budget.
      points: method to mean; empty where no task has every method.
      relative: method to (mean - dense) / dense, without dense itself; empty without dense.
      better: method to the number of these tasks where it is strictly better than dense.
    """

    tasks: tuple[str, ...]
    points: dict[str, Point]
    relative: dict[str, Point]
    better: dict[str, int]


def values(rows: Iterable[Mapping[str, Any]], column: str = "dev_test") -> Values:
    """A column by task, method, budget and seed; rows without a number are left out."""
    found: Values = {}
    for row in rows:
        if row[column] is not None:
            at_budget = found.setdefault(row["task"], {}).setdefault(row["method"], {})
            at_budget.setdefault(row["budget"], {})[row["seed"]] = row[column]
    return found


def mean_of(by_seed: Mapping[int, float]) -> float:
    """The mean over seeds."""
    return statistics.fmean(by_seed.values())


def point(by_seed: Mapping[int, float]) -> Point:
    """The mean over seeds and its spread."""
    return Point(mean_of(by_seed), _std(list(by_seed.values())), len(by_seed))


def task_curves(found: Values, task: str) -> dict[str, dict[str, Point]]:
    """One task's points by method and budget."""
    return {
        method: {budget: point(by_seed) for budget, by_seed in by_budget.items()}
        for method, by_budget in found.get(task, {}).items()
    }


def means(
    found: Values,
    tasks: Sequence[str],
    methods: Sequence[str],
    budgets: Iterable[str],
    weights: Mapping[str, float] | None = None,
) -> dict[str, Mean]:
    """The mean over tasks at each budget, and relative to dense.

    Methods are compared on the same tasks only: a task counts at a budget where every method has
    a result there. The spread is over seeds: each seed's mean over tasks is one number.

    Args:
      found: results, from `values`.
      tasks: names of the run's tasks.
      methods: names of the run's methods.
      budgets: the run's budgets.
      weights: of the tasks, by name; None where each counts the same.

    Returns:
      Budget to mean, for every budget.
    """
    return {
        budget: _mean_at(
            {
                task: {method: found[task][method][budget] for method in methods}
                for task in tasks
                if all(budget in found.get(task, {}).get(method, {}) for method in methods)
            },
            methods,
            weights,
        )
        for budget in budgets
    }


def _mean_at(
    at_budget: Mapping[str, Mapping[str, Mapping[int, float]]],
    methods: Sequence[str],
    weights: Mapping[str, float] | None,
) -> Mean:
    tasks = tuple(at_budget)
    if not tasks:
        return Mean((), {}, {}, {})
    weight = None if weights is None else [weights[task] for task in tasks]
    level = {
        m: statistics.fmean([mean_of(at_budget[t][m]) for t in tasks], weight) for m in methods
    }
    # A seed counts where all these tasks have it; then its mean is over the same tasks too.
    by_seed = {m: _seed_means([at_budget[t][m] for t in tasks], weight) for m in methods}
    count = {m: min(len(at_budget[t][m]) for t in tasks) for m in methods}
    points = {m: Point(level[m], _std(list(by_seed[m].values())), count[m]) for m in methods}
    others = [m for m in methods if m != DENSE] if level.get(DENSE) else []
    relative = {}
    for m in others:
        seeds = {
            seed: value / by_seed[DENSE][seed] - 1
            for seed, value in by_seed[m].items()
            if by_seed[DENSE].get(seed)
        }
        ratio = (level[m] - level[DENSE]) / level[DENSE]
        relative[m] = Point(ratio, _std(list(seeds.values())), min(count[m], count[DENSE]))
    better = {
        m: sum(mean_of(at_budget[t][m]) > mean_of(at_budget[t][DENSE]) for t in tasks)
        for m in others
    }
    return Mean(tasks, points, relative, better)


def _seed_means(
    by_task: Sequence[Mapping[int, float]], weight: Sequence[float] | None
) -> dict[int, float]:
    common = [seed for seed in by_task[0] if all(seed in by_seed for by_seed in by_task)]
    return {seed: statistics.fmean([by[seed] for by in by_task], weight) for seed in common}


def _std(numbers: Sequence[float]) -> float | None:
    if len(numbers) < 2:
        return None
    # Of exact fractions, as `statistics.stdev` has it, it would take a tenth of a report's time.
    mean = statistics.fmean(numbers)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1))


class Group(NamedTuple):
    """Some of the run's tasks.

    Attributes:
      by: "all", "metric", "domain" or "year".
      name: the metric, domain or year; "all" where these are all tasks.
      tasks: their names, in the run's order.
    """

    by: str
    name: str
    tasks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a group's tasks come to, each at every budget; see `means`.

    Attributes:
      group: the tasks.
      macro: the unweighted mean over tasks: the score of the stream.
      intervals: of `macro`, by budget and method; see `statistics.bootstrap`.
      weighted: the mean weighted by the examples each task was evaluated on; no tasks where
        these are not known.
      top5: the unweighted mean of top-5 accuracy, over the tasks that have it.
    """

    group: Group
    macro: dict[str, Mean]
    intervals: dict[str, dict[str, Interval]]
    weighted: dict[str, Mean]
    top5: dict[str, Mean]


def group_tasks(tasks: Iterable[RunTask]) -> list[Group]:
    """The groups of a run's tasks; a task without a year or a domain is in no such group.

    Args:
      tasks: the run's.

    Returns:
      All tasks, then by metric, by domain (in alphabetical order), by year.
    """
    tasks = list(tasks)
    found = [Group("all", "all", tuple(task.name for task in tasks))]
    keys: dict[str, Callable[[RunTask], Any]] = {
        "metric": metric,
        "domain": lambda task: task.domain,
        "year": lambda task: task.year,
    }
    for by, key in keys.items():
        members: dict[Any, list[str]] = {}
        for task in tasks:
            if key(task) is not None:
                members.setdefault(key(task), []).append(task.name)
        found += [Group(by, str(name), tuple(members[name])) for name in sorted(members)]
    return found


def metric(task: RunTask) -> str:
    """What a task's score is: "accuracy", or "mAP" of a multi-label task."""
    return "mAP" if task.kind == "multi_label" else "accuracy"


def metric_name(tasks: Iterable[RunTask]) -> str:
    """The name of the tasks' metric, "score" where they do not share one."""
    names = {metric(task) for task in tasks}
    return names.pop() if len(names) == 1 else "score"


def chance(task: RunTask) -> float | None:
    """The accuracy of a guess, 1 / number of classes, where that is known.

    The mean average precision of a guess depends on how frequent the labels are, which no record
    says.
    """
    if metric(task) != "accuracy" or not task.num_classes:
        return None
    return 1 / task.num_classes


def scores(table: Table, found: Values, top5: Values) -> list[Scores]:
    """The scores of every group.

    Args:
      table: the run's records.
      found: results, from `values`.
      top5: the same of top-5 accuracy.
    """
    methods, budgets = table.methods, table.budgets
    weights = {task.name: task.dev_test_examples or 0 for task in table.tasks}
    result = []
    for group in group_tasks(table.tasks):
        known = all(weights[task] for task in group.tasks)
        macro = means(found, group.tasks, methods, budgets)
        result.append(
            Scores(
                group,
                macro,
                _intervals(found, macro, methods),
                means(found, group.tasks if known else (), methods, budgets, weights),
                means(top5, group.tasks, methods, budgets),
            )
        )
    return result


def _intervals(
    found: Values, macro: Mapping[str, Mean], methods: Sequence[str]
) -> dict[str, dict[str, Interval]]:
    """Intervals of means over tasks, by budget and method."""
    # Budgets at which the tasks are the same have the same resamples of them.
    by_tasks: dict[tuple[str, ...], list[str]] = {}
    for budget, mean in macro.items():
        if mean.tasks:
            by_tasks.setdefault(mean.tasks, []).append(budget)
    result: dict[str, dict[str, Interval]] = {budget: {} for budget in macro}
    for tasks, budgets in by_tasks.items():
        places = [(budget, method) for budget in budgets for method in methods]
        columns = np.array([[mean_of(found[t][m][b]) for b, m in places] for t in tasks])
        for (budget, method), interval in zip(places, mean_intervals(columns), strict=True):
            result[budget][method] = interval
    return result


def error(point: Point) -> Point:
    """1 - score."""
    return dataclasses.replace(point, mean=1 - point.mean)


def means_csv(found: Iterable[Scores], table: Table) -> str:
    """One line a group, budget and method that has a score.

    Args:
      found: from `scores`.
      table: the run's records.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, MEANS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for of_group in found:
        for budget, macro in of_group.macro.items():
            writer.writerows(_lines(of_group, budget, macro, table))
    return text.getvalue()


def _lines(found: Scores, budget: str, macro: Mean, table: Table) -> list[dict[str, Any]]:
    examples = {task.name: task.dev_test_examples for task in table.tasks}
    lines = []
    top5 = found.top5[budget]
    for method, point in macro.points.items():
        weighted = found.weighted[budget].points.get(method)
        best = top5.points.get(method)
        lines.append(
            {
                "by": found.group.by,
                "group": found.group.name,
                "method": method,
                "budget_flops": table.budgets[budget],
                "tasks": len(macro.tasks),
                "score": point.mean,
                "score_std": point.std,
                "score_low": found.intervals[budget][method].low,
                "score_high": found.intervals[budget][method].high,
                "error": error(point).mean,
                "examples": sum(examples[t] or 0 for t in macro.tasks) if weighted else None,
                "weighted_score": weighted and weighted.mean,
                "weighted_error": weighted and error(weighted).mean,
                "top5_tasks": len(top5.tasks),
                "top5": best and best.mean,
                "budget": budget,
            }
        )
    return lines


def missing_csv(missing: Sequence[MissingTask]) -> str:
    """One line a task of the stream that the run went without."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ("name", "title", "reason"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, missing))
    return text.getvalue()
