"""Every criterion that needs no data against plain loops over the channels' slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning


def apply(v, x):
    x = jnp.tanh(x @ v["stem"]) * v["norm"]["scale"][None] + v["norm"]["bias"][None]
    x = x + jnp.tanh(x @ v["one"]) @ v["two"]
    return (x * v["gain"]["weight"][None]) @ v["head"]


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    shapes = {
        "stem": (3, 4),
        "norm": {"scale": (4,), "bias": (4,)},
        "one": (4, 6),
        "two": (6, 4),
        "gain": {"weight": (4,)},
        "head": (4, 2),
    }
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


@pytest.fixture(scope="module")
def groups(variables):
    return pruning.trace(apply, variables, np.ones((2, 3), np.float32))


def produced(v):
    """For each group its slices as float64 matrices [channels, weights]."""
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), v)
    return {"stem": [wide["stem"].T, wide["two"].T], "one": [wide["one"].T]}


def squares(filters):
    return sum(np.array([sum(w * w for w in row) for row in matrix]) for matrix in filters)


def plain_l1(filters, v, name):
    return sum(np.array([sum(abs(w) for w in row) for row in matrix]) for matrix in filters)


def plain_l2(filters, v, name):
    return np.sqrt(squares(filters))


def plain_linf(filters, v, name):
    return sum(np.array([max(abs(w) for w in row) for row in matrix]) for matrix in filters)


def plain_bn_scale(filters, v, name):
    if name == "stem":
        return np.abs(v["norm"]["scale"]) + np.abs(v["gain"]["weight"])
    norms = np.sqrt(squares(filters))
    return norms / (sum(norms) / len(norms))


def plain_fpgm(filters, v, name):
    return sum(
        np.array([sum(np.sqrt(sum((a - b) ** 2)) for b in matrix) for a in matrix])
        for matrix in filters
    )


def plain_lamp(filters, v, name):
    norms = squares(filters)
    return [n / sum(other for other in norms if other >= n) for n in norms]


PLAIN = {
    "l1": plain_l1,
    "l2": plain_l2,
    "linf": plain_linf,
    "bn_scale": plain_bn_scale,
    "fpgm": plain_fpgm,
    "lamp": plain_lamp,
}


def test_every_criterion_is_tested():
    assert {*PLAIN, "random"} == set(pruning.ZERO_SHOT)
    assert set(pruning.CRITERIA) - set(pruning.ZERO_SHOT) == {"taylor", "hessian", "activation"}


@pytest.mark.parametrize("criterion", PLAIN)
def test_against_loops(groups, variables, criterion):
    scores = pruning.score(groups, variables, criterion)
    assert list(scores) == list(groups) == ["stem", "one"]
    for name, filters in produced(variables).items():
        expected = PLAIN[criterion](filters, variables, name)
        np.testing.assert_allclose(scores[name], expected, rtol=2e-6)
        assert scores[name].dtype == np.float64


@pytest.mark.parametrize("criterion", pruning.ZERO_SHOT)
def test_jax_and_half_precision_leaves(groups, variables, criterion):
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), variables)
    back = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), half)
    for name, value in pruning.score(groups, half, criterion).items():
        np.testing.assert_array_equal(value, pruning.score(groups, back, criterion)[name])


def test_lamp_orders_a_group_as_l2_does(groups, variables):
    even = variables | {"one": np.ones((4, 6), np.float32)}  # all channels equal
    for tree in (variables, even):
        lamp, l2 = (pruning.score(groups, tree, name) for name in ("lamp", "l2"))
        for name in groups:
            order = np.argsort(-l2[name], kind="stable")
            np.testing.assert_array_equal(np.argsort(-lamp[name], kind="stable"), order)
    np.testing.assert_allclose(lamp["one"], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6])


def test_lamp_and_bn_scale_of_a_group_of_zeros(groups, variables):
    empty = variables | {"one": np.zeros((4, 6), np.float32)}
    for criterion in ("lamp", "bn_scale", "l2"):
        np.testing.assert_array_equal(pruning.score(groups, empty, criterion)["one"], 0)


def test_bn_scale_in_linen_and_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
            self.head = nnx.Conv(8, 2, (1, 1), rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.norm(self.conv(x))))

    definition, state = nnx.split(Net(nnx.Rngs(0)))
    gamma = np.linspace(-1, 1, 8).astype(np.float32)
    state["norm"]["scale"][...] = jnp.asarray(gamma)
    x = np.ones((1, 4, 4, 3), np.float32)
    groups = pruning.trace(lambda state, x: nnx.merge(definition, state)(x), state, x)
    (found,) = pruning.score(groups, state, "bn_scale").values()
    np.testing.assert_allclose(found, np.abs(gamma), rtol=1e-6)


def test_a_matrix_named_weight_is_no_scale():
    # Equinox and PyTorch call the kernel of a depthwise convolution so.
    def depthwise(v, x):
        x = x @ v["one"]["weight"]
        x = (x[:, None, :] * v["depthwise"]["weight"][None]).sum(1)
        return x @ v["head"]

    v = {
        "one": {"weight": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)},
        "depthwise": {"weight": np.full((2, 4), 7, np.float32)},
        "head": np.ones((4, 2), np.float32),
    }
    groups = pruning.trace(depthwise, v, np.ones((5, 3), np.float32))
    (group,) = groups.values()
    assert ("depthwise/weight", "elementwise") in {(m.path, m.role) for m in group.members}
    (found,) = pruning.score(groups, v, "bn_scale").values()
    norms = np.linalg.norm(v["one"]["weight"], axis=0)
    np.testing.assert_allclose(found, norms / norms.mean(), rtol=1e-6)


def test_random_depends_on_seed_and_name_alone(groups, variables):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    first = pruning.score(groups, shapes, "random", seed=1)
    second = pruning.score(groups, variables, "random", seed=1)
    other = pruning.score(groups, variables, "random", seed=2)
    alone = pruning.Groups({"one": groups["one"]}, groups.shapes, groups.frozen)
    np.testing.assert_array_equal(
        pruning.score(alone, variables, "random", seed=1)["one"], first["one"]
    )
    for name, group in groups.items():
        np.testing.assert_array_equal(first[name], second[name])
        assert (first[name] != other[name]).all()
        assert len(set(first[name])) == group.size
        assert ((first[name] >= 0) & (first[name] < 1)).all()
    assert not set(first["stem"]) & set(first["one"])
