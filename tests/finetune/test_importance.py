"""The head by which gradients reach the channels, before there is any."""

import chex
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.finetune._losses import loss
from ctl_jax.finetune.importance import mean_head

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(3, [1, 10, 0.1, 2], size=(30, 4))


@pytest.mark.parametrize(
    "labels",
    [np.arange(30, dtype=np.int32) % 3, (RNG.random((30, 3)) < 0.3).astype(np.uint8)],
    ids=["classes", "several labels"],
)
def test_it_is_a_gradient_step_from_zero(labels):
    """On standardised features; which is against the gradient of the loss."""
    head = mean_head(FEATURES, labels, 3)
    x = np.float32((FEATURES - FEATURES.mean(0)) / FEATURES.std(0))
    logits = FEATURES @ head["kernel"] + head["bias"]
    assert np.mean(logits**2) == pytest.approx(1, rel=1e-5)

    def of_kernel(kernel):
        return loss(x @ kernel, labels, 3)

    gradient = jax.grad(of_kernel)(np.zeros((4, 3), np.float32))
    step = head["kernel"] * FEATURES.std(0)[:, None]
    chex.assert_trees_all_close(
        step / np.linalg.norm(step), -gradient / np.linalg.norm(gradient), atol=1e-5
    )


@hypothesis.given(st.integers(1, 6), st.integers(1, 4))
def test_it_is_finite(examples, classes):
    """Of one image, of one class, of features that do not vary."""
    labels = np.arange(examples, dtype=np.int32) % classes
    features = np.zeros((examples, 3))
    features[:, 1] = np.arange(examples)
    head = mean_head(features, labels, classes)
    chex.assert_tree_all_finite(head)
    assert not head["kernel"][0].any()
    assert not np.isnan(features @ head["kernel"] + head["bias"]).any()
