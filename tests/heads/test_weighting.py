"""Weights of features, beside features that are standardised alone."""

import numpy as np

from ctl_jax.heads import Shard, _weighting, shards
from ctl_jax.heads.shards import Features
from ctl_jax.heads.solver import Problem
from ctl_jax.heads.solvers import ridge


def _problem(seed: int) -> tuple[Problem, shards.Moments]:
    """Few images of many features, of which the last ten vary most and tell the classes apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 40).astype(np.int32)
    features = 0.1 * rng.standard_normal((40, 200))
    features[:, -10:] = rng.standard_normal((40, 10)) + 1.5 * labels[:, None] + 20
    found = [Shard(features.astype(np.float32), labels)]
    moments = shards.moments(found)
    return Problem(Features(found, moments), labels, 2, seed=0), moments


def test_weights_do_no_worse_than_none() -> None:
    better = []
    for seed in range(5):
        problem, moments = _problem(seed)
        weighted, _, _ = _weighting.choose(problem, moments)
        with_weights, without = (
            ridge.fit(each).notes["cross_entropy"] for each in (problem.scaled(weighted), problem)
        )
        assert with_weights <= without
        better.append(with_weights < 0.8 * without)
    assert all(better)


def test_weights_have_a_mean_square_of_one() -> None:
    problem, moments = _problem(0)
    weighted, powers, _ = _weighting.choose(problem, moments)
    assert powers != (0, 0)
    rows = problem.scaled(weighted).features.matrix()
    np.testing.assert_allclose(np.mean(np.square(rows)), 1, rtol=1e-4)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-4)
