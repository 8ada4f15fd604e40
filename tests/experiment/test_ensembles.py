"""Ensembles of two networks: the weight that dev chooses, and a network that gives the mean."""

import types

import chex
import jax
import numpy as np
import pytest

from ctl_jax import data, models
from ctl_jax.experiment import ensembles

LABELS = np.arange(12) % 3


@pytest.fixture(scope="module")
def module():
    return models.create("resnet20", 3, stages=(1, 1), width=2)


@pytest.fixture(scope="module")
def networks(module):
    """Two networks of one architecture, the second with hidden units."""
    rng = np.random.default_rng(0)
    one, two = (models.init(module, jax.random.key(seed), 8) for seed in (0, 1))
    rows = one["params"]["head"]["kernel"].shape[0]

    def array(*shape):
        return rng.normal(size=shape).astype(np.float32)

    hidden = {"kernel": array(rows, 5), "bias": array(5)}
    head = {"kernel": array(5, 3), "bias": array(3), "hidden": hidden}
    return (
        models.set_head(one, {"kernel": array(rows, 3), "bias": array(3)}),
        models.set_head(two, head),
    )


@pytest.fixture
def logits(module):
    rng = np.random.default_rng(1)
    splits = {
        name: data.Split(rng.integers(0, 255, (12, 8, 8, 3)).astype(np.uint8), LABELS)
        for name in ("dev", "dev_test")
    }
    task = types.SimpleNamespace(splits=splits, num_classes=3)
    return ensembles.Logits(module, "nevis", "float32", task)


def test_the_network_gives_the_mean_that_is_best_on_dev(module, networks, logits):
    one, two = networks
    found = ensembles.averaged(one, two, logits)
    scores = {}
    for tenth in range(11):
        mean = (1 - tenth / 10) * logits("dev", one) + tenth / 10 * logits("dev", two)
        scores[tenth / 10] = logits.score_of("dev", mean).value
    assert found.dev.value == max(scores.values()) == scores[found.weight]
    images = logits.task.splits["dev_test"].images
    expected = (1 - found.weight) * logits("dev_test", one) + found.weight * logits("dev_test", two)
    network = models.apply(module, found.variables, models.PREPROCESS["nevis"](images))
    chex.assert_trees_all_close(np.asarray(network), expected, atol=1e-4)
    assert found.dev_test == logits.score_of("dev_test", expected)


@pytest.mark.parametrize(("best", "weight"), [(0, 0.0), (1, 1.0), (None, 0.5)])
def test_of_one_that_is_right_and_one_that_is_surely_wrong(networks, logits, best, weight):
    """The right one alone is left; of two that are equally good each is a half."""
    right, wrong = np.eye(3)[LABELS], -100 * np.eye(3)[LABELS]
    given = [wrong, wrong]
    if best is not None:
        given[best] = right
    for variables, known in zip(networks, given, strict=True):
        logits._known += [(name, variables, known) for name in ("dev", "dev_test")]
    found = ensembles.averaged(*networks, logits)
    assert found.weight == weight
    if best is not None:
        assert found.variables is networks[best]
        assert found.dev.value == found.dev_test.value == 1
    else:
        assert "ensemble" in found.variables["params"]
