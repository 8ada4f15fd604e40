"""Training with several labels an image: the loss, its padding, its one program; it learns."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from ctl_jax import compute, finetune, models
from ctl_jax.finetune._losses import loss

SIZE, BATCH, CLASSES, OUTPUTS = 8, 8, 3, 16
PLAIN = finetune.Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)
RECIPE = finetune.Recipe("nevis", augmentation=PLAIN)
MODULE = models.create("resnet18", num_outputs=1, stages=(1,), width=8, stem="cifar")


@pytest.fixture(scope="module")
def variables():
    return models.with_head(models.init(MODULE, jax.random.key(0), SIZE), OUTPUTS)


@pytest.fixture(scope="module")
def split():
    """Each of red, green and blue is bright or dark, and that is its label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, CLASSES)).astype(np.uint8)
    noise = rng.integers(0, 40, (60, SIZE, SIZE, 3))
    return (noise + 160 * labels[:, None, None, :]).astype(np.uint8), labels


@pytest.fixture(scope="module")
def step():
    return finetune.make_step(MODULE, RECIPE)


def _fit(step, variables, split, steps=60, rate=0.3, classes=CLASSES, outputs=OUTPUTS, **options):
    images, labels = split
    return finetune.fit(
        [finetune.Leg(step, RECIPE, finetune.Hyper(rate, steps, steps // 10, classes))],
        variables,
        images,
        finetune.pad_labels(labels, outputs),
        batch_size=BATCH,
        seed=0,
        **options,
    )


@given(batch=st.integers(1, 5), classes=st.integers(1, 6), seed=st.integers(0, 9))
def test_loss_is_the_mean_binary_cross_entropy_of_the_tasks_own_classes(batch, classes, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, 8)).astype(np.float32)
    labels = rng.integers(0, 2, (batch, classes)).astype(np.uint8)
    found = loss(jnp.asarray(logits), jnp.asarray(finetune.pad_labels(labels, 8)), classes)
    probabilities = 1 / (1 + np.exp(-logits[:, :classes].astype(np.float64)))
    expected = log_loss(labels.ravel(), probabilities.ravel(), labels=[0, 1])
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_padded_outputs_get_no_gradient():
    labels = jnp.ones((2, 8), jnp.uint8)
    gradient = jax.grad(loss)(jnp.full((2, 8), 3.0), labels, CLASSES)
    assert np.all(gradient[:, CLASSES:] == 0)
    assert np.all(gradient[:, :CLASSES] != 0)


def test_learns_and_starts_at_a_guess(step, variables, split):
    assert _fit(step, variables, split, steps=1).history[0].loss == pytest.approx(np.log(2))
    result = _fit(step, variables, split)
    assert result.history[-1].loss < 0.3
    scores = finetune.evaluate(MODULE, "nevis", result.variables, *split, num_classes=CLASSES)
    assert scores.metric == "mAP"
    assert scores.value > 0.95 > 0.6 > split[1].mean()


def test_a_padded_head_trains_as_one_of_the_tasks_own_size(step, variables, split):
    padded = _fit(step, variables, split, steps=20)
    exact = _fit(step, models.with_head(variables, CLASSES), split, steps=20, outputs=CLASSES)
    head = padded.variables["params"]["head"]
    chex.assert_trees_all_equal(head["kernel"][:, CLASSES:], jnp.zeros((8, OUTPUTS - CLASSES)))
    chex.assert_trees_all_equal(head["bias"][CLASSES:], jnp.zeros(OUTPUTS - CLASSES))
    chex.assert_trees_all_close(
        head["kernel"][:, :CLASSES], exact.variables["params"]["head"]["kernel"], atol=1e-5
    )


def test_labels_are_streamed_as_well_as_kept_on_the_device(step, variables, split):
    kept, streamed = (_fit(step, variables, split, steps=20, device_bytes=n) for n in (1 << 30, 0))
    assert kept.history[-1].loss == streamed.history[-1].loss
    chex.assert_trees_all_equal(kept.variables, streamed.variables)


def test_a_step_costs_the_same_with_either_loss(variables):
    def flops(labels):
        state = jax.eval_shape(functools.partial(finetune.init_state, RECIPE, seed=0), variables)
        images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8)
        step = functools.partial(finetune.train_step, MODULE, RECIPE)
        return compute.flops(step, state, images, labels, finetune.Hyper(0.1, 1, 0, CLASSES))

    several = flops(jax.ShapeDtypeStruct((BATCH, OUTPUTS), jnp.uint8))
    assert several == flops(jax.ShapeDtypeStruct((BATCH,), jnp.int32)) > 0
