"""How sure a comparison of methods is, and what curves of accuracy against compute tell.

Pure functions on arrays. A task's number is the mean over its seeds. Intervals are of the bootstrap
over tasks, each drawn with all its seeds, so that how much seeds vary is part of how much tasks
vary (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). They say what
other tasks like these would give; of fewer than about six tasks they are too narrow. Compute is on
a logarithmic axis (base 10), and curves are straight lines between budgets.
"""

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ctl_jax import formatting

LEVEL = 0.95
# Of fewer tasks Wilcoxon's test can hardly find anything, and its correction nothing.
TESTED_TASKS = 10
_RESAMPLES = 9999
# Of a ratio of means that is larger no more is known than that.
_MOST_RATIO = 1e6
# Exponents of power laws that are tried.
_EXPONENTS = np.geomspace(0.02, 4, 96)

Array = np.ndarray


class Interval(NamedTuple):
    """An estimate and its 95% interval; both ends are None of fewer than two tasks."""

    estimate: float
    low: float | None = None
    high: float | None = None

    @property
    def shown(self) -> str:
        """As people read it: `0.812 (0.780 to 0.840)`."""
        estimate = formatting.metric(self.estimate)
        return f"{estimate} ({self.ends})" if self.ends else estimate

    @property
    def ends(self) -> str:
        """Both ends as people read them; "" where there are none."""
        if self.low is None or self.high is None:
            return ""
        return f"{formatting.metric(self.low)} to {formatting.metric(self.high)}"

    @property
    def excludes_zero(self) -> bool:
        """Whether both ends are on one side of zero; never of an estimate without an interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def bootstrap(
    statistic: Callable[[Array], Array], tasks: int, resamples: int = _RESAMPLES
) -> list[Interval]:
    """Intervals of statistics by the bias-corrected and accelerated bootstrap over tasks (BCa).

    Efron, Better Bootstrap Confidence Intervals, Journal of the American Statistical Association,
    1987; the percentiles of the resamples where it is not defined, since nothing varies or a
    statistic is at an end of all its resamples. The same numbers give the same intervals. (They are
    also those of `scipy.stats.bootstrap`, which draws again in each call.)

    Args:
      statistic: from weights of the tasks, [..., tasks], which sum to one, to K finite numbers,
        [..., K].
      tasks: how many, at least one; one tells no interval.
      resamples: how many are drawn.
    """

    def rounded(weights: Array) -> Array:
        # BCa counts how many resamples are below the estimate and how many equal it; which of those
        # are equal must not depend on the order of a sum.
        return np.round(statistic(weights), 12)

    whole = rounded(np.full(tasks, 1 / tasks))
    if tasks < 2:
        return [Interval(float(each)) for each in whole]
    drawn = np.sort(rounded(_resampled(tasks, resamples)), axis=0)
    without = rounded((1 - np.eye(tasks)) / (tasks - 1))
    sides = np.array([[(1 - LEVEL) / 2], [(1 + LEVEL) / 2]])
    shares = _corrected(sides, whole, drawn, without)
    shares = np.where(np.isfinite(shares), shares, sides)
    places = shares * (len(drawn) - 1)
    before = np.floor(places).astype(int)
    low, high = (
        np.take_along_axis(drawn, at, axis=0) for at in (before, np.ceil(places).astype(int))
    )
    ends = low + (places - before) * (high - low)
    return [Interval(*map(float, each)) for each in zip(whole, *ends, strict=True)]


def _corrected(sides: Array, whole: Array, drawn: Array, without: Array) -> Array:
    """Which shares of the resamples are the ends of the interval: [2, K], NaN where undefined.

    Args:
      sides: those that would be without a correction, [2, 1].
      whole: the estimates, [K].
      drawn: of each resample, [resamples, K].
      without: of all tasks but one, [tasks, K].
    """
    from scipy.special import ndtr, ndtri

    # BCa divides by how much a statistic varies from task to task.
    with np.errstate(all="ignore"):
        bias = ndtri(((drawn < whole).mean(axis=0) + (drawn <= whole).mean(axis=0)) / 2)
        influence = without.mean(axis=0) - without
        skew = np.sum(influence**3, axis=0) / (6 * np.sum(influence**2, axis=0) ** 1.5)
        moved = bias + ndtri(sides)
        return ndtr(bias + moved / (1 - skew * moved))


@functools.lru_cache(maxsize=32)
def _resampled(tasks: int, resamples: int) -> Array:
    """How often each task is in each resample, as shares of it, [resamples, tasks]."""
    drawn = np.random.default_rng(0).integers(0, tasks, (resamples, tasks))
    places = drawn + tasks * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=tasks * resamples)
    weights = counts.reshape(resamples, tasks) / tasks
    weights.flags.writeable = False
    return weights


def mean_intervals(columns: Array) -> list[Interval]:
    """Means over tasks with their intervals; see `bootstrap`.

    Of two methods' numbers the paired difference is that of a column of differences.

    Args:
      columns: float64 [tasks, K].
    """
    found = bootstrap(lambda weights: weights @ columns, len(columns))
    # The same to the last digit as the means that are shown elsewhere.
    means = [statistics.fmean(column) for column in columns.T]
    return [each._replace(estimate=mean) for each, mean in zip(found, means, strict=True)]


def mean_interval(numbers: Sequence[float]) -> Interval:
    """The mean over tasks of one number each, with its interval; see `bootstrap`."""
    return mean_intervals(np.asarray(numbers, np.float64)[:, None])[0]


def relative_interval(ours: Array, theirs: Array) -> Interval:
    """The ratio of two methods' means over tasks, less one, with its interval; see `bootstrap`.

    Tasks count as they do in the means: one with small numbers weighs little. An end is infinite
    where too many resamples have a baseline of zero.

    Args:
      ours: scores, [tasks].
      theirs: those of the baseline, not all zero.
    """

    def statistic(weights: Array) -> Array:
        least = np.maximum(weights @ theirs, np.mean(theirs) / _MOST_RATIO)
        return np.minimum(weights @ ours / least - 1, _MOST_RATIO)[..., None]

    found = bootstrap(statistic, len(ours))[0]
    if found.high is not None and found.high >= _MOST_RATIO / 2:
        return found._replace(high=math.inf)
    return found


def signed_rank(differences: Array) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test on paired differences, [tasks].

    Wilcoxon, Individual Comparisons by Ranking Methods, 1945; ties are shared among both sides, as
    Demsar has it (Statistical Comparisons of Classifiers over Multiple Data Sets, 2006). Exact up
    to 50 tasks where no two differences are of one size, else by the normal approximation.
    """
    import scipy.stats

    if not np.any(differences):
        return 1.0
    is_exact = len(np.unique([0, *np.abs(differences)])) == len(differences) + 1 <= 51
    method = "exact" if is_exact else "asymptotic"
    found = scipy.stats.wilcoxon(differences, zero_method="zsplit", method=method)
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected so that one false finding among all is as unlikely.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[order]), 1)
    found = np.empty(len(p_values))
    found[order] = corrected
    return found.tolist()


