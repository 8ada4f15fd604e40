"""k nearest neighbours, as scikit-learn has them."""

import hypothesis
import numpy as np
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from ctl_jax import finetune
from ctl_jax.heads import neighbours


@hypothesis.given(st.integers(0, 1000), st.integers(5, 60), st.integers(1, 30), st.integers(2, 9))
def test_votes_are_those_of_scikit_learn(seed, examples, queries, classes):
    rng = np.random.default_rng(seed)
    # Far from zero, where float32 would not tell near ones apart.
    train, wanted = (1e3 + rng.standard_normal((n, 7)) for n in (examples, queries))
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, examples)])[:examples]
    found = neighbours.votes(
        train.astype(np.float32), labels, wanted.astype(np.float32), num_classes=classes
    )
    other = KNeighborsClassifier().fit(train.astype(np.float32), labels)
    expected = np.zeros_like(found)
    expected[:, other.classes_] = other.predict_proba(wanted.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    truth = rng.integers(0, classes, queries)
    score = finetune.score(found, truth, num_classes=classes)
    assert score.value == np.mean(other.predict(wanted.astype(np.float32)) == truth)


def test_votes_of_several_labels_an_image(monkeypatch):
    rng = np.random.default_rng(0)
    train, wanted = rng.standard_normal((40, 5)), rng.standard_normal((11, 5))
    labels = rng.integers(0, 2, (40, 3))
    expected = KNeighborsClassifier().fit(train, labels).predict_proba(wanted)
    found = neighbours.votes(train, labels, wanted, num_classes=3)
    np.testing.assert_allclose(found, np.stack(expected)[:, :, 1].T, atol=1e-12)
    # A few rows of distances at a time.
    monkeypatch.setattr(neighbours, "_AT_ONCE", 100)
    np.testing.assert_array_equal(neighbours.votes(train, labels, wanted, 3), found)


def test_of_equally_near_ones_the_first_and_of_few_all():
    train, labels = np.zeros((7, 2)), np.array([0, 0, 0, 1, 1, 1, 1])
    found = neighbours.votes(train, labels, np.ones((1, 2)), num_classes=2)
    np.testing.assert_allclose(found, [[0.6, 0.4]])
    found = neighbours.votes(train[2:4], labels[2:4], np.ones((1, 2)), num_classes=3)
    np.testing.assert_allclose(found, [[0.5, 0.5, 0]])


def test_flops_are_those_of_the_product():
    assert neighbours.flops(10, 3, 7) == 2 * 10 * 3 * 7
