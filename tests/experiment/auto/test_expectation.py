"""What is expected of recipes: beliefs are Gaussian conditionals, priors are learnt from tasks."""

import functools
import importlib.resources
import itertools
import json
import math

import chex
import numpy as np
import pytest

from ctl_jax.experiment.auto import expectation
from ctl_jax.experiment.auto.expectation import (
    ACCURACY,
    ENTROPY,
    About,
    Prior,
    Recipe,
    Seen,
)

ABOUT = About(20, 0.5)
SMALL, LARGE, CUT = Recipe(0.5, 0.25), Recipe(2.0, 1.0), Recipe(1.0, 1.0, 0.5)
KERNEL = LARGE._replace(kernel=True)
SEEN = (
    Seen(SMALL, 40, ENTROPY, 0.3),
    Seen(SMALL, 80, ENTROPY, 0.5),
    Seen(SMALL, 80, ACCURACY, 0.2),
    Seen(CUT, 300, ENTROPY, 0.9),
    Seen(KERNEL, 1000, ACCURACY, 1.5),
)


@functools.cache
def _prior() -> Prior:
    rng = np.random.default_rng(0)
    own, common = (len(each) for each in _numbers(SEEN[0]))
    root = 0.3 * rng.standard_normal((own, own))
    return Prior(
        mean=rng.standard_normal(own),
        covariance=root @ root.T,
        common=0.1 * rng.standard_normal(common),
        recipe=np.array([0.03, 0.02]),
        noise=np.array([0.05, 0.04]),
        sampling=np.array([2.0, 1.0]),
        tasks=("a", "b"),
    )


