"""Training in bfloat16: the state stays float32, and the network learns as well."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ctl_jax import finetune, models
from ctl_jax.errors import UserError
from ctl_jax.finetune import Augmentation, Hyper, Phase, Recipe

PLAIN = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)
RECIPES = {name: Recipe("nevis", PLAIN, compute_dtype=name) for name in ("float32", "bfloat16")}
MODULE = models.create("resnet18", num_outputs=1, stages=(1,), width=8, stem="cifar")


@pytest.fixture(scope="module")
def digits():
    """1,797 handwritten digits of 8 px: the first 1,200 to learn from."""
    images, labels = load_digits(return_X_y=True)
    images = np.repeat((images * 15.9).astype(np.uint8).reshape(-1, 8, 8, 1), 3, axis=-1)
    labels = labels.astype(np.int32)
    return (images[:1200], labels[:1200]), (images[1200:], labels[1200:])


@pytest.fixture(scope="module")
def start():
    """A network whose head is not zero, so that the first update moves all of it."""
    variables = models.with_head(models.init(MODULE, jax.random.key(0), 8), 10)
    head = variables["params"]["head"]
    kernel = 0.1 * jax.random.normal(jax.random.key(1), head["kernel"].shape)
    return {**variables, "params": {**variables["params"], "head": {**head, "kernel": kernel}}}


@pytest.fixture(scope="module")
def fit(digits, start):
    steps = {name: finetune.make_step(MODULE, recipe) for name, recipe in RECIPES.items()}

    def run(dtype, rate, total_steps, seed):
        return finetune.fit(
            [
                finetune.Leg(
                    steps[dtype], RECIPES[dtype], Hyper(rate, total_steps, total_steps // 10, 10)
                )
            ],
            start,
            *digits[0],
            batch_size=32,
            seed=seed,
        )

    return run


def test_accuracy_on_digits_is_that_of_float32(fit, digits):
    found, losses = {}, {}
    for dtype in RECIPES:
        results = [fit(dtype, 0.3, 150, seed) for seed in range(2)]
        scores = [
            finetune.evaluate(
                MODULE, "nevis", r.variables, *digits[1], num_classes=10, compute_dtype=dtype
            ).value
            for r in results
        ]
        found[dtype], losses[dtype] = np.mean(scores), results[0].history[-1].loss
    assert found["float32"] > 0.9
    assert abs(found["float32"] - found["bfloat16"]) < 0.03
    # They differ, or there would be nothing to compare.
    assert losses["float32"] != losses["bfloat16"]


def test_small_updates_are_not_lost(fit, start):
    """At a rate at which nothing would be seen in a scale of bfloat16."""
    result = fit("bfloat16", 1e-3, 2, 0)
    before, after = (tree["params"]["stem_bn"]["scale"] for tree in (start, result.variables))
    assert (np.asarray(after) != np.asarray(before)).any()
    assert (jnp.asarray(after, jnp.bfloat16) == jnp.asarray(before, jnp.bfloat16)).all()
    chex.assert_trees_all_equal_dtypes(result.variables, start)


@pytest.mark.parametrize("phase", [Phase(), Phase(("head/*",), "frozen"), Phase(("*bn*/*",))])
def test_the_state_stays_float32(module, variables, phase):
    recipe = Recipe("nevis", Augmentation(), phase=phase, compute_dtype="bfloat16")
    state = jax.eval_shape(lambda: finetune.init_state(recipe, variables, 0))
    images = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((4,), jnp.int32)
    after, metrics = jax.eval_shape(
        lambda *args: finetune.train_step(module, recipe, *args, Hyper(0.1, 1, 0, 3)),
        state,
        images,
        labels,
    )
    assert after == state
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {jnp.dtype("float32")}


def test_other_types_are_refused():
    with pytest.raises(UserError, match=r"compute_dtype is 'float16'; expected one of float32, b"):
        Recipe("nevis", Augmentation(), compute_dtype="float16")
