"""Methods against a baseline, against numbers worked out by hand or another way."""

import csv
import itertools

import chex
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from ctl_jax import report
from ctl_jax.errors import UserError
from ctl_jax.formatting import flops
from ctl_jax.report import gallery
from ctl_jax.report._comparison_tables import handover_sentences
from ctl_jax.report.comparisons import compare, handovers
from ctl_jax.report.statistics import Interval, holm, mean_interval

BUDGETS = {"1 epochs": 10**9, "2 epochs": 10**10, "4 epochs": 10**11, "8 epochs": 10**12}


def _values(scores):
    """Values from {method: [task, budget, seed]}; NaN is no result."""
    found = {}
    for method, array in scores.items():
        for (task, budget, seed), score in np.ndenumerate(array):
            if np.isfinite(score):
                by_method = found.setdefault(f"t{task}", {}).setdefault(method, {})
                by_method.setdefault(list(BUDGETS)[budget], {})[seed] = float(score)
    return found


def _compare(baseline="dense", **scores):
    tasks = [f"t{task}" for task in range(len(scores["dense"]))]
    return compare(_values(scores), tasks, list(scores), BUDGETS, baseline)


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(0, 0.02, (2, 12, 4, 3))


@pytest.fixture
def scores(noise):
    """Twelve tasks at four budgets with three seeds; small is ahead at first and behind at last."""
    curve = np.array([0.4, 0.6, 0.7, 0.75])[None, :, None]
    tasks = np.linspace(-0.2, 0.2, 12)[:, None, None]
    gain = np.array([0.1, 0.03, -0.02, -0.05])[None, :, None]
    return {"dense": curve + tasks + noise[0], "small": curve + tasks + gain + noise[1]}


def test_differences_are_paired_by_task(scores):
    found = _compare(**scores).at
    assert list(found) == [("small", budget) for budget in BUDGETS]
    for index, each in enumerate(found.values()):
        ours, theirs = (scores[m][:, index].mean(axis=1) for m in ("small", "dense"))
        chex.assert_trees_all_close(tuple(each.difference), tuple(mean_interval(ours - theirs)))
        assert (each.wins, each.losses) == (np.sum(ours > theirs), np.sum(ours < theirs))
        assert (each.tasks, each.seeds, each.ties) == (12, 3, 0)
        # Tasks differ by .4: unpaired, nothing would be told apart.
        assert each.difference.high - each.difference.low < 0.04
    raw = [
        scipy.stats.wilcoxon(*(scores[m][:, b].mean(axis=1) for m in ("small", "dense"))).pvalue
        for b in range(4)
    ]
    chex.assert_trees_all_close([each.p for each in found.values()], holm(raw))


def test_the_sign_follows_the_baseline(scores):
    one, other = _compare(**scores).at, _compare("small", **scores).at
    for budget in BUDGETS:
        here, there = one["small", budget], other["dense", budget]
        chex.assert_trees_all_close(here.difference.estimate, -there.difference.estimate)
        chex.assert_trees_all_close(here.improvement.estimate, 1 - there.improvement.estimate)
        assert (here.wins, here.losses) == (there.losses, there.wins)


