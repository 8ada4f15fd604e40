"""The layers that the convolutional networks are made of."""

import chex
import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models import layers


@pytest.mark.parametrize(
    ("value", "expected"),
    # 32 * 0.35 and 24 * 0.75 are MobileNetV2's: what nears by rounding down by too much goes up.
    [(32, 32), (11.2, 16), (18.0, 24), (35.0, 32), (36.0, 40), (1.0, 8), (0.01, 8), (44.8, 48)],
)
def test_make_divisible(value, expected):
    assert layers.make_divisible(value) == expected


@hypothesis.given(st.floats(0.1, 5000), st.integers(1, 32))
def test_make_divisible_is_near(value, divisor):
    rounded = layers.make_divisible(value, divisor)
    assert rounded % divisor == 0
    assert rounded >= max(divisor, 0.9 * value)
    assert rounded <= max(divisor, value + divisor)


def test_channel_shuffle():
    x = np.arange(2 * 6).reshape(2, 1, 1, 6)
    once = layers.channel_shuffle(x, 3)
    chex.assert_trees_all_equal(once[0, 0, 0], np.array([0, 2, 4, 1, 3, 5]))
    chex.assert_trees_all_equal(layers.channel_shuffle(once, 2), x)


def test_padding_is_symmetric():
    """So that a strided convolution sees the first pixel of an even image at its middle."""
    x = np.zeros((1, 6, 6, 1), np.float32)
    x[0, 0, 0, 0] = 1
    conv = layers.conv(1, 3, stride=2, name="conv")
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)
    out = conv.apply({"params": {"kernel": kernel}}, x)
    chex.assert_shape(out, (1, 3, 3, 1))
    assert out[0, 0, 0, 0] == kernel[1, 1, 0, 0]
    assert np.count_nonzero(out) == 1


@pytest.mark.parametrize("shape", [(3, 3, 64, 32), (1, 1, 16, 512), (3, 3, 1, 200)])
def test_kernels_start_with_hes_variance(shape):
    kernel = layers.kernel_init(jax.random.key(0), shape, np.float32)
    chex.assert_shape(kernel, shape)
    fan_out = shape[0] * shape[1] * shape[3]
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_out), rtol=0.05)


@pytest.mark.parametrize(("height", "width", "ok"), [(8, 8, True), (9, 7, False), (7, 9, False)])
def test_check_size(height, width, ok):
    images = np.zeros((1, height, width, 3))
    if ok:
        layers.check_size(images, 8)
        return
    with pytest.raises(
        UserError, match=f"images are {height} x {width} px; expected at least 8 x 8"
    ):
        layers.check_size(images, 8)


@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_is_that_of_flax(train):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(2, 3, (4, 5, 5, 6)), jnp.float32)
    draw = lambda low: jnp.asarray(rng.uniform(low, 2, 6), jnp.float32)  # noqa: E731
    variables = {
        "params": {"scale": draw(-1), "bias": draw(-1)},
        "batch_stats": {"mean": draw(-1), "var": draw(0.1)},
    }
    theirs = nn.BatchNorm(use_running_average=not train, momentum=0.0, epsilon=1e-3)
    ours = layers.BatchNorm(epsilon=1e-3, use_running_average=not train)
    out, statistics = ours.apply(variables, x, mutable=["batch_stats"])
    expected, expected_statistics = theirs.apply(variables, x, mutable=["batch_stats"])
    chex.assert_trees_all_close(out, expected, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(statistics, expected_statistics, rtol=1e-6)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(ours.init, jax.random.key(0), x),
        jax.eval_shape(theirs.init, jax.random.key(0), x),
    )


class Stock(nn.Module):
    """Linen's own BatchNorm in each of the ways to tell it, within a loop and a `remat` too."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, name="field")(x)
        x = nn.BatchNorm(name="argument")(x, use_running_average=True)
        x = nn.BatchNorm(name="position")(x, True)
        x = nn.remat(nn.BatchNorm)(use_running_average=True, name="remat")(x)
        loop = nn.scan(
            lambda norm, x, _: (norm(x), None),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=2,
        )
        x, _ = loop(nn.BatchNorm(use_running_average=True, name="loop"), x, None)
        return nn.Dense(3, name="head")(jnp.mean(x, axis=(1, 2)))


@pytest.mark.parametrize("layer", ["field", "argument", "position", "remat", "loop"])
def test_a_module_of_stock_layers_asks_too(layer):
    module, x = Stock(), np.random.default_rng(0).normal(2, 3, (4, 5, 5, 6)).astype(np.float32)
    variables = module.init(jax.random.key(0), x)
    expected = models.apply(module, variables, x)
    chex.assert_trees_all_equal(expected, module.apply(variables, x))
    logits, statistics = models.apply(module, variables, x, train=lambda path: path == layer)
    assert np.abs(logits - expected).max() > 1e-3
    for name, old in variables["batch_stats"].items():
        if name != layer:
            chex.assert_trees_all_equal(statistics[name], old)
    mean = statistics[layer]["mean"].reshape(-1, 6)[0]
    chex.assert_trees_all_close(mean, np.mean(x, (0, 1, 2)), rtol=1e-3, atol=1e-4)
