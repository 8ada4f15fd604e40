"""Criteria that differentiate a loss against gradients and Hessians taken whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError

from ..networks import residual


def loss(v, batch):
    x, y = batch
    return ((residual(v, x) - y) ** 2).mean()


def batch_of(size, seed):
    rng = np.random.default_rng(seed)
    shapes = (size, 3), (size // 2, 2)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def slices_of(v, weights):
    """By group and role, each slice's sum of a number that is given for each weight."""
    assert weights.keys() == v.keys()
    return {
        ("stem", "out"): [weights["stem"].sum(axis=0), weights["two"].sum(axis=0)],
        ("stem", "in"): [
            weights["one"].sum(axis=1),
            weights["head"].reshape(2, 4, 2).sum(axis=(0, 2)),
        ],
        ("one", "out"): [weights["one"].sum(axis=0)],
        ("one", "in"): [weights["two"].sum(axis=1)],
    }


def check(scores, v, weights, role="out", rtol=1e-5):
    expected = slices_of(v, weights)
    for name in ("stem", "one"):
        np.testing.assert_allclose(scores[name], sum(expected[name, role]), rtol=rtol)


@pytest.mark.parametrize("role", ["out", "in"])
def test_taylor_is_the_mean_of_squares_over_batches(groups, variables, role):
    batches = [batch_of(8, 1), batch_of(8, 2), batch_of(4, 3)]
    scores = pruning.score(
        groups, variables, "taylor", roles=(role,), loss=loss, batches=iter(batches)
    )
    changes = [
        jax.tree.map(lambda w, g: np.square(w * g, dtype=np.float64), variables, gradients)
        for gradients in (jax.jit(jax.grad(loss))(variables, batch) for batch in batches)
    ]
    check(scores, variables, jax.tree.map(lambda *found: np.mean(found, axis=0), *changes), role)
    assert all(value.dtype == np.float64 for value in scores.values())


def test_taylor_is_the_change_of_a_linear_loss(groups, variables):
    def linear(v, batch):
        return sum((c * w).sum() for c, w in zip(batch, jax.tree.leaves(v), strict=True))

    slopes = [np.full(w.shape, 2 + i, np.float32) for i, w in enumerate(jax.tree.leaves(variables))]
    scores = pruning.score(groups, variables, "taylor", loss=linear, batches=[slopes])
    changes = {}
    for name, weights in variables.items():
        changes[name] = np.zeros_like(weights)
        for at in np.ndindex(weights.shape):
            without = weights.copy()
            without[at] = 0
            change = linear({**variables, name: without}, slopes) - linear(variables, slopes)
            changes[name][at] = change**2
    check(scores, variables, changes, rtol=1e-3)


def test_hessian_is_exact_where_the_hessian_is_diagonal(groups, variables):
    def bowl(v, batch):
        return sum((c * w**2).sum() for c, w in zip(batch, jax.tree.leaves(v), strict=True)) / 2

    rng = np.random.default_rng(0)
    curvature = [
        rng.normal(size=w.shape).astype(np.float32) for w in jax.tree.leaves(variables)
    ]  # of either sign
    by_name = dict(zip(sorted(variables), curvature, strict=True))
    for seed in (0, 1):
        scores = pruning.score(
            groups, variables, "hessian", loss=bowl, batches=[curvature], seed=seed
        )
        rises = {name: 0.5 * w**2 * by_name[name] for name, w in variables.items()}
        check(scores, variables, rises, rtol=1e-4)


def test_hessian_is_right_on_average(groups, variables):
    batches = [batch_of(8, 1), batch_of(8, 2)]
    scores = pruning.score(groups, variables, "hessian", loss=loss, batches=batches, probes=1500)
    full = jax.jit(jax.hessian(loss))
    rises = {}
    for name, weights in variables.items():
        n = weights.size
        diagonals = [
            np.diagonal(np.reshape(full(variables, batch)[name][name], (n, n))) for batch in batches
        ]
        rises[name] = 0.5 * weights**2 * np.mean(diagonals, axis=0).reshape(weights.shape)
    expected = slices_of(variables, rises)
    for name in groups:
        exact = sum(expected[name, "out"])
        assert np.abs(scores[name] - exact).max() < 0.1 * np.abs(exact).max()