def average_ranks(scores: Array) -> Array:
    """The rank of each method, 1 the best, as the mean over tasks: [tasks, methods] -> [methods].

    Equal scores share the mean of their ranks (Demsar 2006, section 3.2.2).
    """
    import scipy.stats

    return scipy.stats.rankdata(-scores, axis=1).mean(axis=0)


@functools.cache
def critical_difference(methods: int, tasks: int) -> float:
    """How far average ranks must be apart to be told apart at the 5% level.

    Nemenyi's, q sqrt(k (k + 1) / (6 N)) for k methods on N tasks (Demsar 2006, section 3.2.2), q
    being the 95% point of the studentized range over sqrt(2).
    """
    import scipy.stats

    point = scipy.stats.studentized_range.ppf(LEVEL, methods, np.inf)
    return float(point / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * tasks)))


def probability_of_improvement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How likely a run of ours is above one of theirs on a task; equal ones count half.

    Over all pairs of seeds; the mean over tasks is that of Agarwal et al., Deep Reinforcement
    Learning at the Edge of the Statistical Precipice, 2021.
    """
    one, other = np.asarray(ours)[:, None], np.asarray(theirs)[None, :]
    return float(np.mean((one > other) + 0.5 * (one == other)))


def log_area(curves: Array, flops: Array) -> Array:
    """The area under curves over log FLOPs, as a share of their range: the mean accuracy there.

    By the trapezoidal rule: [..., budgets] -> [...].

    Args:
      curves: accuracies.
      flops: of the budgets, ascending, at least two.
    """
    places = np.log10(flops)
    return np.trapezoid(curves, places, axis=-1) / (places[-1] - places[0])


def flops_to_reach(curves: Array, targets: Array, flops: Array) -> Array:
    """The log10 of the FLOPs at which curves first reach targets.

    Args:
      curves: accuracies, [..., budgets].
      targets: accuracies, [..., K].
      flops: of the budgets, ascending.

    Returns:
      [..., K]; of the smallest budget where a curve is at its target there already, and ten times
      the largest where it never is.
    """
    places = np.log10(flops)
    above = curves[..., None, :] >= targets[..., :, None]
    first = np.argmax(above, axis=-1)
    after = np.maximum(first, 1) if len(places) > 1 else first
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(curves, at, axis=-1) for at in (before, after))
    rise = np.where(high > low, high - low, 1)
    between = places[before] + (targets - low) / rise * (places[after] - places[before])
    found = np.where(first == 0, places[0], between)
    return np.where(above.any(axis=-1), found, places[-1] + 1)


def ahead_until(differences: Array, flops: Array) -> Array:
    """The log10 of the FLOPs behind which differences are not positive any more.

    Args:
      differences: of two curves, [..., budgets].
      flops: of the budgets, ascending.

    Returns:
      [...]: the place where the straight line from the last positive difference to the next one
      is zero; a tenth of the smallest budget where none is positive, and ten times the largest
      where the last one is.
    """
    places, last = np.log10(flops), differences.shape[-1] - 1
    is_ahead = differences > 0
    at = last - np.argmax(is_ahead[..., ::-1], axis=-1)
    after = np.minimum(at + 1, last)
    low, high = (
        np.take_along_axis(differences, each[..., None], axis=-1)[..., 0] for each in (at, after)
    )
    fall = np.where(low > high, low - high, 1)
    found = places[at] + low / fall * (places[after] - places[at])
    found = np.where(is_ahead[..., -1], places[-1] + 1, found)
    return np.where(is_ahead.any(axis=-1), found, places[0] - 1)


def power_law(curves: Array, flops: Array) -> tuple[Array, Array, Array]:
    """Fits accuracy = a - b (FLOPs / smallest budget)^-c to curves by least squares.

    a, the asymptote, is at most 1, and b at least 0; c is the best of 96 values from 0.02 to 4, of
    which each has its best a and b in closed form. The form is that of Hestness et al., Deep
    Learning Scaling is Predictable, Empirically, 2017. An asymptote is an extrapolation: its
    interval says nothing of whether the form holds beyond the largest budget.

    Args:
      curves: accuracies, [..., budgets].
      flops: of the budgets, at least four.

    Returns:
      a, b and c, each [...].
    """
    x = np.asarray(flops, np.float64) / np.min(flops)
    mean = curves.mean(axis=-1)
    best = (mean, np.zeros_like(mean), np.full_like(mean, _EXPONENTS[0]))
    least = np.sum((curves - mean[..., None]) ** 2, axis=-1)
    for exponent in _EXPONENTS:
        basis = x**-exponent
        centred = basis - basis.mean()
        slope = -(curves @ centred) / (centred @ centred)
        asymptote = mean + slope * basis.mean()
        # Above 1 the best is at 1, and b is fitted alone.
        capped = ((1 - curves) @ basis) / (basis @ basis)
        slope = np.where(asymptote > 1, capped, slope)
        asymptote = np.minimum(asymptote, 1)
        errors = curves - asymptote[..., None] + slope[..., None] * basis
        square = np.sum(errors**2, axis=-1)
        is_better = (slope >= 0) & (square < least)
        least = np.where(is_better, square, least)
        new = (asymptote, slope, np.full_like(mean, exponent))
        best = tuple(np.where(is_better, n, b) for n, b in zip(new, best, strict=True))
    return best
