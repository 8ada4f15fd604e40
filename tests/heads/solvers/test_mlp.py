"""The perceptron beside the ridge regression that it starts from."""

import numpy as np
import pytest

from ctl_jax.heads import Shard, shards
from ctl_jax.heads.shards import Features
from ctl_jax.heads.solver import Problem
from ctl_jax.heads.solvers import mlp, ridge

CLASSES = 3


def _problem(*, with_dev: bool = True, multi_label: bool = False) -> Problem:
    """Classes by the distance from a point, which no linear head tells apart."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((400, 8)).astype(np.float32)
    features[:, :2] *= 2
    labels = np.digitize(np.linalg.norm(features[:, :2], axis=1), [1.5, 3]).astype(np.int32)
    if multi_label:
        labels = np.eye(CLASSES, dtype=np.uint8)[labels]
    train, dev = (Shard(features[part], labels[part]) for part in (slice(200), slice(200, 400)))
    moments = shards.moments([train])
    of_dev = (Features([dev], moments), dev.labels) if with_dev else None
    return Problem(Features([train], moments), train.labels, CLASSES, seed=0, dev=of_dev)


def _logits(head: dict, rows: np.ndarray) -> np.ndarray:
    units = np.maximum(rows @ head["hidden"]["kernel"] + head["hidden"]["bias"], 0)
    return units @ head["kernel"] + head["bias"]


def test_starts_as_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "_EPOCHS", 0)
    problem = _problem()
    fitted, linear = mlp.fit(problem), ridge.fit(problem)
    rows = problem.features.matrix()
    expected = rows @ linear.head["kernel"] + linear.head["bias"]
    # Both are calibrated by dev, but by searches that begin at different scales.
    factor = fitted.notes["temperature"]
    np.testing.assert_allclose(_logits(fitted.head, rows), factor * expected, rtol=0.01, atol=1e-3)
    assert fitted.notes["epochs"] == 0


@pytest.mark.parametrize("multi_label", [False, True], ids=["single", "multi"])
def test_finds_what_no_linear_head_does(multi_label: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "_EPOCHS", 60)
    problem = _problem(multi_label=multi_label)
    fitted, linear = mlp.fit(problem), ridge.fit(problem)
    assert fitted.notes["epochs"] > 0
    assert fitted.notes["cross_entropy"] < 0.95 * linear.notes["cross_entropy"]


def test_a_fifth_of_the_images_choose_where_there_is_no_dev(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mlp, "_EPOCHS", 60)
    problem = _problem(with_dev=False)
    fitted = mlp.fit(problem)
    assert fitted.notes["epochs"] > 0
    accuracy = np.mean(_logits(fitted.head, problem.features.matrix()).argmax(1) == problem.labels)
    assert accuracy > 0.6
