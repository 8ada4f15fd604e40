"""The cut, on any tree that mirrors the variables."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError


def apply(v, x):
    p, s = v["params"], v["stats"]
    x = x @ p["stem"]["kernel"]
    x = (x - s["norm"]["mean"][None]) * p["norm"]["scale"][None]
    return (x + jnp.tanh(x @ p["one"]["kernel"]) @ p["two"]["kernel"]) @ p["head"]["kernel"]


SHAPES = {
    "params": {
        "stem": {"kernel": (3, 4)},
        "norm": {"scale": (4,)},
        "one": {"kernel": (4, 6)},
        "two": {"kernel": (6, 4)},
        "head": {"kernel": (4, 2)},
    },
    "stats": {"norm": {"mean": (4,)}},
}
SMALL = {
    "params": {
        "stem": {"kernel": (3, 2)},
        "norm": {"scale": (2,)},
        "one": {"kernel": (2, 3)},
        "two": {"kernel": (3, 2)},
        "head": {"kernel": (2, 2)},
    },
    "stats": {"norm": {"mean": (2,)}},
}


def is_shape(node):
    return isinstance(node, tuple) and all(isinstance(n, int) for n in node)


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)

    def draw(shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return jax.tree.map(draw, SHAPES, is_leaf=is_shape)


@pytest.fixture(scope="module")
def groups(variables):
    return pruning.trace(apply, variables, np.ones((1, 3), np.float32))


@pytest.fixture(scope="module")
def keep(groups, variables):
    scores = pruning.score(groups, variables)
    return pruning.select(groups, scores, ratio=0.5, scope="channels")


def shapes(tree):
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


def test_arrays_shrink_to_the_kept_slices(variables, groups, keep):
    small = pruning.prune(variables, groups, keep)
    assert shapes(small) == SMALL
    stream, inner = keep["params/stem/kernel"], keep["params/one/kernel"]
    full = variables["params"]["one"]["kernel"]
    chex.assert_trees_all_equal(small["params"]["one"]["kernel"], full[stream][:, inner])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(small))


def test_numpy_stays_numpy(variables, groups, keep):
    small = pruning.prune(jax.tree.map(np.asarray, variables), groups, keep)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(small))
    chex.assert_trees_all_equal(small, pruning.prune(variables, groups, keep))


def test_ratio_zero_gives_back_the_same_arrays(variables, groups):
    scores = pruning.score(groups, variables)
    keep = pruning.select(groups, scores, ratio=0, scope="channels", round_to=8)
    same = pruning.prune(variables, groups, keep)
    assert jax.tree.structure(same) == jax.tree.structure(variables)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(variables), strict=True):
        assert a is b


def test_leaves_that_hold_no_dropped_channel_are_the_same_objects(variables, groups):
    scores = pruning.score(groups, variables)
    small = pruning.prune(variables, groups, pruning.select(groups, scores, ratio=0.5))
    assert small["params"]["stem"]["kernel"] is variables["params"]["stem"]["kernel"]
    assert small["params"]["one"]["kernel"].shape == (4, 3)


def test_under_jit_and_on_shapes(variables, groups, keep):
    def cut(tree):
        return pruning.prune(tree, groups, keep)

    small = cut(variables)
    chex.assert_trees_all_equal(jax.jit(cut)(variables), small)
    assert shapes(jax.eval_shape(cut, variables)) == SMALL
    abstract = cut(jax.eval_shape(lambda: variables))
    assert shapes(abstract) == SMALL
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(abstract))


def test_placement_stays(variables, groups, keep):
    """Committed or not, replicated or sharded over devices."""
    committed = jax.device_put(variables, jax.devices()[0])
    for tree in (variables, committed):
        for leaf in jax.tree.leaves(pruning.prune(tree, groups, keep)):
            assert leaf.committed == (tree is committed)
            assert leaf.devices() == {jax.devices()[0]}
    auto = jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    kernel = jax.device_put(variables["params"]["one"]["kernel"], sharding)
    sharded = {"params": variables["params"] | {"one": {"kernel": kernel}}}
    chex.assert_trees_all_equal(
        pruning.prune(sharded, groups, keep)["params"],
        pruning.prune(variables, groups, keep)["params"],
    )


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1, momentum=0.9), optax.adamw(0.1)])
def test_optimiser_states(variables, groups, keep, optimizer):
    """Pruning the state of the full network: that of the pruned one has the same shapes."""
    for full in (variables, variables["params"]):
        state = pruning.prune(optimizer.init(full), groups, keep)
        small = optimizer.init(pruning.prune(full, groups, keep))
        chex.assert_trees_all_equal_shapes_and_dtypes(state, small)


def test_one_collection(variables, groups, keep):
    assert shapes(pruning.prune(variables["stats"], groups, keep)) == SMALL["stats"]


def test_one_axis_of_two_groups():
    """Each group of a concatenation is cut off its own positions of the axis that reads both."""

    def net(v, x):
        return jnp.concatenate([x @ v["a"], x @ v["b"]], -1) @ v["c"]

    variables = {"a": np.ones((3, 2)), "b": np.ones((3, 3)), "c": np.arange(10.0).reshape(5, 2)}
    groups = pruning.trace(net, variables, np.ones((1, 3)))
    keep = pruning.Keep({"a": [1], "b": [0, 2]}, {"a": 2, "b": 3})
    small = pruning.prune(variables, groups, keep)
    np.testing.assert_array_equal(small["c"], variables["c"][[1, 2, 4]])


def test_bad_input(variables, groups, keep):
    with pytest.raises(UserError, match=r"leaf params/head/kernel has shape \(2, 2\), expected"):
        pruning.prune(pruning.prune(variables, groups, keep), groups, keep)
    other = pruning.Keep({"params/stem/kernel": [0]}, {"params/stem/kernel": 4})
    with pytest.raises(UserError, match="keep has None channels of group 'params/one/kernel'"):
        pruning.prune(variables, groups, other)
    with pytest.raises(UserError, match="no leaf of the tree is a parameter"):
        pruning.prune({"weights": np.ones(3)}, groups, keep)


def test_a_path_without_collection_that_fits_two_parameters():
    variables = {"a": {"kernel": np.ones((3, 4))}, "b": {"kernel": np.ones((4, 2))}}
    groups = pruning.trace(
        lambda v, x: x @ v["a"]["kernel"] @ v["b"]["kernel"], variables, np.ones((1, 3))
    )
    keep = pruning.Keep({"a/kernel": [0]}, {"a/kernel": 4})
    with pytest.raises(UserError, match="leaf kernel may be any of a/kernel, b/kernel"):
        pruning.prune(variables["a"], groups, keep)
