"""The best method at each budget, and where training overtakes fitted heads, with intervals."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ctl_jax.report._budgets import labels
from ctl_jax.report.aggregate import Values, mean_of, values
from ctl_jax.report.statistics import Interval, mean_intervals


@dataclasses.dataclass(frozen=True)
class Leader:
    """The best method at a budget, on the tasks where all methods of this budget have a result.

    Attributes:
      method: its name.
      scores: the mean over these tasks, by method.
      tasks: how many they are.
      others: methods that cannot be told from it: the interval of the paired difference holds
        zero. None of one task, which tells no interval.
    """

    method: str
    scores: dict[str, Interval]
    tasks: int
    others: tuple[str, ...] | None

    @property
    def score(self) -> Interval:
        """Its own mean."""
        return self.scores[self.method]


def frontier(
    found: Values, tasks: Sequence[str], methods: Sequence[str], budgets: Iterable[str]
) -> dict[str, Leader]:
    """The best method at each budget where there is one.

    Args:
      found: results, from `aggregate.values`.
      tasks: names of tasks.
      methods: names of methods; those without a result at a budget do not take part there.
      budgets: in order.
    """
    leaders = {}
    for budget in budgets:
        by_method = at_budget(found, tasks, methods, budget)
        if by_method:
            best = max(by_method, key=lambda method: statistics.fmean(by_method[method]))
            leaders[budget] = _leader(best, by_method)
    return leaders


def _leader(best: str, by_method: Mapping[str, Sequence[float]]) -> Leader:
    scores = np.array(list(by_method.values())).T
    behind = np.array(by_method[best])[:, None] - scores
    found = mean_intervals(np.concatenate([scores, behind], axis=1))
    means, differences = (
        dict(zip(by_method, part, strict=True))
        for part in (found[: len(by_method)], found[len(by_method) :])
    )
    others = tuple(m for m, each in differences.items() if m != best and (each.low or 0) <= 0)
    return Leader(best, means, len(scores), others if len(scores) > 1 else None)


def at_budget(
    found: Values, tasks: Sequence[str], methods: Sequence[str], budget: str
) -> dict[str, list[float]]:
    """A number a task, the mean over its seeds, by the methods that have results there.

    The tasks are those that all of these methods have; empty where there are none.
    """
    present = [m for m in methods if any(budget in found.get(t, {}).get(m, {}) for t in tasks)]
    shared = [t for t in tasks if all(budget in found.get(t, {}).get(m, {}) for m in present)]
    return {m: [mean_of(found[t][m][budget]) for t in shared] for m in present if shared}


def _difference(one: Sequence[float], other: Sequence[float]) -> Interval:
    return mean_intervals(np.subtract(one, other)[:, None])[0]


@dataclasses.dataclass(frozen=True)
class Versus:
    """The best method that makes training steps against the best that only fits a head.

    Each is chosen by its mean over tasks on dev, so that dev_test, which the difference is of,
    chose nothing.

    Attributes:
      trained: the method that makes steps.
      fitted: the one that makes none.
      difference: dev_test of the first minus the second, paired by task.
      tasks: how many tasks that is over.
    """

    trained: str
    fitted: str
    difference: Interval
    tasks: int


def versus(
    rows: Sequence[Mapping[str, Any]],
    tasks: Sequence[str],
    methods: Sequence[str],
    budgets: Iterable[str],
) -> dict[str, Versus]:
    """The comparison at each budget where both kinds of method have results.

    Args:
      rows: of `results.csv`.
      tasks: names of tasks.
      methods: names of methods.
      budgets: in order.
    """
    # Some train before the last head, and no more then.
    training = {row["method"] for row in rows if row["learning_rate"] is not None}
    test, dev = values(rows), values(rows, "dev")
    found = {}
    for budget in budgets:
        scores, choosing = (at_budget(each, tasks, methods, budget) for each in (test, dev))
        best: dict[bool, str] = {}
        for method in sorted(choosing, key=lambda m: -statistics.fmean(choosing[m])):
            best.setdefault(method in training, method)
        if len(best) == 2 and scores:
            trained, fitted = best[True], best[False]
            difference = _difference(scores[trained], scores[fitted])
            found[budget] = Versus(trained, fitted, difference, len(scores[trained]))
    return found


def crossover(found: Mapping[str, Versus]) -> str:
    """Where training overtakes fitted heads, a sentence; "" where nothing compares them.

    Args:
      found: from `versus`, by budget, ascending.
    """
    if not found:
        return ""
    names = dict(zip(found, labels(found), strict=True))
    ahead: list[str] = []
    for budget in reversed(list(found)):
        if _ends(found[budget].difference)[0] <= 0:
            break
        ahead.insert(0, budget)
    before = [budget for budget in found if budget not in ahead]
    behind = [budget for budget in before if _ends(found[budget].difference)[1] < 0]
    if ahead:
        told = f"Training overtakes fitted heads: from {names[ahead[0]]} on it is ahead"
        shown = ahead[0]
    else:
        shown = before[-1]
        told = f"Training is nowhere clearly ahead of fitted heads up to {names[shown]}"
    last = f"; it is behind up to {names[behind[-1]]}" if behind else ""
    return f"{told} ({_compared(found[shown], names[shown])}){last}."


def _ends(difference: Interval) -> tuple[float, float]:
    """Both ends of an interval; of one task, which has none, the difference itself."""
    low, high = difference.low, difference.high
    return (
        (difference.estimate, difference.estimate) if low is None or high is None else (low, high)
    )


def _compared(found: Versus, budget: str) -> str:
    number = f"{found.difference.estimate:+.3f}"
    if found.difference.low is None:
        number += ", of one task, which tells no interval"
    else:
        number += f", 95% interval {found.difference.low:+.3f} to {found.difference.high:+.3f}"
    return f"{found.trained} minus {found.fitted} at {budget}: {number}"
