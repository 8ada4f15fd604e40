"""Phases: what is frozen stays to the bit, what is trained moves as it should, at its cost."""

import fnmatch
import functools
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctl_jax import compute, finetune, models
from ctl_jax.errors import UserError
from ctl_jax.finetune import Augmentation, Hyper, Phase, Recipe, phases
from ctl_jax.trees import leaf_paths

SIZE, BATCH, WIDTH, CLASSES = 8, 4, 8, 3
PLAIN = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)
MODULE = models.create("resnet18", 1, stages=(1, 1), width=WIDTH, stem="cifar")
ABOVE = ("stage2*", "head/*")
PHASES = {
    "all": Phase(),
    "all, statistics frozen": Phase(batch_norm="frozen"),
    "probe": Phase(("head/*",), "frozen"),
    "head": Phase(("head/*",)),
    "head and bn": Phase(("head/*", "*bn*/*")),
    "stage 2": Phase(ABOVE),
    "stage 2, statistics frozen": Phase(ABOVE, "frozen"),
    "scales": Phase(("*/scale",)),
    "the first layer": Phase(("stem_conv/*",)),
    "one array": Phase(("stage1_block1/conv2/kernel",)),
}


@pytest.fixture(scope="module")
def variables():
    """Every array random."""
    headed = models.with_head(models.init(MODULE, jax.random.key(0), SIZE), CLASSES)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + rng.uniform(0.1, 0.4, leaf.shape), jnp.float32), headed
    )


@pytest.fixture(scope="module")
def split():
    labels = np.arange(24, dtype=np.int32) % CLASSES
    noise = np.random.default_rng(0).integers(0, 40, (24, SIZE, SIZE, 3))
    return (noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels


def recipe_of(phase):
    return Recipe("nevis", PLAIN, phase=phase)


def matches(phase, path):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in phase.train)


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_parts_are_the_whole(phase, variables):
    params = variables["params"]
    trained, frozen = phases.partition(phase, params)
    paths = [path for path, _ in leaf_paths(params)]
    assert [p for p, _ in leaf_paths(trained)] == [p for p in paths if matches(phase, p)]
    assert [p for p, _ in leaf_paths(frozen)] == [p for p in paths if not matches(phase, p)]
    merged = phases.merge(trained, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a is b, merged, params)))


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_which_layers_normalise_by_the_batch(phase, variables):
    chosen = phases.by_batch(phase, variables)
    layers = {path.rpartition("/")[0] for path, _ in leaf_paths(variables["batch_stats"])}
    expected = {
        path.rpartition("/")[0]
        for path, _ in leaf_paths(variables["params"])
        if matches(phase, path) and phase.batch_norm == "batch"
    }
    assert {p for p in layers if (chosen(p) if callable(chosen) else chosen)} == layers & expected
    hash(chosen)
    assert chosen == phases.by_batch(phase, jax.tree.map(jnp.zeros_like, variables))


def test_layers_without_a_parameter_go_by_their_statistics():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for name in ("one_bn", "two_bn"):
                norm = nn.BatchNorm(True, use_bias=False, use_scale=False, name=name)
                x = norm(nn.Dense(3, name=name[:4])(x))
            return x

    variables = Net().init(jax.random.key(0), jnp.ones((2, 3)))
    assert phases.by_batch(Phase(), variables) is True
    assert phases.by_batch(Phase(("one_*",)), variables) == phases.Layers(frozenset({"one_bn"}))
    assert phases.by_batch(Phase(("two_/*",)), variables) is False


@functools.partial(jax.jit, static_argnums=0)
def full_gradient_step(phase, variables, images, labels, rate):
    """What an update of everything would be, made with the trained parameters alone."""
    x = models.PREPROCESS["nevis"](jnp.asarray(images))
    chosen = phases.by_batch(phase, variables)

    def loss_fn(params):
        out = models.apply(MODULE, {**variables, "params": params}, x, train=chosen)
        logits, statistics = out if chosen is not False else (out, None)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), statistics

    gradients, statistics = jax.grad(loss_fn, has_aux=True)(variables["params"])

    def update(path, p, g):
        name = "/".join(key.key for key in path)
        decay = 1e-4 if name.endswith("kernel") else 0.0
        # The first step of Nesterov's momentum of 0.9.
        return p - rate * 1.9 * (g + decay * p) if matches(phase, name) else p

    params = jax.tree_util.tree_map_with_path(update, variables["params"], gradients)
    return {"params": params, "batch_stats": statistics or variables["batch_stats"]}


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_a_step_moves_what_is_trained_and_nothing_else(phase, variables, split):
    images, labels = split[0][:BATCH], split[1][:BATCH]
    recipe = recipe_of(phase)
    state = finetune.init_state(recipe, variables, 0)
    step = functools.partial(finetune.train_step, MODULE, recipe)
    step = jax.jit(step)
    hyper = Hyper(0.05, 1, 0, CLASSES)
    state, _ = step(state, images, labels, hyper)
    after = {"params": state.params, "batch_stats": state.batch_stats}
    expected = full_gradient_step(phase, variables, images, labels, 0.05)
    chex.assert_trees_all_close(after, expected, rtol=2e-5, atol=2e-6)
    # More steps, at other statistics.
    state, _ = step(state, images, labels, hyper._replace(total_steps=9))
    assert [path for path, _ in leaf_paths(state.opt_state)] == [
        path for path, _ in leaf_paths(finetune.init_state(recipe, variables, 0).opt_state)
    ]
    trained, _ = phases.partition(phase, variables["params"])
    assert len(jax.tree.leaves(state.opt_state)) == len(jax.tree.leaves(trained))
    chosen = phases.by_batch(phase, variables)
    for path, leaf in leaf_paths(state.params):
        before = dict(leaf_paths(variables["params"]))[path]
        assert np.array_equal(leaf, before) != matches(phase, path), path
    for path, leaf in leaf_paths(state.batch_stats):
        layer = path.rpartition("/")[0]
        before = dict(leaf_paths(variables["batch_stats"]))[path]
        moves = chosen(layer) if callable(chosen) else chosen
        assert np.array_equal(leaf, before) != moves, path


