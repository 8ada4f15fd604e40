"""Kernel ridge regression beside scikit-learn's, and with fewer landmarks than images."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from ctl_jax import heads, models
from ctl_jax.heads import Shard, shards
from ctl_jax.heads.shards import Features
from ctl_jax.heads.solver import Problem
from ctl_jax.heads.solvers import kernel

CLASSES = 3


def _circles(count: int, seed: int = 0) -> Shard:
    """Classes by the distance from a point, which no linear head tells apart; features of ReLUs."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, 2))
    labels = np.digitize(np.linalg.norm(features, axis=1), [0.8, 1.5]).astype(np.int32)
    constant = np.full((count, 1), 3.0)
    return Shard(np.hstack([features * [1, 5] + 10, constant]).astype(np.float32), labels)


def _logits(fitted: heads.Fitted, features: np.ndarray) -> np.ndarray:
    return np.asarray(models.apply_head(fitted.head, features))


@pytest.mark.parametrize("with_dev", [False, True])
def test_is_scikit_learns(with_dev: bool) -> None:
    train, other = _circles(80), _circles(50, seed=1)
    moments = shards.moments([train])
    features, of_other = (Features([shard], moments) for shard in (train, other))
    dev = (of_other, other.labels) if with_dev else None
    fitted = kernel.fit(Problem(features, train.labels, CLASSES, seed=0, dev=dev))
    scaled, other_scaled = features.matrix(np.float64), of_other.matrix(np.float64)
    targets = np.eye(CLASSES)[train.labels]

    # An intercept that is not penalised: both sides of the kernel matrix are centred.
    rate = 1 / fitted.notes["width"]
    reference = KernelRidge(alpha=fitted.notes["coefficient"], kernel="precomputed")
    values = np.exp(-rate * np.square(scaled[:, None] - scaled).sum(-1))
    means = values.mean(0)
    reference.fit(values - means - means[:, None] + means.mean(), targets - targets.mean(0))
    crossed = np.exp(-rate * np.square(other_scaled[:, None] - scaled).sum(-1))
    crossed += means.mean() - means - crossed.mean(1, keepdims=True)
    theirs = fitted.notes["temperature"] * (reference.predict(crossed) + targets.mean(0))
    np.testing.assert_allclose(_logits(fitted, other_scaled), theirs, atol=0.02)
    assert np.mean(theirs.argmax(1) == other.labels) > 0.8


def test_landmarks_do_nearly_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    train, other = _circles(300), _circles(200, seed=1)
    monkeypatch.setattr(kernel, "LANDMARKS", 40)
    fitted = heads.fit("kernel", [train], CLASSES)
    assert fitted.head["kernel"].shape == (40, CLASSES)
    assert np.mean(_logits(fitted, other.features).argmax(1) == other.labels) > 0.8
    assert fitted.flops <= heads.flops("kernel", 300, 3, CLASSES)


def test_as_many_landmarks_as_images_are_exact() -> None:
    """The two ways to leave an image out agree, too, and so the coefficient is the same."""
    shard = _circles(60)
    moments = shards.moments([shard])
    problem = Problem(Features([shard], moments), shard.labels, CLASSES, seed=0)
    landmarks = problem.features.rows(np.arange(60), np.float64)
    basis, means, exact, _ = kernel._exact(problem, landmarks, np.arange(60))
    other_means, other = kernel._nystroem(problem, basis)
    np.testing.assert_allclose(other_means, means, atol=1e-6)
    assert other.coefficient == pytest.approx(exact.coefficient, rel=1e-4)
    assert other.entropy == pytest.approx(exact.entropy, rel=1e-3)
    values = basis(landmarks) - means
    np.testing.assert_allclose(values @ other.weights, values @ exact.weights, atol=1e-3)


def test_many_images_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The landmarks' kernel matrix has no inverse but for what its numbers were rounded by."""
    monkeypatch.setattr(kernel, "LANDMARKS", 400)
    monkeypatch.setattr(kernel.least_squares, "precision", lambda flops: np.float32)
    train, other = _circles(1500), _circles(500, seed=1)
    fitted = heads.fit("kernel", [train], CLASSES, dev=other)
    assert np.mean(_logits(fitted, other.features).argmax(1) == other.labels) > 0.9