def test_hessian_draws_by_seed(groups, variables):
    score = functools.partial(pruning.score, groups, variables, "hessian", loss=loss, probes=2)
    batch = batch_of(8, 1)
    once, again = score(batches=[batch]), score(batches=[batch])
    twice, seeded = score(batches=[batch] * 2), score(batches=[batch], seed=1)
    for name in groups:
        np.testing.assert_array_equal(once[name], again[name])
        assert (once[name] != twice[name]).any()
        assert (once[name] != seeded[name]).any()


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_a_loss_with_its_own_gradient(groups, variables, criterion):
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))

    def own(v, batch):
        return square(residual(v, batch[0]) - batch[1]).mean()

    batches = [batch_of(8, 1)]
    found = pruning.score(groups, variables, criterion, loss=own, batches=batches)
    expected = pruning.score(groups, variables, criterion, loss=loss, batches=batches)
    for name in groups:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_half_precision_weights_and_other_leaves(groups, variables, criterion):
    half = jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), variables)
    more = {**half, "steps": jnp.array(3), "unused": jnp.ones(2)}
    batches = [batch_of(8, 1)]
    found = pruning.score(groups, more, criterion, loss=loss, batches=batches)
    expected = pruning.score(groups, variables, criterion, loss=loss, batches=batches)
    for name in groups:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], atol=0.1 * scale)


def test_batches_of_one_size_compile_once(groups, variables):
    traces = []

    def counted(v, batch):
        traces.append(batch)
        return loss(v, batch)

    batches = [batch_of(8, i) for i in range(4)]
    pruning.score(groups, variables, "taylor", loss=counted, batches=batches)
    assert len(traces) == 1


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_weights_on_several_devices(groups, variables, criterion):
    auto = jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((jax.device_count(),), ("x",), axis_types=(auto,))
    spec = jax.NamedSharding(mesh, jax.P(None, "x"))
    shards = jax.device_put(variables, spec)
    batches = [batch_of(8, 1)]
    found = pruning.score(groups, shards, criterion, loss=loss, batches=batches)
    expected = pruning.score(groups, variables, criterion, loss=loss, batches=batches)
    for name in groups:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda v, batch: residual(v, batch[0]).mean(axis=0),
            "loss returns .*float32.*, expected one",
        ),
        (lambda v, batch: (loss(v, batch), {}), "loss returns .*, expected one number"),
        (lambda v, batch: loss(v, batch).astype(int), "loss returns .*int32.*, expected one"),
        (lambda v, batch: None, "loss returns None, expected one number"),
        (lambda v, batch: loss(v, batch) / 0, "loss is inf for batch 0, expected a finite number"),
    ],
)
def test_losses_that_can_not_be_used(groups, variables, criterion, wrong, message):
    with pytest.raises(UserError, match=message):
        pruning.score(groups, variables, criterion, loss=wrong, batches=[batch_of(8, 1)])


def test_gradients_that_are_not_finite(groups, variables):
    def steep(v, batch):
        return jnp.sqrt(jnp.abs(v["two"] * 0).sum()) + loss(v, batch)

    with pytest.raises(UserError, match="two has gradients that are NaN or infinite"):
        pruning.score(groups, variables, "taylor", loss=steep, batches=[batch_of(8, 1)])


def test_the_batch_that_makes_the_loss_nan_is_named(groups, variables):
    bad = batch_of(8, 1)
    bad[1][0, 0] = np.nan
    batches = [batch_of(8, 0), batch_of(8, 1), bad]
    with pytest.raises(UserError, match="loss is nan for batch 2"):
        pruning.score(groups, variables, "taylor", loss=loss, batches=batches)


def test_integer_weights_can_not_be_differentiated(groups, variables):
    quantised = {**variables, "two": np.ones((6, 4), np.int8)}
    with pytest.raises(UserError, match="two is int8, expected floating point"):
        pruning.score(groups, quantised, "taylor", loss=loss, batches=[batch_of(8, 1)])


def test_flops_are_those_of_forward_and_backward(variables, groups):
    """Of a batch of 8 rows: the head's own gradient is not computed, nor that of the input."""
    stem, one, two, head = 8 * 3 * 4, 8 * 4 * 6, 8 * 6 * 4, 4 * 8 * 2
    forward = stem + one + two + head
    of_weights, of_inputs = stem + one + two, one + two + head
    batch = jax.eval_shape(lambda: batch_of(8, 0))
    count = functools.partial(pruning.score_flops, groups, variables, batch=batch, loss=loss)
    assert count("taylor") == 2 * (forward + of_weights + of_inputs)
    assert count("hessian", probes=3) > 3 * count("taylor")
    assert pruning.score_flops(groups, variables, "l2", batch) == 0
