"""Pruned parameters run as they are, and compute what the full network computes without them."""

import functools

import chex
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.models import _elastic


def cut(tree, path, axis, keep):
    """The tree with `keep` of one axis of one array."""
    key, *rest = path
    new = cut(tree[key], rest, axis, keep) if rest else jnp.take(tree[key], keep, axis)
    return {**tree, key: new}


def cut_channels(variables, block, index, keep):
    """The inner channels after conv{index} of a block: writer, BatchNorm and reader."""
    paths = [
        (("params", block, f"conv{index}", "kernel"), 3),
        (("params", block, f"conv{index}", "bias"), 0),
        (("params", block, f"conv{index + 1}", "kernel"), 2),
    ]
    paths += [(("params", block, f"bn{index}", name), 0) for name in ("scale", "bias")]
    paths += [(("batch_stats", block, f"bn{index}", name), 0) for name in ("mean", "var")]
    for path, axis in paths:
        variables = cut(variables, path, axis, keep)
    return variables


def mask_reader(variables, block, index, keep):
    """The full network whose reader of those channels sees only the kept ones."""
    layer = variables["params"][block][f"conv{index + 1}"]
    mask = jnp.zeros((layer["kernel"].shape[2], 1)).at[jnp.asarray(keep)].set(1)
    masked = {**layer, "kernel": layer["kernel"] * mask[None, None]}
    block_params = {**variables["params"][block], f"conv{index + 1}": masked}
    return {**variables, "params": {**variables["params"], block: block_params}}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, 24, 24, 3)).astype(np.float32)


@pytest.mark.parametrize(("keep", "train"), [([0, 2, 3], False), ([1], False), ([0, 5], True)])
def test_pruned_equals_masked(small, images, keep, train):
    module, variables = small
    pruned = masked = variables
    for block in ("stage2_block1", "stage2_block2"):
        for index in (1, 2):
            pruned = cut_channels(pruned, block, index, jnp.asarray(keep))
            masked = mask_reader(masked, block, index, keep)
    fn = jax.jit(functools.partial(models.apply, module, train=train))
    got, expected = fn(pruned, images), fn(masked, images)
    if train:
        got, expected = got[0], expected[0]
        # Statistics shrink with their channels.
        shapes = jax.tree.map(jnp.shape, fn(pruned, images)[1])
        assert shapes == jax.tree.map(jnp.shape, pruned["batch_stats"])
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4)


def test_gradients_have_pruned_shapes(small, images):
    module, variables = small
    pruned = cut_channels(variables, "stage1_block1", 1, jnp.asarray([1, 2]))

    def loss(params):
        logits, _ = models.apply(module, {**pruned, "params": params}, images, train=True)
        return jnp.sum(logits**2)

    grads = jax.jit(jax.grad(loss))(pruned["params"])
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, pruned["params"])
    assert np.any(grads["stage1_block1"]["conv1"]["kernel"])


def test_the_representation_may_be_pruned_too(small, images, random_variables):
    """Another width of the residual stream, as scope "channels" cuts it."""
    module, variables = small
    narrow = models.create("resnet50", 5, stages=(1, 2), width=3, version="v1", conv_bias=True)
    pruned = random_variables(narrow)
    features = jax.jit(models.features, static_argnums=0)
    chex.assert_trees_all_equal(features(module, pruned, images), features(narrow, pruned, images))
    assert models.with_head(pruned, 9)["params"]["head"]["kernel"].shape == (24, 9)
    # The interceptor ends with the call: a layer of the full width refuses a pruned kernel.
    with pytest.raises(flax.errors.ScopeParamShapeError, match="stem_conv"):
        module.apply(pruned, images)
    assert variables["params"]["head"]["kernel"].shape == (32, 5)


def test_one_module_runs_at_many_widths(small, images):
    module, variables = small

    @jax.jit
    @chex.assert_max_traces(2)
    def fn(variables):
        return models.apply(module, variables, images)

    for width in (1, 3, 1, 3):
        pruned = cut_channels(variables, "stage1_block1", 1, jnp.arange(width))
        assert fn(pruned).shape == (3, 5)


class Depthwise(nn.Module):
    """Grouped and depthwise convolutions, as other network families have them."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (1, 1), name="expand")(x)
        x = nn.Conv(8, (3, 3), feature_group_count=8, name="depthwise")(x)
        return nn.Dense(5, name="head")(x)


def test_depthwise_convolutions_follow():
    module = Depthwise()
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    keep = jnp.asarray([0, 3, 4])
    pruned = variables
    for path, axis in [
        (("expand", "kernel"), 3),
        (("expand", "bias"), 0),
        (("depthwise", "kernel"), 3),
        (("depthwise", "bias"), 0),
        (("head", "kernel"), 0),
    ]:
        pruned = cut(pruned, ("params", *path), axis, keep)
    mask = jnp.zeros((8, 1)).at[keep].set(1)
    head = variables["params"]["head"]
    head = {**head, "kernel": head["kernel"] * mask}
    masked = {"params": {**variables["params"], "head": head}}
    got = jax.jit(functools.partial(_elastic.apply, module))(pruned, x)
    chex.assert_trees_all_close(got, jax.jit(module.apply)(masked, x), rtol=1e-4, atol=1e-4)
