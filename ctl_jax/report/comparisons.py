"""Methods against a baseline, with intervals: at each budget, over all of them, and by rank."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.report import statistics
from ctl_jax.report._budgets import Axis
from ctl_jax.report.aggregate import DENSE, Values
from ctl_jax.report.statistics import Array, Interval

# An asymptote is fitted to at least as many budgets, by fewer resamples than there are otherwise.
_FITTED, _FIT_RESAMPLES = 4, 1999


class Comparison(NamedTuple):
    """A method against the baseline at a budget, on the tasks where both have a result.

    Attributes:
      method: its name.
      budget: its name.
      tasks: how many.
      seeds: of the task and method with the fewest.
      difference: dev_test of the method minus that of the baseline, paired by task.
      relative: the ratio of their means over tasks, less one; None where the baseline's is zero.
      wins: on how many tasks it is above the baseline.
      ties: on how many it is equal.
      losses: on how many it is below.
      p: of Wilcoxon's signed-rank test, by Holm's correction for all comparisons of the run; None
        of fewer than ten tasks.
      improvement: the probability that a run of the method is above one of the baseline.
    """

    method: str
    budget: str
    tasks: int
    seeds: int
    difference: Interval
    relative: Interval | None
    wins: int
    ties: int
    losses: int
    p: float | None
    improvement: Interval


class Curve(NamedTuple):
    """A method over all budgets that have results, on the tasks where it and the baseline have all.

    Attributes:
      method: its name.
      tasks: how many.
      area: the mean of its accuracy over log FLOPs.
      area_difference: the same minus that of the baseline; None of the baseline.
      saving: by budget, log10 of the FLOPs at which the method reaches the accuracy that the
        baseline has there, over the FLOPs of the budget; empty of the baseline.
      ahead_first: whether it is above the baseline at the smallest budget.
      crossover: log10 of the FLOPs up to which that stays so; None of the baseline.
      asymptote: of a power law, where there are four budgets or more.
      places: log10 of the FLOPs of each budget, ascending. Of what is below the first or above the
        last no more is known.
    """

    method: str
    tasks: int
    area: Interval
    area_difference: Interval | None
    saving: dict[str, Interval]
    ahead_first: bool
    crossover: Interval | None
    asymptote: Interval | None
    places: dict[str, float]


class Ranks(NamedTuple):
    """Average ranks at a budget, on the tasks where all methods that were run there have a result.

    Attributes:
      tasks: how many.
      ranks: by method, 1 the best.
      critical_difference: ranks further apart are told apart; None of fewer than ten tasks.
    """

    tasks: int
    ranks: dict[str, float]
    critical_difference: float | None


@dataclasses.dataclass(frozen=True)
class Comparisons:
    """All that is said of methods against a baseline.

    Attributes:
      baseline: the method that others are compared with.
      at: by method and budget.
      curves: by method; a method is missing without a task that has all budgets.
      ranks: by budget.
    """

    baseline: str
    at: dict[tuple[str, str], Comparison]
    curves: dict[str, Curve]
    ranks: dict[str, Ranks]


def baseline_of(methods: Sequence[str], asked: str | None) -> str:
    """The method that others are compared with: the one asked for, or dense, or the first.

    Returns:
      One of the methods; "" where there is none.

    Raises:
      UserError: the run has no such method.
    """
    if asked is not None and asked not in methods:
        raise UserError(f"baseline {asked!r}: expected one of {', '.join(methods)}")
    return asked or (DENSE if DENSE in methods else next(iter(methods), ""))


def compare(
    found: Values, tasks: Sequence[str], methods: Sequence[str], budgets: Axis, baseline: str
) -> Comparisons:
    """Every method against a baseline.

    Args:
      found: results, from `aggregate.values`.
      tasks: names of the run's tasks.
      methods: names of the run's methods.
      budgets: FLOPs by name, ascending.
      baseline: one of the methods.
    """
    others = [method for method in methods if method != baseline]
    at = {
        (method, budget): compared
        for method in others
        for budget in budgets
        if (compared := _compared(found, tasks, method, baseline, budget)) is not None
    }
    curves = {
        method: curve
        for method in methods
        if (curve := _curve(found, tasks, method, baseline, budgets)) is not None
    }
    ranks = {
        budget: ranked
        for budget in budgets
        if (ranked := _ranks(found, tasks, methods, budget)) is not None
    }
    return Comparisons(baseline, _corrected(at), curves, ranks)


def handovers(
    found: Values, tasks: Sequence[str], leaders: Sequence[str], budgets: Axis
) -> dict[tuple[str, str], Curve]:
    """Where on the frontier one method takes over from another.

    Args:
      found: results, from `aggregate.values`.
      tasks: names of the run's tasks.
      leaders: the best method at each budget, in order.
      budgets: FLOPs by name, ascending.

    Returns:
      By the method that was best and the one that is best next, the curve of the first against the
      second; a pair is missing that has no two budgets in common.
    """
    pairs = dict.fromkeys(pair for pair in itertools.pairwise(leaders) if pair[0] != pair[1])
    curves = {pair: _curve(found, tasks, *pair, budgets) for pair in pairs}
    return {pair: curve for pair, curve in curves.items() if curve is not None}


def _seeds(found: Values, task: str, method: str, budget: str) -> list[float]:
    return list(found.get(task, {}).get(method, {}).get(budget, {}).values())


def _compared(
    found: Values, tasks: Sequence[str], method: str, baseline: str, budget: str
) -> Comparison | None:
    pairs = [
        (ours, theirs)
        for task in tasks
        if (ours := _seeds(found, task, method, budget))
        and (theirs := _seeds(found, task, baseline, budget))
    ]
    if not pairs:
        return None
    scores = np.array([[np.mean(ours), np.mean(theirs)] for ours, theirs in pairs])
    differences = scores[:, 0] - scores[:, 1]
    better = [statistics.probability_of_improvement(ours, theirs) for ours, theirs in pairs]
    difference, improvement = statistics.mean_intervals(np.stack([differences, better], axis=1))
    # Means of equal numbers may differ in their last digits.
    signs = np.sign(np.round(differences, 12))
    tested = len(pairs) >= statistics.TESTED_TASKS
    return Comparison(
        method,
        budget,
        tasks=len(pairs),
        seeds=min(len(each) for pair in pairs for each in pair),
        difference=difference,
        relative=statistics.relative_interval(*scores.T) if scores[:, 1].any() else None,
        wins=int(np.sum(signs > 0)),
        ties=int(np.sum(signs == 0)),
        losses=int(np.sum(signs < 0)),
        p=statistics.signed_rank(np.round(differences, 12)) if tested else None,
        improvement=improvement,
    )


def _corrected(at: dict[tuple[str, str], Comparison]) -> dict[tuple[str, str], Comparison]:
    """The comparisons with their p-values by Holm's correction."""
    tested = {key: compared.p for key, compared in at.items() if compared.p is not None}
    corrected = dict(zip(tested, statistics.holm(list(tested.values())), strict=True))
    return {key: compared._replace(p=corrected.get(key)) for key, compared in at.items()}


