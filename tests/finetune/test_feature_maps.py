"""Partial training: with adapters, then on maps that were computed once; it costs less."""

import dataclasses
import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, finetune, models
from ctl_jax.data import streaming
from ctl_jax.errors import UserError
from ctl_jax.finetune import Augmentation, Hyper, Leg, Phase, Recipe, _adapters, feature_maps
from ctl_jax.finetune.checkpoints import Checkpoint, pack, unpack
from ctl_jax.trees import leaf_paths

SIZE, BATCH, CLASSES, UPDATES = 8, 8, 3, 3
PLAIN = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)
LAST = Recipe("nevis", PLAIN, phase=Phase(("stage2*", "head/*"), cached=True))
MODULE = models.create("resnet18", 1, stages=(1, 1), width=4, stem="cifar")
LORA = Recipe("nevis", PLAIN, phase=Phase(("head/*",), "frozen", lora=2), ema=1e-6)
ON_MAPS = dataclasses.replace(LAST, entrance=("stage2_block1", SIZE))


@pytest.fixture(scope="module")
def variables():
    headed = models.with_head(models.init(MODULE, jax.random.key(0), SIZE), CLASSES)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + rng.normal(0, 0.05, leaf.shape), jnp.float32), headed
    )


@pytest.fixture(scope="module")
def fit(variables, split):
    """Two phases, the first of which changes what the second takes for frozen."""
    hyper = Hyper(0.005, UPDATES, 0, CLASSES)
    start = Leg(finetune.make_step(MODULE, LORA), LORA, hyper)

    def make(recipe):
        legs = [start, Leg(finetune.make_step(MODULE, recipe), recipe, hyper)]

        def run(**options):
            return finetune.fit(legs, variables, *split, batch_size=BATCH, seed=0, **options)

        return run

    return functools.cache(make)


@pytest.fixture(scope="module")
def whole(fit):
    """An undisturbed training, and its snapshots."""
    snapshots = {}
    result = fit(ON_MAPS)(on_chunk=lambda at, now: snapshots.update({at: now()}))
    return result, snapshots


def test_a_phase_with_adapters_moves_the_head_and_merged_kernels_alone(whole, variables):
    state, start = whole[1][UPDATES].state, dict(leaf_paths(variables))
    for path, leaf in leaf_paths(state.variables):
        moved = path.startswith("params/head/") or path.endswith("/kernel")
        assert np.any(leaf != start[path]) == moved, path
    # The kernels themselves stay; what is used is merged.
    for path, leaf in leaf_paths(state.params):
        if not path.startswith("head/"):
            chex.assert_trees_all_equal(leaf, start[f"params/{path}"])
    last = state._replace(average=None).variables
    chex.assert_trees_all_close(last["params"], _adapters.merged(state.params, state.adapters))
    # The moving average is one of merged kernels, and here nearly the last of them.
    chex.assert_trees_all_close(state.variables, last, atol=1e-4)


def test_training_on_maps_is_the_same(fit, whole):
    result, plain = whole[0], fit(LAST)()
    # Maps have ten bits.
    chex.assert_trees_all_close(result.variables, plain.variables, atol=5e-3)
    losses = [[entry.loss for entry in each.history] for each in (result, plain)]
    chex.assert_trees_all_close(*losses, rtol=1e-2)
    for name in ("stem_conv", "stage1_block1"):
        below = whole[1][UPDATES].state.variables["params"][name]
        chex.assert_trees_all_equal(result.variables["params"][name], below)


@pytest.mark.parametrize("at", [1, UPDATES + 1, 2 * UPDATES], ids=["adapters", "maps", "end"])
def test_it_goes_on_after_an_interruption(fit, whole, at, monkeypatch):
    result, snapshots = whole
    content, meta = pack(Checkpoint(snapshots[at]))
    saved = unpack(content, meta, lambda phase: snapshots[at].state).snapshot
    # Whatever number of them is computed at a time.
    monkeypatch.setattr(feature_maps, "_PART", 24)
    chex.assert_trees_all_equal(fit(ON_MAPS)(start=saved).variables, result.variables)


def shapes(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def test_a_step_costs_what_is_left_without_the_maps(variables):
    def step(recipe, images):
        state = jax.eval_shape(functools.partial(finetune.init_state, recipe, seed=0), variables)
        labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
        function = functools.partial(finetune.train_step, MODULE, recipe)
        return compute.flops(function, state, images, labels, Hyper(0.1, 1, 0, CLASSES))

    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8)
    enter = functools.partial(feature_maps.enter, MODULE, ON_MAPS)
    entered = jax.eval_shape(enter, variables, images)
    lower = compute.flops(enter, shapes(variables), images)
    assert entered.shape == (BATCH, SIZE, SIZE, 4)
    assert lower == 2 * BATCH * SIZE**2 * 9 * (3 + 2 * 4) * 4
    assert step(ON_MAPS, entered) == step(LAST, images) - lower


def test_where_a_recipe_is_divided(variables):
    def divided(recipe, **phase):
        recipe = dataclasses.replace(recipe, phase=dataclasses.replace(recipe.phase, **phase))
        found = feature_maps.divided(MODULE, recipe, shapes(variables), SIZE)
        assert found == dataclasses.replace(recipe, entrance=found.entrance)
        return found.entrance and found.entrance[0]

    assert divided(LAST) == "stage2_block1"
    assert divided(LAST, train=("head/*",)) == "head"
    assert divided(LAST, train=("stage1_block1/bn2/*", "head/*")) == "stage1_block1"
    for nothing in ({"cached": False}, {"lora": 2}, {"train": ("*",)}):
        assert divided(LAST, **nothing) is None
    for varied in (
        {"augmentation": Augmentation(flip=False)},
        {"augmentation": dataclasses.replace(PLAIN, flip=True)},
        {"augmentation": dataclasses.replace(PLAIN, crop_aspect=(0.9, 1.0))},
        {"mixup": 0.2},
    ):
        assert divided(dataclasses.replace(LAST, **varied)) is None
        with pytest.raises(UserError, match=r"entrance is \('stage2_block1', 8\); expected images"):
            dataclasses.replace(ON_MAPS, **varied)


@hypothesis.given(
    st.integers(0, 10_000), st.integers(1, 50), st.integers(0, 50), *[st.integers(1, 40)] * 2
)
def test_a_budget_pays_for_maps_once(budget, step, each, batch_size, examples):
    def cost(updates):
        return updates * step + min(updates * batch_size, examples) * each

    found = feature_maps.affordable(budget, step, each, batch_size, examples)
    assert cost(found) <= budget < cost(found + 1)


@hypothesis.given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 9))
def test_maps_are_those_of_the_images_that_are_seen(examples, batch_size, updates):
    found = feature_maps.seen(examples, batch_size, 5, updates)
    order = streaming.Order(examples, batch_size, 5)
    seen = {int(each) for batch in range(updates) for each in order[batch]}
    assert list(found) == (
        list(range(examples)) if updates * batch_size >= examples else sorted(seen)
    )
    assert len(found) == min(examples, updates * batch_size)
