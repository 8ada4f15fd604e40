"""Each statistic against another way to compute it."""

import itertools
import math
import statistics

import chex
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl_jax.report import statistics as ours
from ctl_jax.report.statistics import Interval

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=7)
FLOPS = np.array([1e9, 4e9, 1e10, 1e11])
CURVES = st.lists(st.floats(0, 1, width=16), min_size=4, max_size=4).map(np.array)


@settings(max_examples=40)
@given(SCORES)
def test_an_interval_is_within_the_numbers_and_the_same_again(numbers):
    found = ours.mean_interval(numbers)
    assert found == ours.mean_interval(numbers)
    assert found.estimate == statistics.fmean(numbers)
    if len(numbers) == 1:
        assert found.low is found.high is None
    else:
        slack = 1e-12
        assert min(numbers) - slack <= found.low <= found.high <= max(numbers) + slack


def test_an_interval_is_near_students_where_that_holds():
    numbers = np.random.default_rng(3).normal(0.7, 0.1, 40).tolist()
    found = ours.mean_interval(numbers)
    error = statistics.stdev(numbers) / 40**0.5
    expected = scipy.stats.t.interval(0.95, 39, statistics.fmean(numbers), error)
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.15 * error)


def test_intervals_are_those_of_each_column_alone():
    """With scipy's own resampling of numbers instead of weights."""
    columns = np.random.default_rng(0).gamma(2, 0.1, (14, 3))
    for column, found in zip(columns.T, ours.mean_intervals(columns), strict=True):
        expected = scipy.stats.bootstrap(
            (column,), np.mean, rng=np.random.default_rng(0)
        ).confidence_interval
        chex.assert_trees_all_close(found[1:], tuple(expected), atol=2e-4)