def _curve(
    found: Values, tasks: Sequence[str], method: str, baseline: str, budgets: Axis
) -> Curve | None:
    """A method's curve, beside that of the baseline where there is one."""
    pair = [method] if method == baseline else [method, baseline]
    run = {
        budget: flops
        for budget, flops in budgets.items()
        if flops and all(any(_seeds(found, t, m, budget) for t in tasks) for m in pair)
    }
    # Two budgets of the same FLOPs are one place on the axis.
    places = {flops: budget for budget, flops in run.items()}
    flops, names = np.array(list(places), np.float64), list(places.values())
    scores = np.array(
        [
            [[np.mean(_seeds(found, task, each, b)) for b in names] for each in pair]
            for task in tasks
            if all(_seeds(found, task, each, b) for b in names for each in pair)
        ]
    )
    if len(names) < 2 or not len(scores):
        return None
    ours, theirs = scores[:, 0], scores[:, -1]
    whole = ours.mean(axis=0) - theirs.mean(axis=0)
    ahead_first = bool(whole[0] > 0)
    sign = 1 if ahead_first else -1

    def statistic(weights: Array) -> Array:
        one, other = weights @ ours, weights @ theirs
        area = statistics.log_area(one, flops)
        return np.concatenate(
            [
                np.stack([area, area - statistics.log_area(other, flops)], axis=-1),
                statistics.ahead_until(sign * (one - other), flops)[..., None],
                statistics.flops_to_reach(one, other, flops) - np.log10(flops),
            ],
            axis=-1,
        )

    area, difference, crossover, *saving = statistics.bootstrap(statistic, len(scores))
    is_other = method != baseline
    return Curve(
        method,
        tasks=len(scores),
        area=area,
        area_difference=difference if is_other else None,
        saving=dict(zip(names, saving, strict=True)) if is_other else {},
        ahead_first=ahead_first,
        crossover=crossover if is_other else None,
        asymptote=_asymptote(ours, flops),
        places=dict(zip(names, np.log10(flops).tolist(), strict=True)),
    )


def _asymptote(curves: Array, flops: Array) -> Interval | None:
    """The asymptote of a power law through the mean of curves, [tasks, budgets]."""
    if len(flops) < _FITTED:
        return None

    def statistic(weights: Array) -> Array:
        return statistics.power_law(weights @ curves, flops)[0][..., None]

    return statistics.bootstrap(statistic, len(curves), _FIT_RESAMPLES)[0]


def _ranks(
    found: Values, tasks: Sequence[str], methods: Sequence[str], budget: str
) -> Ranks | None:
    run = [m for m in methods if any(_seeds(found, task, m, budget) for task in tasks)]
    scores = [
        [np.mean(_seeds(found, task, m, budget)) for m in run]
        for task in tasks
        if all(_seeds(found, task, m, budget) for m in run)
    ]
    if len(run) < 2 or not scores:
        return None
    ranks = statistics.average_ranks(np.round(scores, 12))
    told = len(scores) >= statistics.TESTED_TASKS
    apart = statistics.critical_difference(len(run), len(scores)) if told else None
    return Ranks(len(scores), dict(zip(run, ranks.tolist(), strict=True)), apart)
