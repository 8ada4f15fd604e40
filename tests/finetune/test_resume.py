"""A training that was interrupted goes on as if it had not been."""

import threading

import chex
import jax
import numpy as np
import pytest

from ctl_jax import finetune
from ctl_jax.errors import UserError
from ctl_jax.finetune import Augmentation, Hyper, Recipe

RECIPE = Recipe("nevis", Augmentation())
# More than a chunk has, and no multiple of it.
LOG_EVERY = 5


@pytest.fixture(scope="module", params=["plain", "chunked"])
def step(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def fit(step, variables, split):
    def run(*, steps=17, **options):
        return finetune.fit(
            [finetune.Leg(step, RECIPE, Hyper(0.1, steps, 2, 3))],
            variables,
            *split,
            batch_size=8,
            seed=0,
            log_every=LOG_EVERY,
            **options,
        )

    return run


@pytest.fixture(scope="module")
def whole(fit):
    """An undisturbed training, and its snapshots."""
    snapshots = {}
    result = fit(on_chunk=lambda step, snapshot: snapshots.update({step: snapshot()}))
    return result, snapshots


@pytest.mark.parametrize("device_bytes", [1 << 30, 0])
def test_every_snapshot_leads_to_the_same_end(fit, whole, device_bytes):
    result, snapshots = whole
    ends = [1, 2, 5, 9, 15, 17] if 1 in snapshots else [4, 5, 9, 10, 14, 15, 17]
    assert set(ends) <= set(snapshots)
    for step in ends:
        entries = []
        again = fit(start=snapshots[step], on_log=entries.append, device_bytes=device_bytes)
        chex.assert_trees_all_equal(again.variables, result.variables)
        assert [e[:3] for e in again.history] == [e[:3] for e in result.history]
        assert [e.step for e in entries] == [e for e in (5, 10, 15, 17) if e > step]
        assert again.steps == result.steps


@pytest.mark.parametrize("until", [1, 5, 12, 17, 30])
def test_a_training_that_is_left_is_gone_on_with_to_the_same_end(fit, whole, until):
    """Its log has no line for where it was left."""
    snapshots = {}
    result = fit(until=until, on_chunk=lambda step, now: snapshots.update({step: now()}))
    assert result.steps == max(snapshots) == min(until, 17)
    assert [e.step for e in result.history] == [e for e in (5, 10, 15, 17) if e <= until]
    again = fit(start=snapshots[result.steps])
    chex.assert_trees_all_equal(again.variables, whole[0].variables)
    assert [e[:3] for e in again.history] == [e[:3] for e in whole[0].history]


def test_a_loss_that_is_not_finite_is_seen_where_a_training_is_left(step, variables, split):
    leg = finetune.Leg(step, RECIPE, Hyper(1e30, 100, 0, 3))
    result = finetune.fit(
        [leg], variables, *split, batch_size=8, seed=0, log_every=LOG_EVERY, until=4
    )
    assert (result.steps, result.diverged, result.history) == (4, True, ())


def test_a_snapshot_says_where_it_is(whole):
    _, snapshots = whole
    for step, snapshot in snapshots.items():
        assert int(snapshot.state.step) == step
        assert [e.step for e in snapshot.history] == [e for e in (5, 10, 15, 17) if e <= step]
    times = [snapshot.wall_s for snapshot in snapshots.values()]
    assert times == sorted(times)
    assert times[0] > 0


def test_a_snapshot_is_of_plain_arrays_of_one_device(whole):
    """Later updates do not overwrite it, nor does going on from it."""
    for snapshot in whole[1].values():
        assert jax.dtypes.issubdtype(snapshot.state.key.dtype, jax.dtypes.prng_key)
        for leaf in jax.tree.leaves(snapshot.state):
            assert not leaf.is_deleted()
            assert leaf.sharding.device_set == {jax.devices()[0]}


def test_snapshots_may_come_from_the_host(fit, whole):
    """As read from a file."""
    result, snapshots = whole
    state = snapshots[5].state
    key = jax.random.wrap_key_data(np.asarray(jax.random.key_data(state.key)))
    state = jax.tree.map(np.asarray, state._replace(key=0))._replace(key=key)
    again = fit(start=snapshots[5]._replace(state=state))
    chex.assert_trees_all_equal(again.variables, result.variables)


def test_the_clock_goes_on(fit, whole):
    late = whole[1][5]._replace(wall_s=1000.0)
    again = fit(start=late)
    assert all(entry.wall_s > 1000 for entry in again.history[1:])
    assert again.history[-1].wall_s < 1100


@pytest.mark.parametrize("device_bytes", [1 << 30, 0])
def test_a_callback_may_end_the_training(fit, device_bytes):
    class Enough(Exception):
        pass

    def stop(step, snapshot):
        if step >= 10:
            raise Enough(step)

    before = set(threading.enumerate())
    with pytest.raises(Enough, match="10"):
        fit(on_chunk=stop, device_bytes=device_bytes)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_a_training_that_is_done_is_left_alone(fit, whole):
    result, snapshots = whole
    again = fit(
        start=snapshots[17],
        on_log=lambda entry: pytest.fail("logged"),
        on_chunk=lambda step, snapshot: pytest.fail("trained"),
    )
    assert again.history == snapshots[17].history
    assert (again.steps, again.diverged) == (17, False)
    chex.assert_trees_all_equal(again.variables, result.variables)


def test_a_snapshot_of_a_longer_training_is_refused(fit, whole):
    with pytest.raises(UserError, match=r"start is after step 17; .* total_steps=16"):
        fit(steps=16, start=whole[1][17])


def test_nothing_is_called_after_a_loss_that_is_not_finite(step, variables, split):
    steps = []
    result = finetune.fit(
        [finetune.Leg(step, RECIPE, Hyper(1e30, 100, 0, 3))],
        variables,
        *split,
        batch_size=8,
        seed=0,
        log_every=LOG_EVERY,
        on_chunk=lambda step, snapshot: steps.append(step),
    )
    assert result.diverged
    assert max(steps, default=0) < result.steps
