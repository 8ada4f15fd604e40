"""A training of two phases: a linear probe, then everything at another rate."""

import functools

import chex
import jax
import numpy as np
import pytest

from ctl_jax import finetune
from ctl_jax.errors import UserError
from ctl_jax.finetune import Augmentation, Hyper, Leg, Phase, Recipe
from ctl_jax.finetune._loop import _phase_seed
from ctl_jax.finetune.checkpoints import Checkpoint, Checkpoints

# Neither is a multiple of the other, or of a chunk.
FIRST, SECOND, LOG_EVERY = 7, 6, 5
TOTAL = FIRST + SECOND
PROBE = Recipe("nevis", Augmentation(), phase=Phase(("head/*",), "frozen"))
FULL = Recipe("nevis", Augmentation())


@pytest.fixture(scope="module", params=[1, 4], ids=["plain", "chunked"])
def legs(request, module):
    steps = [finetune.make_step(module, recipe, chunk=request.param) for recipe in (PROBE, FULL)]
    hypers = Hyper(0.3, FIRST, 2, 3), Hyper(0.05, SECOND, 1, 3)
    return [Leg(*leg) for leg in zip(steps, (PROBE, FULL), hypers, strict=True)]


@pytest.fixture(scope="module")
def fit(variables, split):
    def run(legs, variables=variables, seed=3, **options):
        return finetune.fit(
            legs, variables, *split, batch_size=8, seed=seed, log_every=LOG_EVERY, **options
        )

    return run


@pytest.fixture(scope="module")
def whole(legs, fit):
    """An undisturbed training, and its snapshots."""
    snapshots = {}
    return fit(legs, on_chunk=lambda at, now: snapshots.update({at: now()})), snapshots


def test_it_is_one_training_after_the_other(legs, fit, whole, variables):
    first = fit(legs[:1])
    second = fit(legs[1:], first.variables, seed=_phase_seed(3, 1))
    chex.assert_trees_all_equal(whole[0].variables, second.variables)
    losses = [entry.loss for entry in whole[0].history if entry.step in (5, 7, 12, 13)]
    assert losses[:2] == [entry.loss for entry in first.history]
    assert losses[-1] == second.history[-1].loss
    # The first phase is what it would be alone; all but the head stays to the bit.
    border = whole[1][FIRST].state
    chex.assert_trees_all_equal(border.params, first.variables["params"])
    for name, leaf in border.params.items():
        if name != "head":
            chex.assert_trees_all_equal(leaf, variables["params"][name])
    chex.assert_trees_all_equal(border.batch_stats, variables["batch_stats"])
    kernels = [
        tree["stem_conv"]["kernel"] for tree in (whole[0].variables["params"], border.params)
    ]
    assert np.any(kernels[0] != kernels[1])


def test_updates_are_counted_over_all_of_it(whole):
    result, snapshots = whole
    assert (result.steps, result.diverged) == (TOTAL, False)
    assert [entry.step for entry in result.history] == [5, 7, 10, 13]
    assert list(snapshots) in ([*range(1, TOTAL + 1)], [4, 5, 7, 10, 13])
    for at, snapshot in snapshots.items():
        assert snapshot.step == at
        assert (snapshot.phase, snapshot.before) == ((0, 0) if at <= FIRST else (1, FIRST))
        assert int(snapshot.state.step) == at - snapshot.before
        assert [e.step for e in snapshot.history] == [e for e in (5, 7, 10, 13) if e <= at]


def test_each_phase_has_a_schedule_and_an_optimiser_of_its_own(whole):
    result, snapshots = whole
    rates = {entry.step: entry.learning_rate for entry in result.history}
    for at, done, hyper in ((7, 6, (0.3, FIRST, 2)), (10, 2, (0.05, SECOND, 1))):
        names = dict(zip(("peak", "total_steps", "warmup_steps"), hyper, strict=True))
        assert rates[at] == pytest.approx(float(finetune.warmup_cosine(done, **names)))
    leaves = [len(jax.tree.leaves(snapshots[at].state.opt_state)) for at in (5, 7, 10, 13)]
    assert leaves[0] == leaves[1] == 2 < leaves[2] == leaves[3]


def test_each_phase_has_an_order_and_crops_of_its_own(fit, legs):
    twice = [legs[0], legs[0]]
    snapshots = {}
    fit(twice, on_chunk=lambda at, now: snapshots.update({at: now()}))
    keys = [jax.random.key_data(snapshots[at].state.key) for at in (FIRST, 2 * FIRST)]
    assert np.any(keys[0] != keys[1])
    assert _phase_seed(3, 0) == 3
    assert len({_phase_seed(seed, phase) for seed in (-1, 0, 3, 2**40) for phase in range(3)}) == 12


@pytest.mark.parametrize("at", [5, FIRST, 10, TOTAL])
def test_it_goes_on_from_its_checkpoint(legs, fit, whole, variables, at, tmp_path):
    result, snapshots = whole

    def like(phase):
        init = functools.partial(finetune.init_state, legs[phase].recipe, seed=0)
        return jax.eval_shape(init, variables)

    with Checkpoints(tmp_path / "trial") as checkpoints:
        checkpoints.save(Checkpoint(snapshots[at], result.variables))
    with Checkpoints(tmp_path / "trial", warn=pytest.fail) as checkpoints:
        found = checkpoints.newest(like)
    assert (found.step, found.snapshot.phase, found.snapshot.before) == (
        at,
        *snapshots[at][3:],
    )
    chex.assert_trees_all_equal(found.best, result.variables)
    entries = []
    again = fit(legs, start=found.snapshot, on_log=entries.append)
    chex.assert_trees_all_equal(again.variables, result.variables)
    assert [entry[:3] for entry in again.history] == [entry[:3] for entry in result.history]
    assert [entry.step for entry in entries] == [e for e in (5, 7, 10, 13) if e > at]
    assert again.steps == TOTAL


@pytest.mark.parametrize("until", [3, FIRST, 9])
def test_it_is_left_and_gone_on_with_in_any_phase(legs, fit, whole, until):
    snapshots = {}
    part = fit(legs, until=until, on_chunk=lambda at, now: snapshots.update({at: now()}))
    assert part.steps == max(snapshots) == until
    again = fit(legs, start=snapshots[until])
    chex.assert_trees_all_equal(again.variables, whole[0].variables)
    assert [entry[:3] for entry in again.history] == [entry[:3] for entry in whole[0].history]


def test_no_phase_after_a_loss_that_is_not_finite(legs, fit):
    first = legs[0]._replace(hyper=Hyper(1e38, FIRST, 0, 3))
    result = fit([first, legs[1]])
    assert result.diverged
    assert result.steps == result.history[-1].step <= FIRST


@pytest.mark.parametrize(
    "changed", [{"phase": 2}, {"before": 3}, {"phase": 0, "before": 0}, {"phase": 0}]
)
def test_a_snapshot_of_another_training_is_refused(legs, fit, whole, changed):
    start = whole[1][TOTAL]._replace(**changed)
    if changed == {"phase": 0, "before": 0}:
        start = start._replace(state=start.state._replace(step=np.int32(FIRST + 1)))
    with pytest.raises(UserError, match=r"start is .*; expected (one of phases that end after|at)"):
        fit(legs, start=start)
