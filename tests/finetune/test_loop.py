"""Batches, steps, the loop and evaluation on a small network."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, finetune, models
from ctl_jax.data.streaming import Order
from ctl_jax.errors import UserError
from ctl_jax.finetune import Augmentation, Hyper, Phase, Recipe

SIZE, BATCH, CLASSES, FEATURES = 8, 8, 3, 8
PLAIN = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)
RECIPE = Recipe("nevis", augmentation=PLAIN)
PROBE = Phase(train=("head/*",), batch_norm="frozen")
MODULE = models.create("resnet18", num_outputs=1, stages=(1,), width=FEATURES, stem="cifar")


@pytest.fixture(scope="module")
def variables():
    return models.with_head(models.init(MODULE, jax.random.key(0), SIZE), 16)


@pytest.fixture(scope="module")
def step():
    return finetune.make_step(MODULE, RECIPE)


@pytest.fixture(scope="module")
def split():
    """Images whose brightness tells their class."""
    labels = np.arange(60, dtype=np.int32) % CLASSES
    noise = np.random.default_rng(0).integers(0, 40, (60, SIZE, SIZE, 3))
    return (noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels


def _fit(step, variables, split, *, steps=20, rate=0.05, recipe=RECIPE, seed=0, classes=CLASSES):
    return finetune.fit(
        [finetune.Leg(step, recipe, Hyper(rate, steps, steps // 10, classes))],
        variables,
        *split,
        batch_size=BATCH,
        seed=seed,
        log_every=7,
    )


def test_learns_and_logs(step, variables, split):
    entries = []
    result = finetune.fit(
        [finetune.Leg(step, RECIPE, Hyper(0.05, 40, 4, CLASSES))],
        variables,
        *split,
        batch_size=BATCH,
        seed=0,
        log_every=15,
        on_log=entries.append,
    )
    assert [entry.step for entry in entries] == [15, 30, 40]
    assert tuple(entries) == result.history
    assert result.steps == 40
    assert not result.diverged
    assert entries[-1].loss < 0.5 < np.log(CLASSES)
    rate = finetune.warmup_cosine(39, peak=0.05, total_steps=40, warmup_steps=4)
    assert entries[-1].learning_rate == pytest.approx(float(rate))
    scores = finetune.evaluate(MODULE, "nevis", result.variables, *split, num_classes=CLASSES)
    assert scores.value > 0.9


def test_first_loss_is_that_of_a_guess(step, variables, split):
    """The head is zero, and its padding gets no probability."""
    result = _fit(step, variables, split, steps=1)
    assert result.history[0].loss == pytest.approx(np.log(CLASSES), rel=1e-6)


def test_a_padded_head_trains_as_one_of_the_tasks_own_size(step, variables, split):
    padded = _fit(step, variables, split)
    exact = _fit(step, models.with_head(variables, CLASSES), split)
    head = padded.variables["params"]["head"]
    chex.assert_trees_all_equal(head["kernel"][:, CLASSES:], jnp.zeros((FEATURES, 16 - CLASSES)))
    chex.assert_trees_all_equal(head["bias"][CLASSES:], jnp.zeros(16 - CLASSES))
    trimmed = jax.tree.map(lambda x: x[..., :CLASSES], head)
    rest = {k: v for k, v in padded.variables["params"].items() if k != "head"}
    chex.assert_trees_all_close(
        {**padded.variables, "params": {**rest, "head": trimmed}}, exact.variables, atol=1e-5
    )


def test_same_seed_same_numbers(step, variables, split):
    one, two = (_fit(step, variables, split) for _ in range(2))
    chex.assert_trees_all_equal(one.variables, two.variables)
    other = _fit(step, variables, split, seed=1)
    kernels = [r.variables["params"]["head"]["kernel"] for r in (one, other)]
    assert not np.allclose(*kernels)


@pytest.mark.parametrize("steps", [-1, 2**31, 10**30])
def test_steps_that_cannot_be_counted_are_refused(step, variables, split, steps):
    with pytest.raises(UserError, match=f"total_steps={steps}: expected 0 to 2147483647"):
        _fit(step, variables, split, steps=steps)


def test_variables_given_are_not_overwritten(step, variables, split):
    before = jax.tree.map(np.array, variables)
    _fit(step, variables, split)
    chex.assert_trees_all_equal(before, variables)


def test_a_loss_that_is_not_finite_ends_the_trial(step, variables, split):
    result = _fit(step, variables, split, steps=100, rate=1e30)
    assert result.diverged
    assert result.steps == result.history[-1].step < 100


def test_weight_decay_pulls_kernels_only(variables, split):
    """With a huge decay and no gradient to speak of, kernels shrink and nothing else moves."""
    base = Recipe("nevis", augmentation=PLAIN, weight_decay=0.0, momentum=0.0)
    decayed = Recipe("nevis", augmentation=PLAIN, weight_decay=0.5, momentum=0.0)
    without, with_decay = (
        _fit(finetune.make_step(MODULE, r), variables, split, steps=1, recipe=r)
        for r in (base, decayed)
    )
    rate = 0.05
    for path, start in jax.tree_util.tree_leaves_with_path(variables["params"]):
        pick = functools.reduce(lambda tree, key: tree[key.key], path, without.variables["params"])
        other = functools.reduce(
            lambda tree, key: tree[key.key], path, with_decay.variables["params"]
        )
        pull = 0.5 * rate * start if path[-1].key == "kernel" else jnp.zeros_like(start)
        np.testing.assert_allclose(pick - other, pull, atol=1e-6, err_msg=str(path))


@pytest.mark.parametrize("steps", [1, 2, 9, 14])
def test_statistics_forget_the_pretrained_ones(step, variables, split, steps):
    """At learning rate zero only the statistics move: a mean at first, exponential after ten."""
    result = _fit(step, variables, split, steps=steps, rate=0.0)
    images = models.PREPROCESS["nevis"](jnp.asarray(split[0]))
    expected = None
    order = Order(60, BATCH, seed=0)
    for count in range(steps):
        _, of_batch = models.apply(MODULE, variables, images[order[count]], train=True)
        kept = min(0.9, count / (count + 1))
        expected = (
            of_batch
            if expected is None
            else jax.tree.map(lambda a, b, k=kept: k * a + (1 - k) * b, expected, of_batch)
        )
    chex.assert_trees_all_close(result.variables["batch_stats"], expected, rtol=1e-3, atol=1e-3)


def test_linear_probe_moves_the_head_alone(variables, split):
    recipe = Recipe("nevis", augmentation=PLAIN, phase=PROBE)
    result = _fit(finetune.make_step(MODULE, recipe), variables, split, recipe=recipe, rate=0.5)
    for name, leaf in result.variables["params"].items():
        if name == "head":
            assert np.abs(leaf["kernel"]).max() > 0
        else:
            chex.assert_trees_all_equal(leaf, variables["params"][name])
    chex.assert_trees_all_equal(result.variables["batch_stats"], variables["batch_stats"])


def test_linear_probe_costs_a_forward_pass_and_the_heads_gradient(variables):
    def flops(recipe):
        state = jax.eval_shape(functools.partial(finetune.init_state, recipe, seed=0), variables)
        images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8)
        labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
        step = functools.partial(finetune.train_step, MODULE, recipe)
        return compute.flops(step, state, images, labels, Hyper(0.1, 1, 0, CLASSES))

    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.float32)
    forward = compute.flops(functools.partial(models.apply, MODULE), variables, images)
    head = 2 * BATCH * FEATURES * 16
    assert flops(Recipe("nevis", PLAIN, phase=PROBE)) == forward + head
    # Forward, and twice as much backward but for the gradient of the images, which nobody needs.
    stem = 2 * BATCH * SIZE * SIZE * 9 * 3 * FEATURES
    assert flops(RECIPE) == 3 * forward - stem


def test_training_is_the_same_where_jax_has_64_bits(variables, split):
    """Crops, flips, updates and evaluation: float32 by name, whatever JAX's default is."""

    def run():
        recipe = Recipe("nevis", augmentation=Augmentation())
        step = finetune.make_step(MODULE, recipe)
        result = _fit(step, variables, split, steps=3, recipe=recipe)
        score = finetune.evaluate(MODULE, "nevis", result.variables, *split, num_classes=CLASSES)
        return result.variables, [entry.loss for entry in result.history], score.value

    expected = run()
    with jax.enable_x64(True):
        found = run()
    chex.assert_trees_all_equal_dtypes(found[0], variables)
    chex.assert_trees_all_equal(found, expected)


@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.enable_x64(True),
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.numpy_rank_promotion("raise"),
    ],
    ids=["x64", "strict types", "strict ranks"],
)
@pytest.mark.parametrize(
    "labels",
    [jax.ShapeDtypeStruct((4,), jnp.int32), jax.ShapeDtypeStruct((4, 16), jnp.uint8)],
    ids=["single label", "multi label"],
)
def test_a_step_under_settings_of_jax(variables, setting, labels):
    recipe = Recipe("nevis", augmentation=Augmentation())
    images = jax.ShapeDtypeStruct((4, SIZE, SIZE, 3), jnp.uint8)
    hyper = Hyper(np.float32(0.1), np.int32(3), np.int32(0), np.int32(CLASSES))
    with setting():
        state = jax.eval_shape(lambda: finetune.init_state(recipe, variables, 0))
        step = functools.partial(finetune.train_step, MODULE, recipe)
        after, metrics = jax.eval_shape(step, state, images, labels, hyper)
    assert after == state
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, metrics))} == {
        jnp.dtype("float32")
    }
