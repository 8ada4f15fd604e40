"""What reads a cut group is corrected by least squares, from what is left."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ctl_jax import models, pruning
from ctl_jax.errors import UserError


def mlp(v, x):
    return jax.nn.relu(x @ v["a"]) @ v["b"]


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=size).astype(np.float32) for name, size in WIDTHS.items()}


WIDTHS = {"a": (5, 8), "b": (8, 3)}
X = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
KEPT = np.array([0, 2, 3, 6])


def halved(groups, kept=KEPT):
    (name,) = groups
    return pruning.Keep({name: kept}, groups.layout)


def test_what_the_rest_tells_is_not_lost(weights):
    """The channels that go are multiples of some that stay."""
    weights["a"][:, [1, 4, 5, 7]] = weights["a"][:, KEPT] * np.float32([2, 0.5, 3, 1])
    groups = pruning.trace(mlp, weights, X)
    keep = halved(groups)
    found = pruning.correct(groups, weights, keep, [X], ridge=1e-7)
    small = pruning.prune(found.variables, groups, keep)
    assert small["a"].shape == (5, 4)
    chex.assert_trees_all_close(mlp(small, X), mlp(weights, X), rtol=1e-4, atol=1e-4)
    assert np.abs(mlp(pruning.prune(weights, groups, keep), X) - mlp(weights, X)).max() > 1


@pytest.mark.parametrize("batches", [[X], [X[:20], X[20:]]])
def test_it_is_the_ridge_regression_of_the_outputs(weights, batches):
    groups = pruning.trace(mlp, weights, X[:2])
    keep = halved(groups)
    found = pruning.correct(groups, weights, keep, batches, ridge=0.1)
    h = np.maximum(X.astype(np.float64) @ weights["a"], 0)
    stays, target = h[:, KEPT], h @ weights["b"]
    # Towards the kernel as it is: rows of the penalty beside those of the data.
    held = np.sqrt(0.1 * (stays**2).mean() * len(X)) * np.eye(4)
    expected, *_ = np.linalg.lstsq(
        np.concatenate([stays, held]),
        np.concatenate([target, held @ weights["b"][KEPT]]),
        rcond=None,
    )
    chex.assert_trees_all_close(found.variables["b"][KEPT], np.float32(expected), rtol=1e-4)
    assert found.paths == ("b",)
    assert found.variables["a"] is weights["a"]


def strided(v, x):
    """A 1 x 1 convolution that passes over three of four places."""
    x = jax.nn.relu(lax.conv_general_dilated(x, v["a"], (1, 1), "SAME", dimension_numbers=HWC))
    return lax.conv_general_dilated(x, v["b"], (2, 2), "VALID", dimension_numbers=HWC)


def heads(v, x):
    """A product that sums over two axes of its kernel, of which one is cut."""
    return jnp.einsum("bhd,hdo->bo", jnp.tanh(jnp.einsum("bi,ihd->bhd", x, v["a"])), v["b"])


HWC = ("NHWC", "HWIO", "NHWC")
READERS = {
    "strided": (strided, {"a": (3, 3, 2, 8), "b": (1, 1, 8, 4)}, (12, 6, 6, 2)),
    "heads": (heads, {"a": (6, 4, 3), "b": (4, 3, 2)}, (60, 6)),
    "kernel first": (
        lambda v, x: lax.dot_general(v["b"], jnp.sin(x @ v["a"]), (((0,), (1,)), ((), ()))),
        WIDTHS,
        (40, 5),
    ),
}


@pytest.mark.parametrize("case", READERS)
def test_no_other_kernel_of_what_stays_is_nearer(case):
    """The outputs' error cannot be made less on the same data, by any change of the reader."""
    function, shapes, size = READERS[case]
    rng = np.random.default_rng(0)
    weights = {
        name: jnp.asarray(rng.normal(size=each), jnp.float32) for name, each in shapes.items()
    }
    x = jnp.asarray(rng.normal(size=size), jnp.float32)
    groups = pruning.trace(function, weights, x)
    keep = pruning.select(groups, pruning.score(groups, weights), ratio=0.5, scope="channels")
    found = pruning.correct(groups, weights, keep, [x], ridge=1e-8)
    assert found.paths == ("b",)
    small = pruning.prune(found.variables, groups, keep)

    def error(b):
        return jnp.mean((function({**small, "b": b}, x) - function(weights, x)) ** 2)

    value, gradient = jax.value_and_grad(error)(small["b"])
    assert value < 0.9 * error(pruning.prune(weights, groups, keep)["b"])
    assert np.abs(gradient).max() < 1e-3 * value


