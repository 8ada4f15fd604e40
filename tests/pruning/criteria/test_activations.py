"""Means where channels are read, against the activations computed by hand."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, models, pruning
from ctl_jax.errors import UserError

from ..networks import hidden, residual


def inputs_of(size, seed):
    return np.random.default_rng(seed).normal(size=(size, 3)).astype(np.float32)


def expected_of(variables, x):
    stem, inside, stream = (np.abs(a).mean(axis=0) for a in hidden(variables, x))
    return {"stem": stem + stream, "one": inside}


def near(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_mean_over_examples_whatever_their_batches(groups, variables):
    x = inputs_of(16, 1)
    expected = expected_of(variables, x)
    for batches in ([x], [x[:6], x[6:10], x[10:]], iter(jnp.split(x, 4))):
        near(pruning.score(groups, variables, "activation", batches=batches), expected)


def test_flops_are_those_of_a_forward_pass(groups, variables):
    x = jax.ShapeDtypeStruct((16, 3), jnp.float32)
    found = pruning.score_flops(groups, jax.eval_shape(lambda: variables), "activation", x)
    assert found == compute.flops(residual, variables, x)


def test_readings_are_aggregated_as_slices_are(groups, variables):
    x = inputs_of(8, 1)
    stem, _, stream = (np.abs(a).mean(axis=0) for a in hidden(variables, x))
    for aggregate, expected in (("max", np.maximum(stem, stream)), ("first", stem)):
        found = pruning.score(groups, variables, "activation", batches=[x], aggregate=aggregate)
        np.testing.assert_allclose(found["stem"], expected, rtol=1e-5)


# Every form of call, and loops before the products, whose equations count.
@jax.custom_jvp
def by_jvp(x, w):
    return x @ w


@by_jvp.defjvp
def _(primals, tangents):
    raise NotImplementedError


@jax.custom_vjp
def by_vjp(x, w):
    return jnp.sin(x) @ w


by_vjp.defvjp(lambda x, w: NotImplemented, lambda *_: NotImplemented)


def nested(v, x):
    x = jax.lax.scan(lambda c, _: (jnp.sin(c) + 1, None), x, None, length=3)[0]
    x = jax.lax.while_loop(lambda c: c.sum() < 0, lambda c: jnp.cos(c) + c, x)
    x = jax.lax.cond(x.sum() > 0, lambda c: c + 1, lambda c: jnp.sin(c) * 2, x)
    x = jax.nn.relu(jax.jit(lambda x: jnp.tanh(jax.nn.silu(x) @ v["stem"]))(x))
    x = jax.checkpoint(lambda x: jax.nn.gelu(by_jvp(x, v["one"])))(x)
    x = jax.jit(jax.checkpoint(lambda x: by_vjp(x, v["two"])))(x)
    return x @ v["last"]


def test_readings_inside_of_calls_and_after_loops():
    rng = np.random.default_rng(0)
    shapes = {"stem": (3, 4), "one": (4, 6), "two": (6, 5), "last": (5, 2)}
    v = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    x = inputs_of(16, 1)
    groups = pruning.trace(nested, v, x)
    assert [reading.group for reading in groups.readings] == ["stem", "one", "two"]
    before = nested({**v, "last": np.eye(5, dtype=np.float32)}, x)
    two = np.abs(before).mean(axis=0)
    y = x
    for _ in range(3):
        y = np.sin(y) + 1
    assert y.sum() > 0
    stem = jax.nn.relu(jnp.tanh(jax.nn.silu(y + 1) @ v["stem"]))
    one = jnp.sin(jax.nn.gelu(stem @ v["one"]))
    expected = {
        "stem": np.abs(stem).mean(axis=0),
        "one": np.abs(one).mean(axis=0),
        "two": two,
    }
    near(pruning.score(groups, v, "activation", batches=[x]), expected)


class Net(nn.Module):
    """Convolutions, one of which reads a concatenation, and a dense layer on flattened maps."""

    @nn.compact
    def __call__(self, x):
        left = nn.relu(nn.Conv(6, (3, 3), name="left")(x))
        right = nn.relu(nn.Conv(4, (3, 3), name="right")(x))
        both = jnp.concatenate([left, right], axis=-1)
        self.sow("seen", "first", both)
        mixed = nn.relu(nn.Conv(5, (1, 1), name="mixed")(both))
        self.sow("seen", "second", mixed)
        return nn.Dense(3, name="head")(mixed.reshape(len(x), -1))


def test_linen_concatenation_and_flattened_maps():
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)
    net = Net()
    v = {"params": net.init(jax.random.key(0), x)["params"]}
    groups = pruning.trace(functools.partial(models.apply_pruned, net), v, x)
    found = pruning.score(groups, v, "activation", batches=[x])
    seen = net.apply(v, x, mutable=["seen"])[1]["seen"]
    both, mixed = (np.abs(seen[name][0]).mean(axis=(0, 1, 2)) for name in ("first", "second"))
    expected = {"left": both[:6], "right": both[6:], "mixed": mixed}
    near(found, {f"params/{name}/kernel": value for name, value in expected.items()})


def test_several_inputs(variables):
    def scaled(v, x, scale):
        return residual(v, scale["by"] * x)

    x = inputs_of(8, 1)
    by = np.float32(0.5)
    groups = pruning.trace(scaled, variables, x, {"by": by})
    found = pruning.score(groups, variables, "activation", batches=[(x, {"by": by})])
    near(found, expected_of(variables, by * x))
    with pytest.raises(UserError, match="a batch is a ndarray, expected a tuple of the 2 inputs"):
        pruning.score(groups, variables, "activation", batches=[x])
    with pytest.raises(UserError, match="a batch is a tuple of 1, expected a tuple of the 2"):
        pruning.score(groups, variables, "activation", batches=[(x,)])


def test_an_input_that_is_a_tuple(variables):
    def pair(v, x):
        return residual(v, x[0] + x[1])

    x = inputs_of(8, 1)
    groups = pruning.trace(pair, variables, (x, x))
    found = pruning.score(groups, variables, "activation", batches=[(x, x)])
    near(found, expected_of(variables, x + x))


def test_half_precision_and_other_shapes_than_traced(groups, variables):
    half = jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), variables)
    x = inputs_of(32, 1)
    found = pruning.score(groups, half, "activation", batches=[jnp.asarray(x, jnp.bfloat16)])
    for name, value in expected_of(variables, x).items():
        np.testing.assert_allclose(found[name], value, rtol=0.05)


def test_the_function_may_be_given(groups, variables):
    x = inputs_of(8, 1)
    bare = dataclasses.replace(groups, apply_fn=None)
    found = pruning.score(bare, variables, "activation", batches=[x], apply_fn=residual)
    near(found, expected_of(variables, x))
    with pytest.raises(UserError, match="apply_fn is None, expected the function"):
        pruning.score(bare, variables, "activation", batches=[x])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda v, x: residual(v, jnp.sin(x)), "equation 2 of apply_fn is tanh of float32"),
        (lambda v, x: x @ v["stem"], "apply_fn has no equation 2 outside of loops"),
        (
            lambda v, x: jnp.tanh(x @ np.ones((3, 5), np.float32)) @ np.ones((5, 2), np.float32),
            r"equation 2 of apply_fn is dot_general of float32\[8,5\].*reads group 'stem'",
        ),
    ],
)
def test_another_function_than_was_traced(groups, variables, other, message):
    with pytest.raises(UserError, match=message):
        pruning.score(groups, variables, "activation", batches=[inputs_of(8, 1)], apply_fn=other)


def test_a_group_that_is_read_in_a_loop_alone():
    def looped(v, x):
        x = x @ v["stem"]
        step = lambda total, row: (total + (row @ v["one"]).sum(), None)  # noqa: E731
        return jax.lax.scan(step, 0.0, x)[0]

    rng = np.random.default_rng(0)
    v = {"stem": rng.normal(size=(3, 4)), "one": rng.normal(size=(4, 2))}
    v = jax.tree.map(lambda w: w.astype(np.float32), v)
    groups = pruning.trace(looped, v, inputs_of(8, 1))
    assert not groups.readings
    with pytest.raises(UserError, match="group 'stem' is read by no convolution or matrix product"):
        pruning.score(groups, v, "activation", batches=[inputs_of(8, 1)])


def test_activations_that_are_not_finite(groups, variables):
    x = inputs_of(8, 1)
    x[0, 0] = np.nan
    with pytest.raises(UserError, match="activations of group 'stem' are NaN or infinite"):
        pruning.score(groups, variables, "activation", batches=[x])