@pytest.mark.parametrize(
    "phase",
    [Phase(batch_norm="frozen"), Phase(("head/*",), "frozen", lora=2)],
    ids=["all", "lora"],
)
def test_a_training_with_frozen_statistics_starts_where_it_was(phase, variables, split):
    """As after a probe on taps: the first loss is that of its logits."""
    images, labels = split[0][:BATCH], split[1][:BATCH]
    headed = models.new_head(MODULE, variables, CLASSES, SIZE, "taps")
    fitted = np.random.default_rng(1).normal(size=headed["params"]["head"]["kernel"].shape)
    headed = models.set_head(headed, {**headed["params"]["head"], "kernel": np.float32(fitted)})
    recipe = recipe_of(phase)
    state = finetune.init_state(recipe, headed, 0)
    chex.assert_trees_all_equal(state.variables, headed)
    step = jax.jit(functools.partial(finetune.train_step, MODULE, recipe))
    after, metrics = step(state, images, labels, Hyper(0.05, 2, 0, CLASSES))
    x = models.PREPROCESS["nevis"](jnp.asarray(images))
    logits = jax.jit(functools.partial(models.apply, MODULE))(headed, x)
    expected = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    assert float(metrics.loss) == pytest.approx(float(expected), rel=1e-5)
    assert np.any(after.params["head"]["kernel"] != headed["params"]["head"]["kernel"])


# Multiply-adds of a batch, twice, of each layer with a kernel.
LAYERS = {
    "stem": 2 * BATCH * 64 * 9 * 3 * WIDTH,
    "stage1": 2 * 2 * BATCH * 64 * 9 * WIDTH * WIDTH,
    "first": 2 * BATCH * 16 * (9 + 1) * WIDTH * 2 * WIDTH,  # conv1 and the projection of stage 2
    "second": 2 * BATCH * 16 * 9 * 4 * WIDTH * WIDTH,
    "head": 2 * BATCH * 2 * WIDTH * CLASSES,
}
FORWARD = sum(LAYERS.values())
STEM, STAGE1, FIRST, SECOND, HEAD = LAYERS.values()


@pytest.mark.parametrize(
    ("name", "backward"),
    [
        # Two gradients a layer, but for the one of the images.
        ("all", 2 * FORWARD - STEM),
        ("all, statistics frozen", 2 * FORWARD - STEM),
        ("probe", HEAD),
        ("head", HEAD),
        # Only what leads down to the lowest normalisation, and the weights of the head.
        ("head and bn", STAGE1 + FIRST + SECOND + 2 * HEAD),
        ("scales", STAGE1 + FIRST + SECOND + HEAD),
        ("stage 2", FIRST + 2 * SECOND + 2 * HEAD),
        ("stage 2, statistics frozen", FIRST + 2 * SECOND + 2 * HEAD),
        ("the first layer", STAGE1 + FIRST + SECOND + HEAD + STEM),
        ("one array", STAGE1 // 2 + FIRST + SECOND + HEAD),
    ],
)
def test_flops_are_those_of_its_own_program(name, backward, variables):
    recipe = recipe_of(PHASES[name])
    state = jax.eval_shape(functools.partial(finetune.init_state, recipe, seed=0), variables)
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    step = functools.partial(finetune.train_step, MODULE, recipe)
    assert compute.flops(step, state, images, labels, Hyper(0.1, 1, 0, CLASSES)) == (
        FORWARD + backward
    )


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("haed/*", r"train: 'haed/*' matches none of the 20 parameters; the nearest are 'head/"),
        ("stage3*", r"train: 'stage3*' matches none of the 20 parameters; the nearest are 'stage"),
        ("HEAD/*", r"train: 'HEAD/*' matches none of the 20 parameters; the nearest are "),
        ("head", r"train: 'head' matches none of the 20 parameters; the nearest are 'head/"),
    ],
)
def test_a_pattern_that_matches_nothing(pattern, said, variables):
    recipe = recipe_of(Phase(("head/*", pattern)))
    with pytest.raises(UserError, match=re.escape(said)):
        finetune.init_state(recipe, variables, 0)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("train", "head/*", "train is 'head/*'; expected a tuple of patterns, at least one"),
        ("train", (), "train is (); expected a tuple of patterns, at least one"),
        ("train", (1,), "train is (1,); expected a tuple of patterns, at least one"),
        ("batch_norm", "eval", "batch_norm is 'eval'; expected 'batch' or 'frozen'"),
        ("share", 0.0, "share is 0.0; expected a number above 0, at most 1"),
        ("share", 1.5, "share is 1.5; expected a number above 0, at most 1"),
        ("rate", -1.0, "rate is -1.0; expected a finite positive number"),
        ("rate", float("inf"), "rate is inf; expected a finite positive number"),
    ],
)
def test_what_a_phase_can_not_be(field, value, said):
    with pytest.raises(UserError, match=re.escape(said)):
        Phase(**{field: value})