FAMILIES = {
    "resnet18": {"stages": (1, 1), "stem": "cifar", "width": 16},
    "resnet50": {"stages": (1,), "stem": "cifar", "width": 8},
    "vit_s16": {"heads": 2, "depth": 1, "head_width": 8, "patch": 4},
    "mobilenet_v2": {"stages": (1, 1)},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_other_images_are_nearer(name):
    module = models.create(name, 10, **FAMILIES[name])
    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), 8))
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        scale = 1 / np.sqrt(max(1, leaf.size // leaf.shape[-1])) if leaf.ndim > 1 else 0
        return np.float32(rng.normal(0, scale, leaf.shape) + (path[-1].key in ("scale", "var")))

    variables = jax.tree_util.tree_map_with_path(fill, shapes)
    apply = functools.partial(models.apply, module)
    images, others = np.float32(rng.normal(size=(2, 24, 8, 8, 3)))
    groups = pruning.trace(apply, variables, images)
    keep = pruning.select(groups, pruning.score(groups, variables), ratio=0.5, scope="channels")
    found = pruning.correct(groups, variables, keep, [images])
    evaluate = jax.jit(apply)
    full = evaluate(variables, others)
    before, after = (
        np.abs(evaluate(pruning.prune(tree, groups, keep), others) - full).mean()
        for tree in (variables, found.variables)
    )
    assert after < 0.7 * before
    assert found.notes == ()


def test_what_reads_few_channels_stays(weights):
    """A convolution in groups; its kernel says so in the notes."""

    def grouped(v, x):
        x = lax.conv_general_dilated(x, v["a"], (1, 1), "SAME", dimension_numbers=HWC)
        return lax.conv_general_dilated(
            x, v["b"], (1, 1), "SAME", dimension_numbers=HWC, feature_group_count=2
        ).sum((1, 2))

    shapes = {"a": (1, 1, 3, 8), "b": (1, 1, 4, 6)}
    weights = {name: jnp.ones(shape) for name, shape in shapes.items()}
    x = jnp.ones((2, 4, 4, 3))
    groups = pruning.trace(grouped, weights, x)
    keep = pruning.select(groups, pruning.score(groups, weights), ratio=0.5, scope="channels")
    found = pruning.correct(groups, weights, keep, [x])
    assert found.paths == ()
    assert found.variables["b"] is weights["b"]
    assert "not corrected" in found.notes[0]


def test_where_nothing_is_cut_nothing_is_corrected(weights):
    groups = pruning.trace(mlp, weights, X)
    found = pruning.correct(groups, weights, halved(groups, np.arange(8)), [X])
    assert (found.paths, found.notes) == ((), ())
    assert found.variables["b"] is weights["b"]


def test_its_flops_are_known_without_weights(weights):
    abstract = jax.eval_shape(lambda: weights)
    groups = pruning.trace(mlp, abstract, X)
    forward = 2 * 40 * 5 * 8 + 2 * 40 * 8 * 3
    products = 2 * 40 * 4 * 8
    solutions = 2 * 4**3 // 3 + 2 * 4 * 4 * (4 + 3)
    found = pruning.correction_flops(groups, abstract, halved(groups), X)
    assert found == (forward + products, solutions)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "batches holds no batch"),
        ([np.where(X > 2, np.inf, X)], "b reads NaN or infinite"),
    ],
)
def test_bad_batches(weights, batches, message):
    groups = pruning.trace(mlp, weights, X)
    with pytest.raises(UserError, match=message):
        pruning.correct(groups, weights, halved(groups), batches)


def test_a_function_that_is_another_one_on_these_inputs(weights):
    def odd(v, x):
        return mlp(v, x if x.shape[0] > 1 else jnp.sin(jnp.cos(x)))

    groups = pruning.trace(odd, weights, X)
    with pytest.raises(UserError, match="expected the product that it is as traced"):
        pruning.correct(groups, weights, halved(groups), [X[:1]])
