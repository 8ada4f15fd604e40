"""The loss of a batch; test_multi_label.py has more about several labels an image."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctl_jax.finetune._losses import loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (5, 4)).astype(np.float32)
PADDED = np.pad(LOGITS, ((0, 0), (0, 3)), constant_values=9.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_labels_are_smoothed_over_the_classes_alone(smoothing):
    labels = np.array([0, 3, 1, 1, 2])
    smooth = optax.smooth_labels(jnp.eye(4)[labels], smoothing)
    expected = optax.softmax_cross_entropy(LOGITS, smooth).mean()
    found = loss(PADDED, jnp.asarray(labels), 4, smoothing)
    chex.assert_trees_all_close(found, expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels_are_smoothed_towards_a_half(smoothing):
    labels = RNG.integers(0, 2, (5, 4)).astype(np.uint8)
    targets = labels * (1 - smoothing) + smoothing / 2
    p = 1 / (1 + np.exp(-LOGITS))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    found = loss(PADDED, jnp.pad(jnp.asarray(labels), ((0, 0), (0, 3))), 4, smoothing)
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