def _numbers(seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    rows = expectation._rows([seen], ABOUT)
    return rows.own[0], rows.common[0]


def test_what_is_believed_after_scores_is_the_conditional_gaussian():
    prior = _prior()
    belief = prior.after(SEEN, ABOUT)
    # Once more by adding precisions, with what the scores of a recipe share as coefficients, too.
    groups = sorted({(each.recipe, each.score) for each in SEEN})
    width = len(prior.mean)
    precision = np.zeros((width + len(groups),) * 2)
    precision[:width, :width] = np.linalg.inv(prior.covariance)
    for n, (_, score) in enumerate(groups, start=width):
        precision[n, n] = 1 / prior.recipe[score]
    information = precision @ np.concatenate([prior.mean, np.zeros(len(groups))])
    for each in SEEN:
        own, common = _numbers(each)
        group = [float(name == (each.recipe, each.score)) for name in groups]
        row = np.concatenate([own, group])
        variance = prior.noise[each.score] + prior.sampling[each.score] / each.images
        precision += np.outer(row, row) / variance
        information += row * (each.value - common @ prior.common) / variance
    covariance = np.linalg.inv(precision)
    chex.assert_trees_all_close(belief.mean, (covariance @ information)[:width], rtol=1e-5)
    chex.assert_trees_all_close(belief.covariance, covariance[:width, :width], atol=1e-6)


def test_scores_may_be_seen_in_any_order():
    found = [_prior().after(seen, ABOUT) for seen in itertools.permutations(SEEN, len(SEEN))]
    for belief in found[1:]:
        chex.assert_trees_all_close(belief.mean, found[0].mean, atol=1e-9)
        chex.assert_trees_all_close(belief.covariance, found[0].covariance, atol=1e-9)
    assert _prior().after((), ABOUT) is _prior()


def test_what_is_seen_of_one_recipe_tells_of_others():
    prior = expectation.learn(_tasks(8))
    before = prior.expect(LARGE, 500, ABOUT)
    value = 3 + _scores(_mean(), SMALL, 100)[ENTROPY]
    after = prior.after([Seen(SMALL, 100, ENTROPY, value)], ABOUT).expect(LARGE, 500, ABOUT)
    assert after.logit > before.logit
    assert after.deviation < before.deviation


@pytest.mark.parametrize("seen", [(), SEEN], ids=["before", "after"])
def test_comparisons_are_differences_of_expectations(seen):
    belief = _prior().after(seen, ABOUT)
    first, second = (belief.expect(each, 100, ABOUT) for each in (CUT, LARGE))
    apart = belief.compare(CUT, 100, LARGE, 100, ABOUT)
    back = belief.compare(LARGE, 100, CUT, 100, ABOUT)
    assert apart.logit == pytest.approx(first.logit - second.logit)
    assert back == pytest.approx((-apart.logit, apart.deviation))
    # What two recipes have in common is no difference of theirs, but each differs by itself, too.
    shared = belief.recipe[ACCURACY]
    assert apart.deviation <= first.deviation + second.deviation + math.sqrt(2 * shared)
    assert apart.deviation >= math.sqrt(2 * shared)
    assert belief.compare(CUT, 100, CUT, 100, ABOUT) == pytest.approx((0, 0), abs=1e-6)


def test_accuracy_is_nearer_to_a_half_where_less_is_known():
    assert expectation.Expected(0.0, 5.0).accuracy == 0.5
    assert expectation.Expected(2.0, 0.0).accuracy == pytest.approx(1 / (1 + math.exp(-2)))
    assert 0.5 < expectation.Expected(2.0, 2.0).accuracy < expectation.Expected(2.0, 1.0).accuracy


def test_scores_are_finite_also_of_heads_that_are_always_right():
    assert math.isfinite(expectation.entropy(1.0, 0.0))
    assert expectation.entropy(2.0, 1.0) == pytest.approx(math.log(2))
    assert expectation.logit(1.0, 100) == pytest.approx(math.log(201))
    assert expectation.logit(0.0, 100) == pytest.approx(-math.log(201))
    assert expectation.logit(0.5, 100) == pytest.approx(0)


def test_squares_are_straight_far_out():
    def curvature(middle: float) -> np.ndarray:
        found = [
            expectation.describe(Recipe(2.0 ** (middle + apart), 1.0), 200, ABOUT)
            for apart in (-0.1, 0, 0.1)
        ]
        return np.abs(np.diff(np.array(found), n=2, axis=0)).max()

    assert curvature(3) == pytest.approx(0, abs=1e-9)
    assert curvature(-3) == pytest.approx(0, abs=1e-9)
    # Twice the square of a tenth.
    assert curvature(0.5) == pytest.approx(0.02)


def _mean() -> np.ndarray:
    """Coefficients of two scores that are worse of small images, of few, and of many classes."""
    width = len(expectation.describe(SMALL, 100, ABOUT))
    found = np.zeros((2, width))
    numbers = expectation.describe(Recipe(2.0, 1.0), 1600, About(10, 1))
    # The first is constant; size and images are those that are 1 here besides.
    places = [n for n in range(width) if numbers[n] == 1][:3]
    found[:, places] = [[1.0, 0.5, 1.0], [0.5, 0.2, 0.4]]
    return found.ravel()


def _scores(coefficients: np.ndarray, recipe: Recipe, images: int) -> list[float]:
    numbers = np.array(expectation.describe(recipe, images, ABOUT))
    return [float(numbers @ each) for each in coefficients.reshape(2, -1)]


def _tasks(count: int) -> dict[str, tuple[About, list[Seen]]]:
    rng, found = np.random.default_rng(1), {}
    for number in range(count):
        coefficients = _mean().copy()
        # A task is easy or hard by both scores.
        coefficients[[0, len(coefficients) // 2]] += rng.standard_normal()
        found[f"task {number}"] = (
            ABOUT,
            [
                Seen(recipe, images, score, value + 0.05 * rng.standard_normal())
                for recipe in (SMALL, LARGE, CUT, KERNEL, Recipe(1.0, 0.5), Recipe(0.7, 1.0))
                for images in (30, 100, 300, 1000)
                for score, value in enumerate(_scores(coefficients, recipe, images))
            ],
        )
    return found


def test_a_prior_is_learnt_from_tasks():
    tasks = _tasks(30)
    prior = expectation.learn(tasks)
    assert prior.tasks == tuple(tasks)
    hardness = []
    for recipe, images in [(LARGE, 300), (SMALL, 100), (CUT, 1000), (Recipe(1.4, 1.0), 500)]:
        found = prior.expect(recipe, images, ABOUT)
        # The mean of thirty tasks.
        assert found.logit == pytest.approx(_scores(_mean(), recipe, images)[ACCURACY], abs=0.4)
        hardness.append(found.deviation)
        # What tasks have in common is known much better.
        apart = prior.compare(recipe, images, CUT, images, ABOUT)
        expected = _scores(_mean(), recipe, images), _scores(_mean(), CUT, images)
        assert apart.logit == pytest.approx(expected[0][ACCURACY] - expected[1][ACCURACY], abs=0.2)
    # That of tasks' hardness, 1.
    assert np.mean(hardness) == pytest.approx(1, abs=0.3)
    assert prior.noise.max() < 0.01


def test_a_prior_is_read_as_it_was_written():
    prior = expectation.learn(_tasks(3))
    read = expectation.read(json.dumps(prior.to_json()))
    assert read.tasks == prior.tasks
    for name in ("mean", "covariance", "common", "recipe", "noise", "sampling"):
        chex.assert_trees_all_close(getattr(read, name), getattr(prior, name), rtol=1e-5)


def test_the_prior_that_comes_with_the_package_is_small_and_fits_what_is_described():
    folder = importlib.resources.files("ctl_jax.experiment.auto")
    text = folder.joinpath("prior.json").read_text(encoding="utf-8")
    assert len(text) < 60_000
    prior = expectation.read(text)
    own, common = _numbers(SEEN[0])
    chex.assert_shape(prior.mean, own.shape)
    chex.assert_shape(prior.covariance, (len(own), len(own)))
    chex.assert_shape(prior.common, common.shape)
    assert np.linalg.eigvalsh(prior.covariance).min() > -1e-6
    assert len(prior.tasks) >= 20
    # More images and larger ones are better, all else being equal.
    assert prior.compare(LARGE, 1000, LARGE, 100, ABOUT).logit > 0
