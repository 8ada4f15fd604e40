"""What a recipe may add to a step: averages, a pull to the start, mixtures of images.

The step itself is tested with the loop around it.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctl_jax import finetune, models
from ctl_jax.finetune import Augmentation, Hyper, Leg, Phase, _loop
from ctl_jax.finetune._augment import mix
from ctl_jax.finetune.checkpoints import Checkpoint, pack, unpack
from ctl_jax.finetune.step import average_weights
from ctl_jax.trees import leaf_paths

STEPS = 7


@pytest.fixture(scope="module")
def averaged(module, recipe):
    """A step with an average whose decay counts from the fourth update on, and labels smoothed."""
    changed = dataclasses.replace(recipe, ema=0.3, smooths=True)
    return finetune.make_step(module, changed), changed


@pytest.fixture(scope="module")
def fit(averaged, variables, split):
    step, recipe = averaged

    def run(**options):
        hyper = finetune.Hyper(0.1, STEPS, 2, 3, label_smoothing=0.1)
        leg = finetune.Leg(step, recipe, hyper)
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


PULL, DECAY, RATE = 0.3, 0.01, 0.1
PLAIN = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)


def compiled(module, recipe):
    step = functools.partial(finetune.train_step, module, recipe)
    return jax.jit(step)


def test_kernels_are_pulled_to_their_start_and_the_head_to_zero(module, recipe, variables, split):
    plain = dataclasses.replace(recipe, weight_decay=DECAY)
    pulling = dataclasses.replace(plain, phase=Phase(to_start=PULL))
    moved = jax.tree.map(lambda leaf: leaf + 0.5, variables["params"])
    args = split[0][:8], split[1][:8], Hyper(RATE, 1, 0, 3)
    states = [finetune.init_state(each, variables, 0) for each in (plain, pulling)]
    (one, _), (other, _) = (
        compiled(module, each)(state._replace(params=moved), *args)
        for each, state in zip((plain, pulling), states, strict=True)
    )
    chex.assert_trees_all_equal(other.start, states[1].start)

    def expected(path, after, before):
        if path[-1].key != "kernel" or path[0].key == "head":
            return after
        # The first step of Nesterov's momentum of 0.9; the start is 0.5 away.
        return after - RATE * 1.9 * (PULL * 0.5 - DECAY * before)

    expected = jax.tree_util.tree_map_with_path(expected, one.params, moved)
    chex.assert_trees_all_close(other.params, expected, rtol=1e-5, atol=1e-6)


def test_kernels_are_pulled_to_where_the_whole_training_began(module, recipe, variables):
    pulling = dataclasses.replace(recipe, phase=Phase(to_start=PULL))
    leg = Leg(finetune.make_step(module, pulling), pulling, Hyper(RATE, 2, 0, 3))
    now = jax.tree.map(lambda leaf: leaf + 1, variables)
    state = _loop._first_state(leg, now, 0, None, variables)
    for found, kernel in zip(
        jax.tree.leaves(state.start),
        [leaf for path, leaf in leaf_paths(variables["params"]) if path.endswith("/kernel")][1:],
        strict=True,
    ):
        chex.assert_trees_all_equal(found, kernel)
    # It is known from the variables, and is in no checkpoint.
    snapshot = _loop._snapshot(state, (), 0.0, 1, 2)
    assert snapshot.state.start is None
    content, meta = pack(Checkpoint(snapshot))
    saved = unpack(content, meta, lambda phase: state).snapshot
    again = _loop._first_state(leg, now, 0, saved, variables)
    chex.assert_trees_all_equal(again._replace(key=0), state._replace(key=0))


def test_the_head_may_have_a_rate_of_its_own(module, recipe, variables, split):
    two = dataclasses.replace(recipe, phase=Phase(("head/*", "*/conv2/kernel"), "frozen"))
    kernel = variables["params"]["head"]["kernel"]
    variables = models.set_head(variables, {"kernel": kernel + 0.1, "bias": kernel[0]})
    state, step = finetune.init_state(two, variables, 0), compiled(module, two)

    def moved(head_rate):
        hyper = Hyper(RATE, 1, 0, 3, head_rate)
        after, _ = step(state, split[0][:8], split[1][:8], hyper)
        return jax.tree.map(lambda new, old: new - old, after.params, variables["params"])

    whole, tenth = moved(1.0), moved(0.1)
    expected = whole | {"head": jax.tree.map(lambda leaf: 0.1 * leaf, whole["head"])}
    chex.assert_trees_all_close(tenth, expected, atol=1e-6)
    assert np.abs(whole["head"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_of_mixed_images_is_that_of_both_labels(
    multi_label, module, recipe, variables, split
):
    mixing = dataclasses.replace(
        recipe, mixup=0.4, augmentation=PLAIN, smooths=True, phase=Phase(("head/*",))
    )
    images, labels = split[0][:8], np.array([0, 2, 1, 1, 0, 2, 2, 1], np.int32)
    targets = np.eye(3, dtype=np.uint8)[labels]
    kernel = jnp.ones_like(variables["params"]["head"]["kernel"])
    head = {"kernel": kernel * np.arange(kernel.shape[1])[None], "bias": kernel[0]}
    params = {**variables["params"], "head": head}
    state = finetune.init_state(mixing, {**variables, "params": params}, 0)
    given = finetune.pad_labels(targets, kernel.shape[1]) if multi_label else labels
    hyper = Hyper(RATE, 1, 0, 3, label_smoothing=0.1)
    _, metrics = compiled(module, mixing)(state, images, given, hyper)
    x = models.PREPROCESS["nevis"](images.astype(np.float32))
    mixed, share = mix(jax.random.fold_in(state.key, 0), x, 0.4)
    logits = models.apply(module, state.variables, mixed)[:, :3]
    if multi_label:
        smooth = targets * 0.9 + 0.05
        both = share * smooth + (1 - share) * np.roll(smooth, 1, 0)
        expected = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, both))
    else:
        smooth = optax.smooth_labels(jnp.asarray(targets, jnp.float32), 0.1)
        both = share * smooth + (1 - share) * jnp.roll(smooth, 1, 0)
        expected = jnp.mean(optax.softmax_cross_entropy(logits, both))
    assert 0.01 < share < 0.99
    assert float(metrics.loss) == pytest.approx(float(expected), rel=1e-4)


def test_long_gradients_are_shortened(module, recipe, variables, split):
    """The first update is as long as the limit allows, in the same direction."""
    plain = dataclasses.replace(recipe, weight_decay=0.0)
    clipping = dataclasses.replace(plain, phase=Phase(clip=1e-3))
    args = split[0][:8], split[1][:8], Hyper(RATE, 1, 0, 3)
    states = [finetune.init_state(each, variables, 0) for each in (plain, clipping)]
    (one, _), (other, _) = (
        compiled(module, each)(state, *args)
        for each, state in zip((plain, clipping), states, strict=True)
    )
    moves = [
        jax.tree.map(lambda new, old: new - old, state.params, variables["params"])
        for state in (one, other)
    ]
    lengths = [float(optax.tree.norm(move)) for move in moves]
    # The first step of Nesterov's momentum of 0.9.
    assert lengths[1] == pytest.approx(RATE * 1.9 * 1e-3, rel=1e-2)
    assert lengths[1] < lengths[0]
    shortened = jax.tree.map(lambda leaf: leaf * (lengths[1] / lengths[0]), moves[0])
    chex.assert_trees_all_close(moves[1], shortened, atol=1e-3 * lengths[1])
