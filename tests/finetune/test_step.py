"""The moving average of weights; the step itself is tested with the loop around it."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import finetune
from ctl_jax.finetune.packing import Checkpoint, pack, unpack
from ctl_jax.finetune.step import average_weights

STEPS = 7


@pytest.fixture(scope="module")
def averaged(module, recipe):
    """A step with an average whose decay counts from the fourth update on, and labels smoothed."""
    changed = dataclasses.replace(recipe, ema=0.3, label_smoothing=0.1)
    return finetune.make_step(module, changed), changed


@pytest.fixture(scope="module")
def fit(averaged, variables, split):
    step, recipe = averaged

    def run(**options):
        leg = finetune.Leg(step, recipe, finetune.Hyper(0.1, STEPS, 2, 3))
        return finetune.fit([leg], variables, *split, batch_size=8, seed=0, **options)

    return run


@pytest.fixture(scope="module")
def whole(fit):
    """An undisturbed training, and its snapshots."""
    snapshots = {}
    result = fit(on_chunk=lambda step, snapshot: snapshots.update({step: snapshot()}))
    return result, snapshots


def test_what_is_left_is_the_average_of_the_way(whole, variables):
    result, snapshots = whole
    average = {key: variables[key] for key in ("params", "batch_stats")}
    for step in range(STEPS):
        state = snapshots[step + 1].state
        now = {"params": state.params, "batch_stats": state.batch_stats}
        kept = min(0.3, (1 + step) / (10 + step))
        average = jax.tree.map(lambda a, b, k=kept: k * a + (1 - k) * b, average, now)
        chex.assert_trees_all_close(state.variables, average, atol=1e-5)
    chex.assert_trees_all_equal(result.variables, snapshots[STEPS].state.variables)
    assert np.any(result.variables["params"]["head"]["kernel"] != now["params"]["head"]["kernel"])


def test_it_goes_on_after_an_interruption(fit, whole):
    result, snapshots = whole
    content, meta = pack(Checkpoint(snapshots[4]))
    saved = unpack(content, meta, lambda phase: snapshots[1].state).snapshot
    chex.assert_trees_all_equal(fit(start=saved).variables, result.variables)


def test_without_one_the_state_has_nothing_more(recipe, variables):
    state = finetune.init_state(recipe, variables, 0)
    assert state.average is None
    assert state.variables == {"params": state.params, "batch_stats": state.batch_stats}


def test_what_does_not_change_stays_bit_for_bit():
    frozen = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=100), jnp.float32)}
    found = average_weights(frozen, frozen, jnp.int32(5), 0.999)
    chex.assert_trees_all_equal(found, frozen)
