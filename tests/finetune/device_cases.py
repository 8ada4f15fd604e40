"""Trials on one, two and eight devices; `test_sharding` runs this file where there are eight."""

import functools

import chex
import jax
import numpy as np
import pytest

from ctl_jax import finetune
from ctl_jax.errors import UserError
from ctl_jax.finetune import Augmentation, Hyper, Recipe, sharding

RECIPE = Recipe("nevis", Augmentation())


def make_mesh(count):
    return sharding.make_mesh(jax.devices()[:count])


@functools.cache
def make_step(module, count):
    """With a loop where the devices are many."""
    return finetune.make_step(module, RECIPE, make_mesh(count), chunk=4 if count == 8 else 1)


def fit(module, variables, split, count, **options):
    step = make_step(module, count)
    return finetune.fit(
        [finetune.Leg(step, RECIPE, Hyper(0.1, 12, 2, 3))],
        variables,
        *split,
        batch_size=16,
        seed=0,
        log_every=5,
        **options,
    )


@pytest.fixture(scope="module")
def alone(module, variables, split):
    """On one device, and a snapshot on the way."""
    snapshots = {}
    result = fit(
        module, variables, split, 1, on_chunk=lambda step, now: snapshots.update({step: now()})
    )
    return result, snapshots[7]


def check(result, expected):
    """Equal to float tolerance; sums are taken in another order."""
    for one, other in zip(result.history, expected.history, strict=True):
        assert one[:3] == pytest.approx(other[:3], rel=1e-4)
    chex.assert_trees_all_close(result.variables, expected.variables, rtol=1e-3, atol=1e-4)


def test_there_are_eight_devices():
    assert jax.device_count() == 8
    assert sharding.make_mesh().size == 8


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("device_bytes", [1 << 30, 0])
def test_the_same_curve(module, variables, split, alone, count, device_bytes):
    result = fit(module, variables, split, count, device_bytes=device_bytes)
    check(result, alone[0])
    for leaf in jax.tree.leaves(result.variables):
        assert len(leaf.sharding.device_set) == count
        assert leaf.is_fully_replicated


def test_the_first_updates_differ_by_rounding_alone(module, variables, split):
    """Other examples, crops or statistics would show at once; rounding grows with the updates."""

    def early(count):
        at = {}
        fit(module, variables, split, count, on_chunk=lambda step, now: at.update({step: now()}))
        return [at[step].state.variables for step in (1, 3)]

    one, two = early(1), early(2)
    chex.assert_trees_all_close(one, two, rtol=2e-6, atol=2e-7)
    # The head's kernel starts at zero, so that the first update moves nothing below it.
    moved = jax.tree.map(lambda new, old: abs(new - old).max(), one[1], variables)
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_a_snapshot_goes_on_elsewhere(module, variables, split, alone):
    check(fit(module, variables, split, 8, start=alone[1]), alone[0])
    snapshots = {}
    fit(module, variables, split, 2, on_chunk=lambda step, now: snapshots.update({step: now()}))
    check(fit(module, variables, split, 1, start=snapshots[3]), alone[0])


def test_each_device_has_its_part_of_a_batch():
    mesh = make_mesh(8)
    batch = np.arange(3 * 16).reshape(3, 16)
    placed = sharding.shard(mesh, batch[:, sharding.rows(mesh, 16)], axis=1)
    assert [shard.data.shape for shard in placed.addressable_shards] == [(3, 2)] * 8
    np.testing.assert_array_equal(placed, batch)


@pytest.mark.parametrize("examples", [1, 60])
@pytest.mark.parametrize("multi_label", [False, True])
def test_evaluation(module, variables, split, alone, examples, multi_label):
    images, labels = (array[:examples] for array in split)
    if multi_label:
        labels = np.eye(3, dtype=np.uint8)[labels]
    scores = [
        finetune.evaluate(
            module,
            "nevis",
            alone[0].variables,
            images,
            labels,
            num_classes=3,
            batch_size=13,  # rounded up to what the devices can share
            mesh=make_mesh(count),
        )
        for count in (1, 8)
    ]
    assert scores[1] == pytest.approx(scores[0])


def test_a_batch_that_can_not_be_shared_is_refused(module, variables, split):
    with pytest.raises(UserError, match=r"a batch of 16 examples on 3 devices; .* multiple of 3"):
        fit(module, variables, split, 3)