def test_relative_is_the_ratio_of_means_over_tasks(scores):
    found = _compare(**scores).at
    for index, each in enumerate(found.values()):
        ours, theirs = (scores[m][:, index].mean(axis=1) for m in ("small", "dense"))
        expected = scipy.stats.bootstrap(
            (ours, theirs),
            lambda one, other, axis: one.mean(axis) / other.mean(axis) - 1,
            paired=True,
            vectorized=True,
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert each.relative.estimate == pytest.approx(ours.mean() / theirs.mean() - 1)
        chex.assert_trees_all_close(each.relative[1:], tuple(expected), atol=2e-3)


def test_relative_to_nothing_is_unknown_and_to_next_to_nothing_has_no_upper_end():
    ours, rarely = np.full((3, 4, 1), 0.5), np.zeros((3, 4, 1))
    assert _compare(dense=rarely, small=ours).at["small", "1 epochs"].relative is None
    rarely[0] = 0.3
    found = _compare(dense=rarely, small=ours).at["small", "1 epochs"].relative
    assert found.estimate == pytest.approx(4)
    assert found.high == np.inf


def test_improvement_is_over_all_pairs_of_seeds(scores):
    found = _compare(**scores).at["small", "2 epochs"].improvement
    pairs = [
        np.mean([a > b for a, b in itertools.product(*map(list, both))])
        for both in zip(scores["small"][:, 1], scores["dense"][:, 1], strict=True)
    ]
    assert found.estimate == pytest.approx(np.mean(pairs))


def test_only_tasks_that_both_have_are_compared(scores):
    scores["small"][:4, 2] = np.nan
    scores["small"][0, 0, 1:] = np.nan
    found = _compare(**scores)
    assert [each.tasks for each in found.at.values()] == [12, 12, 8, 12]
    # Of fewer than ten tasks nothing is tested, and the others are not corrected for it.
    assert [each.p is None for each in found.at.values()] == [False, False, True, False]
    assert [each.seeds for each in found.at.values()] == [1, 3, 3, 3]
    assert (found.curves["small"].tasks, found.curves["dense"].tasks) == (8, 12)
    assert [ranks.tasks for ranks in found.ranks.values()] == [12, 12, 8, 12]


def test_curves_of_means(scores):
    found = _compare(**scores).curves
    dense, small = (scores[m].mean(axis=(0, 2)) for m in ("dense", "small"))
    area = np.trapezoid(small, dx=1) / 3
    assert found["small"].area.estimate == pytest.approx(area)
    difference = found["small"].area_difference
    assert difference.estimate == pytest.approx(area - np.trapezoid(dense, dx=1) / 3)
    assert found["dense"].area_difference is found["dense"].crossover is None
    # Ahead at first, behind at last: in between straight lines cross once.
    gaps = small - dense
    assert found["small"].ahead_first
    at = int(np.flatnonzero(gaps > 0)[-1])
    place = 9 + at + gaps[at] / (gaps[at] - gaps[at + 1])
    crossover = found["small"].crossover
    assert crossover.estimate == pytest.approx(place)
    assert 9 < crossover.low < place < crossover.high < 12
    # How much less compute small needs for what dense has at 10 GFLOP.
    saving = found["small"].saving["2 epochs"]
    assert saving.estimate == pytest.approx(np.interp(dense[1], small, [9, 10, 11, 12]) - 10)
    assert saving.low < saving.estimate < saving.high < 0
    # At the smallest budget it is better already, at the largest it never gets there.
    assert found["small"].saving["1 epochs"] == Interval(0.0, 0.0, 0.0)
    assert found["small"].saving["8 epochs"] == Interval(1.0, 1.0, 1.0)
    asymptote = found["small"].asymptote
    fit, _ = scipy.optimize.curve_fit(lambda x, a, b, c: a - b * x**-c, 10.0 ** np.arange(4), small)
    assert asymptote.estimate == pytest.approx(fit[0], abs=0.005)
    assert asymptote.low < asymptote.estimate < asymptote.high <= 1


def test_a_crossover_is_the_same_from_either_side(scores):
    ahead = _compare(**scores).curves["small"]
    behind = _compare("small", **scores).curves["dense"]
    assert (ahead.ahead_first, behind.ahead_first) == (True, False)
    chex.assert_trees_all_close(tuple(ahead.crossover), tuple(behind.crossover), atol=1e-9)


def test_intervals_of_a_crossover_hold_the_true_one():
    """Lines through the same place, whose slopes differ from task to task."""
    slopes = np.random.default_rng(2).normal(1, 0.3, 30)[:, None]
    places = np.array([9, 10, 11, 12])
    shift = np.random.default_rng(3).normal(0, 0.1, 30)[:, None]
    dense = np.full((30, 4, 1), 0.5)
    small = (0.5 - 0.05 * slopes * (places - 10.5 - shift))[..., None]
    found = _compare(dense=dense, small=small).curves["small"].crossover
    assert found.low < 10.5 < found.high
    assert found.high - found.low < 0.2


def test_where_one_method_takes_over_on_the_frontier(scores):
    tasks = [f"t{task}" for task in range(12)]
    leaders = ["small", "small", "dense", "dense"]
    found = handovers(_values(scores), tasks, leaders, BUDGETS)
    assert list(found) == [("small", "dense")]
    # The same as against dense as a baseline.
    curve = found["small", "dense"]
    assert curve == _compare(**scores).curves["small"]
    (said,) = handover_sentences(found)
    low, place, high = (flops(10 ** curve.crossover[i]) for i in (1, 0, 2))
    assert said == f"small against dense: ahead up to {place} ({low} to {high})."
    assert handovers(_values(scores), tasks, ["dense"] * 4, BUDGETS) == {}


def test_few_budgets_tell_no_asymptote_and_one_no_curve(scores):
    assert (
        _compare(**{m: each[:, :3] for m, each in scores.items()}).curves["small"].asymptote is None
    )
    found = _compare(**{m: each[:, :1] for m, each in scores.items()})
    assert (found.curves, len(found.at)) == ({}, 1)


def test_ranks_need_ten_tasks_to_be_told_apart(scores):
    found = _compare(**scores).ranks
    assert found["1 epochs"].ranks == {"dense": 2.0, "small": 1.0}
    # Demsar 2006: 1.96 sqrt(k (k + 1) / (6 N)).
    assert found["1 epochs"].critical_difference == pytest.approx(1.96 * (1 / 12) ** 0.5, rel=1e-3)
    few = _compare(**{m: each[:9] for m, each in scores.items()}).ranks
    assert few["1 epochs"].critical_difference is None


def test_of_one_task_nothing_has_an_interval(scores):
    found = _compare(**{m: each[:1] for m, each in scores.items()})
    for each in found.at.values():
        assert each.difference.low is each.improvement.low is None
    assert found.curves["small"].crossover.low is None


def test_equal_methods_tie(scores):
    found = _compare(dense=scores["dense"], small=scores["dense"])
    for each in found.at.values():
        assert (each.wins, each.ties, each.losses, each.p) == (0, 12, 0, 1.0)
        assert not each.difference.excludes_zero
        assert each.improvement.estimate == pytest.approx(0.5, abs=0.2)


def test_the_files(make_records, tmp_path, monkeypatch):
    # Ten figures of tasks take their time, and are not what this is about.
    monkeypatch.setattr(gallery, "_of_task", lambda results, task: None)
    records = make_records(tasks=[f"t{i}" for i in range(10)], rates=(0.1,))
    report.write(records, tmp_path)
    with open(tmp_path / "comparisons.csv", newline="") as file:
        at = list(csv.DictReader(file))
    with open(tmp_path / "curves.csv", newline="") as file:
        curves = list(csv.DictReader(file))
    methods = list(dict.fromkeys(row["method"] for row in at))
    assert methods == ["filters@0.5", "filters@0.75", "scratch"]
    assert [row["method"] for row in curves] == ["dense", *methods]
    assert {row["baseline"] for row in (*at, *curves)} == {"dense"}
    scores = {}
    for row in report.results(records):
        scores.setdefault((row["method"], row["budget"]), []).append(row["dev_test"])
    for row in at:
        mean = np.mean(scores[row["method"], row["budget"]])
        gain = mean - np.mean(scores["dense", row["budget"]])
        assert float(row["difference"]) == pytest.approx(gain)
        assert float(row["difference_low"]) <= gain <= float(row["difference_high"])
        assert int(row["wins"]) + int(row["ties"]) + int(row["losses"]) == 10
        assert 0 <= float(row["p_holm"]) <= 1
        assert float(row["compute_ratio"]) > 0
    assert (tmp_path / "figures" / "average_ranks.png").exists()
    report.write(records, tmp_path, baseline="scratch")
    with open(tmp_path / "comparisons.csv", newline="") as file:
        assert {row["baseline"] for row in csv.DictReader(file)} == {"scratch"}
    with pytest.raises(UserError, match="baseline 'sparse': expected one of dense, filt"):
        report.write(records, tmp_path, baseline="sparse")
