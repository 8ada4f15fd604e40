"""Statistics of BatchNorm that are estimated again: plain averages, whatever the batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.finetune import recalibrate


class OneLayer(nn.Module):
    """A normalisation that stands right after the images: its statistics are known."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True, name="bn")(x)
        return nn.Dense(2, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 60])
def test_they_are_those_of_all_pixels_together(split, batch_size):
    """Of a first layer exactly, whatever the batches; Linen's own BatchNorm as well as ours."""
    images, _ = split
    variables = OneLayer().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    found = recalibrate.statistics(OneLayer(), "nevis", variables, images, batch_size=batch_size)
    pixels = np.asarray(models.PREPROCESS["nevis"](images), np.float64).reshape(-1, 3)
    expected = {"bn": {"mean": pixels.mean(0), "var": pixels.var(0)}}
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, variables["batch_stats"])


@pytest.mark.parametrize(("examples", "batch_size"), [(8, 8), (12, 4), (13, 5)])
def test_they_are_averages_over_batches(module, variables, split, examples, batch_size):
    images = split[0][:examples]
    found = recalibrate.statistics(module, "nevis", variables, images, batch_size=batch_size)

    def of(batch):
        x = models.PREPROCESS["nevis"](batch)
        return models.apply(module, variables, x, train=True)[1]

    batches = np.array_split(images, -(-examples // batch_size))
    each = [of(batch) for batch in batches]
    shares = np.array([len(batch) for batch in batches]) / examples

    def averaged(mean, var):
        means = np.stack([at(stats, mean) for stats in each])
        squares = np.stack([at(stats, var) for stats in each]) + means**2
        mean = np.tensordot(shares, means, 1)
        return mean, np.tensordot(shares, squares, 1) - mean**2

    def at(tree, path):
        for key in path:
            tree = tree[key.key]
        return np.asarray(tree, np.float64)

    for path, _ in jax.tree_util.tree_leaves_with_path(found):
        if path[-1].key == "mean":
            var = (*path[:-1], jax.tree_util.DictKey("var"))
            expected = averaged(path, var)
            np.testing.assert_allclose(at(found, path), expected[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(at(found, var), expected[1], rtol=1e-4, atol=1e-6)


def test_of_a_batch_they_are_what_training_normalises_by(module, variables, split):
    """So the network computes in evaluation what it computes in training."""
    images = split[0][:16]
    found = recalibrate.statistics(module, "nevis", variables, images)
    x = models.PREPROCESS["nevis"](images)
    settled = {**variables, "batch_stats": found}
    chex.assert_trees_all_close(
        models.features(module, settled, x),
        _features_in_training(module, variables, x),
        rtol=1e-4,
        atol=1e-5,
    )


def _features_in_training(module, variables, x):
    """Read from the logits: the head passes each feature on."""
    width = variables["params"]["head"]["kernel"].shape[0]
    head = {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}
    variables = {**variables, "params": {**variables["params"], "head": head}}
    return models.apply(module, variables, x, train=True)[0]


def test_a_network_without_batchnorm_has_none(module, variables, split):
    bare = {"params": variables["params"], "batch_stats": {}}
    assert recalibrate.statistics(module, "nevis", bare, split[0]) == {}


def test_no_images(module, variables):
    with pytest.raises(UserError, match="there are 0"):
        recalibrate.statistics(module, "nevis", variables, np.zeros((0, 8, 8, 3), np.uint8))