def test_an_interval_of_a_ratio():
    """Of a statistic that is no mean: skewed, so that BCa differs from percentiles."""
    pairs = np.random.default_rng(1).gamma(2, 0.1, (20, 2))

    def ratio(weights):
        means = weights @ pairs
        return means[..., :1] / means[..., 1:]

    (found,) = ours.bootstrap(ratio, len(pairs))
    expected = scipy.stats.bootstrap(
        tuple(pairs.T),
        lambda x, y, axis: x.mean(axis) / y.mean(axis),
        paired=True,
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = expected.high - expected.low
    chex.assert_trees_all_close(found[1:], tuple(expected), atol=0.05 * width)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Tasks vary by .1 and their three seeds by .15; a task's number is the mean over its seeds."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        seeds = 0.5 + rng.normal(0, 0.1, (25, 1)) + rng.normal(0, 0.15, (25, 3))
        means = seeds.mean(axis=1)[:, None]
        (found,) = ours.bootstrap(lambda weights, means=means: weights @ means, 25, resamples=599)
        held += found.low <= 0.5 <= found.high
    # Binomial: 285 are expected, four standard deviations are 15; of 25 tasks BCa holds about 93%.
    assert 264 <= held <= 297


def test_weights_are_shares_also_where_a_task_is_left_out():
    """As BCa does for how much each task counts; not every statistic is of one scale."""

    def statistic(weights):
        np.testing.assert_allclose(weights.sum(axis=-1), 1)
        return weights[..., :1] + 7

    (found,) = ours.bootstrap(statistic, 6)
    assert found.estimate == pytest.approx(7 + 1 / 6)


def test_of_one_task_there_is_no_interval():
    assert ours.mean_interval([0.5]) == Interval(0.5)
    assert not Interval(0.5).excludes_zero
    assert Interval(0.5).shown == "0.500"
    assert Interval(-0.5, -0.6, -0.1).excludes_zero
    assert not Interval(0.5, 0.0, 0.6).excludes_zero


def test_where_nothing_varies_an_interval_has_no_width():
    chex.assert_trees_all_close(tuple(ours.mean_interval([0.1] * 5)), (0.1, 0.1, 0.1), atol=1e-12)


def _sign_flips(differences):
    """The exact p-value of the signed-rank test, over all signs that there could be."""
    ranks = scipy.stats.rankdata(np.abs(differences))
    signs = np.array(list(itertools.product((0, 1), repeat=len(ranks))))
    sums, seen = signs @ ranks, np.sum(ranks[differences > 0])
    middle = ranks.sum() / 2
    return np.mean(np.abs(sums - middle) >= abs(seen - middle) - 1e-9)


@settings(max_examples=20)
@given(st.lists(st.integers(-40, 40).filter(bool), min_size=10, max_size=12, unique_by=abs))
def test_signed_ranks_are_tested_exactly(numbers):
    differences = np.array(numbers) / 100
    assert ours.signed_rank(differences) == pytest.approx(_sign_flips(differences))


def test_ties_are_shared_among_both_sides():
    assert ours.signed_rank(np.zeros(10)) == 1.0
    many = np.repeat([-0.01, 0, 0.02], (2, 5, 13))
    ranks = scipy.stats.rankdata(np.abs(many))
    half = np.sum(ranks[many == 0]) / 2
    plus, minus = np.sum(ranks[many > 0]) + half, np.sum(ranks[many < 0]) + half
    deviation = math.sqrt(np.sum(ranks**2)) / 2
    expected = 2 * scipy.stats.norm.sf((plus - minus) / 2 / deviation)
    assert ours.signed_rank(many) == pytest.approx(expected, rel=0.05)


def test_holms_correction():
    # R: p.adjust(c(.01, .04, .03, .005), "holm")
    chex.assert_trees_all_close(ours.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert ours.holm([0.5, 0.7]) == [1.0, 1.0]
    assert ours.holm([]) == []


def test_ranks():
    scores = np.array([[0.9, 0.8, 0.8], [0.1, 0.3, 0.2]])
    chex.assert_trees_all_close(ours.average_ranks(scores), np.array([2.0, 1.75, 2.25]))


# Demsar 2006, table 5(a).
@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_difference(methods, q):
    expected = q * math.sqrt(methods * (methods + 1) / (6 * 14))
    assert ours.critical_difference(methods, 14) == pytest.approx(expected, rel=1e-3)


@given(SCORES, SCORES)
def test_probability_of_improvement_is_mann_and_whitneys(one, other):
    u = scipy.stats.mannwhitneyu(one, other, method="asymptotic").statistic
    expected = u / (len(one) * len(other))
    assert ours.probability_of_improvement(one, other) == pytest.approx(expected)


@given(CURVES)
def test_area(curve):
    def height(place):
        return np.interp(place, np.log10(FLOPS), curve)

    points = np.log10(FLOPS)
    area, _ = scipy.integrate.quad(height, points[0], points[-1], points=points[1:-1])
    assert ours.log_area(curve, FLOPS) == pytest.approx(area / (points[-1] - points[0]), abs=1e-6)


def _fine(curve):
    """A curve at 200,001 places of log10 FLOPs."""
    places = np.linspace(9, 11, 200_001)
    return places, np.interp(places, np.log10(FLOPS), curve)


@settings(max_examples=50)
@given(CURVES, st.floats(0, 1, width=16))
def test_flops_to_reach(curve, target):
    found = ours.flops_to_reach(curve, np.array([target]), FLOPS)[0]
    places, heights = _fine(curve)
    if target > curve.max():
        assert found == 12
    elif curve[0] >= target:
        assert found == 9
    else:
        # A float beside the height itself, where a curve only touches the target.
        assert found == pytest.approx(places[np.argmax(heights >= target - 1e-9)], abs=2e-5)


@settings(max_examples=50)
@given(CURVES)
def test_ahead_until(heights):
    differences = heights - 0.5
    found = ours.ahead_until(differences, FLOPS)
    if differences[-1] > 0:
        assert found == 12
    elif not (differences > 0).any():
        assert found == 8
    else:
        places, fine = _fine(differences)
        last = places[np.flatnonzero(fine > 1e-9)[-1]]
        assert found == pytest.approx(last, abs=2e-5)


def test_curves_are_taken_as_one():
    """Of many at once each is as it is alone."""
    curves = np.random.default_rng(0).random((5, 3, 4))
    target = np.array([0.2, 0.9])
    for index in np.ndindex(5, 3):
        one = curves[index]
        assert ours.log_area(curves, FLOPS)[index] == ours.log_area(one, FLOPS)
        reached = ours.flops_to_reach(curves, np.broadcast_to(target, (5, 3, 2)), FLOPS)
        chex.assert_trees_all_equal(reached[index], ours.flops_to_reach(one, target, FLOPS))
        until = ours.ahead_until(curves - 0.5, FLOPS)
        assert until[index] == ours.ahead_until(one - 0.5, FLOPS)
        fits = [each[index] for each in ours.power_law(curves, FLOPS)]
        chex.assert_trees_all_close(fits, list(ours.power_law(one, FLOPS)))


@pytest.mark.parametrize("noise", [0, 0.004])
@pytest.mark.parametrize(("a", "b", "c"), [(0.9, 0.5, 0.4), (0.7, 0.3, 1.2), (0.95, 0.8, 0.2)])
def test_power_law(a, b, c, noise):
    flops = np.geomspace(1e10, 1e13, 7)
    x = flops / flops[0]
    curve = a - b * x**-c + noise * np.random.default_rng(0).normal(size=7)
    found = np.array(ours.power_law(curve, flops))
    expected, _ = scipy.optimize.curve_fit(
        lambda x, a, b, c: a - b * x**-c,
        x,
        curve,
        p0=(a, b, c),
        bounds=([0, 0, 0.02], [1, np.inf, 4]),
    )
    # The exponents that are tried are 6% apart.
    np.testing.assert_allclose(found[0], expected[0], atol=0.01)
    np.testing.assert_allclose(found[2], expected[2], rtol=0.06)
    errors = [np.sum((curve - fit[0] + fit[1] * x ** -fit[2]) ** 2) for fit in (found, expected)]
    assert errors[0] <= errors[1] + 2e-5


def test_an_asymptote_is_no_more_than_1_and_never_below_a_falling_curve():
    flops = np.geomspace(1e10, 1e13, 5)
    assert ours.power_law(np.linspace(0.5, 0.95, 5), flops)[0] == 1
    falling = np.linspace(0.9, 0.5, 5)
    asymptote, coefficient, _ = ours.power_law(falling, flops)
    assert (asymptote, coefficient) == (pytest.approx(0.7), 0)
