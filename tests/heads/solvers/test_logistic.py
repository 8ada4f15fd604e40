"""Logistic regression beside scikit-learn's."""

import chex
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ctl_jax.heads import Shard, shards
from ctl_jax.heads.shards import Features
from ctl_jax.heads.solver import Problem
from ctl_jax.heads.solvers import logistic
from ctl_jax.heads.solvers.logistic import Solution, minimise

CLASSES = 4


def _data(count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features, and labels."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((count, width))
    scores = features @ rng.standard_normal((width, CLASSES)) + rng.standard_normal(
        (count, CLASSES)
    )
    return (features - features.mean(0)) / features.std(0), scores.argmax(1).astype(np.int32)


def _zero(width: int, classes: int) -> Solution:
    return Solution(np.zeros((width, classes)), np.zeros(classes), 0)


@pytest.mark.parametrize("coefficient", [0.3, 30.0])
def test_softmax_is_scikit_learns(coefficient: float) -> None:
    features, labels = _data(150, 12)
    reference = LogisticRegression(C=1 / coefficient, tol=1e-8, max_iter=1000).fit(features, labels)
    blocks = [features[:70], features[70:]]
    found = minimise(
        lambda: blocks, labels, _zero(12, CLASSES), coefficient, tolerance=1e-8, evaluations=1000
    )
    np.testing.assert_allclose(found.kernel, reference.coef_.T, atol=1e-4)
    logits = features @ found.kernel + found.bias
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(chances, reference.predict_proba(features), atol=1e-4)


def test_sigmoids_are_scikit_learns_of_each_class() -> None:
    features, classes = _data(150, 12)
    labels = np.eye(CLASSES, dtype=np.uint8)[classes]
    found = minimise(
        lambda: [features], labels, _zero(12, CLASSES), 2.0, tolerance=1e-8, evaluations=1000
    )
    for index, mine in enumerate(labels.T):
        reference = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(features, mine)
        np.testing.assert_allclose(found.kernel[:, index], reference.coef_[0], atol=1e-4)
        assert found.bias[index] == pytest.approx(reference.intercept_[0], abs=1e-4)


def test_fewer_images_than_features_are_the_same_problem() -> None:
    """Dev chooses, so that all training images are fitted."""
    features, labels = _data(60, 80)
    train, dev = (
        Shard(features[rows].astype(np.float32), labels[rows])
        for rows in np.split(np.arange(60), [40])
    )
    moments = shards.moments([train])
    standardised, of_dev = (Features([shard], moments) for shard in (train, dev))
    fitted = logistic.fit(
        Problem(standardised, train.labels, CLASSES, seed=0, dev=(of_dev, dev.labels))
    )
    scaled = standardised.matrix()
    reference = LogisticRegression(C=1 / fitted.notes["coefficient"], tol=1e-8, max_iter=1000)
    theirs = reference.fit(scaled, train.labels).decision_function(scaled)
    ours = (scaled @ fitted.head["kernel"] + fitted.head["bias"]) / fitted.notes["temperature"]
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs, atol=0.05)


def test_evaluations_end_at_the_number_given() -> None:
    features, labels = _data(150, 12)
    found = minimise(
        lambda: [features], labels, _zero(12, CLASSES), 1e-3, tolerance=0, evaluations=5
    )
    assert found.evaluations == 5
    chex.assert_tree_all_finite(found.kernel)
