"""Mean average precision against scikit-learn's."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import average_precision_score

from ctl_jax.finetune.metrics import (
    accuracy_interval,
    average_precision,
    mean_average_precision,
    mean_average_precision_interval,
)


def _sklearn(labels, scores):
    with warnings.catch_warnings():
        # It warns of a class without positives, and counts it as 0.
        warnings.simplefilter("ignore", UserWarning)
        return average_precision_score(labels, scores)


@given(data=st.data(), examples=st.integers(2, 40), classes=st.integers(2, 6))
def test_equals_scikit_learn_with_ties_and_classes_without_positives(data, examples, classes):
    # Few different scores, so that there are ties; rare positives, so that some classes have none.
    few = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 3.0])
    any_float = st.floats(-1e6, 1e6, width=32)
    scores = data.draw(hnp.arrays(np.float32, (examples, classes), elements=few | any_float))
    rare = st.sampled_from([0, 0, 0, 1])
    labels = data.draw(hnp.arrays(np.uint8, (examples, classes), elements=rare))
    expected = _sklearn(labels, scores)
    assert mean_average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_equals_scikit_learn_on_many_examples():
    rng = np.random.default_rng(0)
    labels = (rng.random((5000, 30)) < rng.random(30)).astype(np.uint8)
    scores = (rng.normal(size=(5000, 30)) + labels).astype(np.float32)
    scores[:, ::2] = np.round(scores[:, ::2], 1)
    expected = average_precision_score(labels, scores, average=None)
    np.testing.assert_allclose(average_precision(labels, scores), expected, rtol=1e-12)


def test_by_hand():
    # Ranks of the positives: 1 and 3 of four; then all tied; then no positive.
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], np.uint8)
    scores = np.array([[4, 1, 1], [3, 1, 2], [2, 1, 3], [1, 1, 4]], np.float32)
    np.testing.assert_allclose(average_precision(labels, scores), [(1 + 2 / 3) / 2, 1 / 4, 0])


def test_what_is_not_a_number_ranks_last():
    labels = np.array([[1], [0], [1]], np.uint8)
    scores = np.array([[np.nan], [1.0], [2.0]], np.float32)
    np.testing.assert_allclose(average_precision(labels, scores), [(1 + 2 / 3) / 2])


@given(st.integers(1, 10_000), st.data())
def test_wilsons_interval(examples, data):
    correct = data.draw(st.integers(0, examples))
    expected = stats.binomtest(correct, examples).proportion_ci(0.95, method="wilson")
    found = accuracy_interval(correct, examples)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found[0] <= correct / examples <= found[1] <= 1


def test_the_interval_of_mean_average_precision():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (400, 3))
    scores = labels + rng.normal(0, 1, labels.shape)
    value = mean_average_precision(labels, scores)
    low, high = mean_average_precision_interval(labels, scores)
    assert low < value < high
    # About what other samples of the same distribution give.
    others = []
    for _ in range(100):
        labels = rng.integers(0, 2, (400, 3))
        others.append(mean_average_precision(labels, labels + rng.normal(0, 1, labels.shape)))
    assert high - low == pytest.approx(2 * 1.96 * np.std(others), rel=0.3)
    assert mean_average_precision_interval(labels, labels + 0.0) == (1, 1)
