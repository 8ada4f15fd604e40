"""Accuracy against compute: one task, the mean over tasks, relative to dense."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DENSE = "dense"

# values[task][method][budget][seed] = dev_test
Values = dict[str, dict[str, dict[str, dict[int, float]]]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A number at one budget, and how far it varies.

    Attributes:
        mean: The number.
        std: Its sample standard deviation over seeds, None where fewer than two are there.
        seeds: How many seeds are in it; of a mean over tasks, in the task with the fewest.
    """

    mean: float
    std: float | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over tasks at one budget.

    Attributes:
        tasks: The tasks it is over: those where every method has a result at this budget.
        points: Method to mean; empty where no task has every method.
        relative: Method to (mean - dense) / dense, without dense itself; empty without dense.
        better: Method to the number of these tasks where it is strictly better than dense.
    """

    tasks: tuple[str, ...]
    points: dict[str, Point]
    relative: dict[str, Point]
    better: dict[str, int]


def values(rows: Iterable[Mapping[str, Any]], column: str = "dev_test") -> Values:
    """Returns a column by task, method, budget and seed; rows without a number are left out."""
    found: Values = {}
    for row in rows:
        if row[column] is not None:
            at_budget = found.setdefault(row["task"], {}).setdefault(row["method"], {})
            at_budget.setdefault(row["budget"], {})[row["seed"]] = row[column]
    return found


def point(by_seed: Mapping[int, float]) -> Point:
    """Returns the mean over seeds and its spread."""
    numbers = list(by_seed.values())
    return Point(statistics.fmean(numbers), _std(numbers), len(numbers))


def task_curves(found: Values, task: str) -> dict[str, dict[str, Point]]:
    """Returns one task's points by method and budget."""
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
    """Returns the mean over tasks at each budget, and relative to dense.

    Methods are compared on the same tasks only: a task counts at a budget where every method has
    a result there. The spread is over seeds: each seed's mean over tasks is one number.

    Args:
        found: Results, from `values`.
        tasks: Names of the run's tasks.
        methods: Names of the run's methods.
        budgets: The run's budgets.
        weights: Of the tasks, by name; None where each counts the same.

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
        m: statistics.fmean([point(at_budget[t][m]).mean for t in tasks], weight) for m in methods
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
        m: sum(point(at_budget[t][m]).mean > point(at_budget[t][DENSE]).mean for t in tasks)
        for m in others
    }
    return Mean(tasks, points, relative, better)


def _seed_means(
    by_task: Sequence[Mapping[int, float]], weight: Sequence[float] | None
) -> dict[int, float]:
    common = [seed for seed in by_task[0] if all(seed in by_seed for by_seed in by_task)]
    return {seed: statistics.fmean([by[seed] for by in by_task], weight) for seed in common}


def _std(numbers: Sequence[float]) -> float | None:
    return statistics.stdev(numbers) if len(numbers) > 1 else None
