"""Means over tasks and the improvement over dense, against numbers worked out by hand."""

import statistics

import pytest

from ctl_jax.report.curves import means, task_curves, values

BUDGET = "2 epochs"


def _rows(table):
    """Rows from {task: {method: [dev_test by seed]}}."""
    return [
        {"task": t, "method": m, "budget": BUDGET, "seed": seed, "dev_test": number}
        for t, by_method in table.items()
        for m, numbers in by_method.items()
        for seed, number in enumerate(numbers)
    ]


def _mean(table, methods=("dense", "small")):
    return means(values(_rows(table)), list(table), methods, [BUDGET])[BUDGET]


def test_mean_and_improvement_by_hand():
    mean = _mean(
        {
            "a": {"dense": [0.4, 0.6], "small": [0.6, 0.8]},
            "b": {"dense": [0.3, 0.3], "small": [0.2, 0.2]},
        }
    )
    assert mean.tasks == ("a", "b")
    assert mean.points["dense"].mean == pytest.approx(0.4)
    assert mean.points["small"].mean == pytest.approx(0.45)
    assert mean.relative["small"].mean == pytest.approx(0.05 / 0.4)
    # By seed: dense .35 and .45, small .4 and .5.
    assert mean.points["dense"].std == pytest.approx(statistics.stdev([0.35, 0.45]))
    assert mean.relative["small"].std == pytest.approx(
        statistics.stdev([0.4 / 0.35 - 1, 0.5 / 0.45 - 1])
    )
    assert mean.better == {"small": 1}
    assert "dense" not in mean.relative


def test_only_tasks_that_every_method_has_are_compared():
    mean = _mean({"a": {"dense": [0.5], "small": [0.4]}, "b": {"dense": [0.9]}})
    assert mean.tasks == ("a",)
    assert mean.points["dense"].mean == 0.5
    assert mean.relative["small"].mean == pytest.approx(-0.2)
    assert mean.points["dense"].std is None


def test_a_result_without_a_number_is_no_result():
    mean = _mean({"a": {"dense": [0.5], "small": [None]}, "b": {"dense": [0.5], "small": [0.6]}})
    assert mean.tasks == ("b",)


def test_no_common_task_gives_no_mean():
    mean = _mean({"a": {"dense": [0.5]}, "b": {"small": [0.6]}})
    assert (mean.tasks, mean.points, mean.relative) == ((), {}, {})


def test_without_dense_nothing_is_relative():
    mean = _mean({"a": {"small": [0.5]}}, methods=("small",))
    assert mean.points["small"].mean == 0.5
    assert mean.relative == {}


def test_dense_at_zero_gives_no_ratio():
    assert _mean({"a": {"dense": [0.0], "small": [0.5]}}).relative == {}


def test_spread_needs_seeds_that_all_tasks_have():
    mean = _mean({"a": {"dense": [0.4, 0.6]}, "b": {"dense": [0.2]}}, methods=("dense",))
    assert mean.points["dense"].mean == pytest.approx(0.35)
    assert (mean.points["dense"].std, mean.points["dense"].seeds) == (None, 1)


def test_curve_of_a_task():
    curve = task_curves(values(_rows({"a": {"dense": [0.4, 0.6]}})), "a")["dense"][BUDGET]
    assert (curve.mean, curve.seeds) == (pytest.approx(0.5), 2)
    assert curve.std == pytest.approx(statistics.stdev([0.4, 0.6]))
    assert task_curves({}, "a") == {}
