"""The cut, on any tree that mirrors the variables."""

import pickle

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


@jax.tree_util.register_pytree_node_class
class WithHistory:
    """A tree whose static part is a list."""

    def __init__(self, tree, history):
        self.tree, self.history = tree, history

    def tree_flatten(self):
        return (self.tree,), self.history

    @classmethod
    def tree_unflatten(cls, history, children):
        return cls(*children, history)


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


def test_under_vmap(variables, groups, keep):
    """An ensemble: each leaf holds a network more than was traced."""
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), variables)
    small = jax.vmap(lambda tree: pruning.prune(tree, groups, keep))(twice)
    one = pruning.prune(variables, groups, keep)
    chex.assert_trees_all_equal(small, jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), one))


def test_arrays_of_the_program_inside_of_it(variables, groups, keep):
    """Arrays that a jitted function closes over are cut while it is traced."""
    small = pruning.prune(variables, groups, keep)
    chex.assert_trees_all_equal(jax.jit(lambda: pruning.prune(variables, groups, keep))(), small)


def test_billions_of_parameters():
    """Twelve billion, which no machine here could hold: planned on shapes alone."""
    width, hidden, layers = 8192, 4 * 8192, 22
    shapes = {
        f"block{i}": {"up": (width, hidden), "bias": (hidden,), "down": (hidden, width)}
        for i in range(layers)
    }
    big = jax.tree.map(lambda n: jax.ShapeDtypeStruct(n, jnp.bfloat16), shapes, is_leaf=is_shape)
    assert sum(leaf.size for leaf in jax.tree.leaves(big)) > 11e9

    def net(v, x):
        for block in v.values():
            x = x + jnp.tanh(x @ block["up"] + block["bias"][None]) @ block["down"]
        return x

    groups = pruning.trace(net, big, jax.ShapeDtypeStruct((4, width), jnp.bfloat16))
    kept = {name: np.arange(0, group.size, 2) for name, group in groups.items()}
    small = pruning.prune(big, groups, pruning.Keep(kept, groups.layout))
    for block in small.values():
        assert block["up"] == jax.ShapeDtypeStruct((width, hidden // 2), jnp.bfloat16)
        assert block["bias"].shape == (hidden // 2,)


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
    keep = pruning.Keep({"a": [1], "b": [0, 2]}, groups.layout)
    small = pruning.prune(variables, groups, keep)
    np.testing.assert_array_equal(small["c"], variables["c"][[1, 2, 4]])


def test_again(variables, groups, keep):
    """What was pruned is traced, and pruned again."""
    small = pruning.prune(variables, groups, keep)
    groups2 = pruning.trace(apply, small, np.ones((1, 3), np.float32))
    keep2 = pruning.select(groups2, pruning.score(groups2, small), ratio=0.5, scope="channels")
    smaller = pruning.prune(small, groups2, keep2)
    assert smaller["params"]["two"]["kernel"].shape == (2, 1)
    both = keep.compose(keep2)
    chex.assert_trees_all_equal(pruning.prune(variables, groups, both), smaller)


def test_scalars_that_have_the_name_of_a_parameter_stay(variables, groups, keep):
    """Such as a step size that an optimiser learns for each parameter."""
    sizes = jax.tree.map(lambda leaf: jnp.float32(leaf.size), variables)
    state = {"sizes": sizes, "momentum": variables}
    small = pruning.prune(state, groups, keep)
    assert small["sizes"] == sizes
    chex.assert_trees_all_equal(small["momentum"], pruning.prune(variables, groups, keep))


def test_trees_with_static_parts_that_have_no_hash(variables, groups, keep):
    state = WithHistory(variables, [1, 2])
    small = pruning.prune(state, groups, keep)
    assert small.history == [1, 2]
    chex.assert_trees_all_equal(small.tree, pruning.prune(variables, groups, keep))


def test_a_keep_can_be_pickled_after_use(variables, groups, keep):
    """To another process, as it was before trees of all kinds were pruned with it."""
    pruning.prune(variables, groups, keep)
    pruning.prune(WithHistory({"a": variables}, lambda: None), groups, keep)
    assert groups.layout.owners
    there = pickle.loads(pickle.dumps(keep))
    assert there == keep
    chex.assert_trees_all_equal(
        pruning.prune(variables, groups, there), pruning.prune(variables, groups, keep)
    )


def test_many_kinds_of_trees(variables, groups, keep):
    """Which leaf is which parameter is remembered for a few trees; it is right for all."""
    one = pruning.prune(variables, groups, keep)
    for _ in range(2):
        for n in range(1, 12):
            state = tuple(variables for _ in range(n))
            for small in pruning.prune(state, groups, keep):
                chex.assert_trees_all_equal(small, one)


def test_bad_input(variables, groups, keep):
    with pytest.raises(UserError, match=r"leaf params/head/kernel has shape \(2, 2\), expected"):
        pruning.prune(pruning.prune(variables, groups, keep), groups, keep)
    with pytest.raises(UserError, match="no leaf of the tree is a parameter"):
        pruning.prune({"weights": np.ones(3)}, groups, keep)


def test_a_keep_of_another_network(variables, groups, keep):
    """Wider inputs, another head, a block more: what is different is named."""
    x = np.ones((1, 3), np.float32)
    head = {"head": {"kernel": np.ones((4, 5))}}
    other = variables | {"params": variables["params"] | head}
    with pytest.raises(
        UserError,
        match=r"keep has parameter params/head/kernel of shape \(4, 2\), expected \(4, 5\) as in",
    ):
        pruning.prune(other, pruning.trace(apply, other, x), keep)
    same_channels = pruning.Keep(keep, pruning.trace(apply, other, x).layout)
    small = pruning.prune(other, pruning.trace(apply, other, x), same_channels)
    assert small["params"]["head"]["kernel"].shape == (2, 5)

    def without_block(v, x):
        return x @ v["params"]["stem"]["kernel"] @ v["params"]["head"]["kernel"]

    with pytest.raises(
        UserError, match="keep has group 'params/one/kernel' of 6 channels, expected"
    ):
        pruning.prune(variables, pruning.trace(without_block, variables, x), keep)


def test_a_path_without_collection_that_fits_two_parameters():
    variables = {"a": {"kernel": np.ones((3, 4))}, "b": {"kernel": np.ones((4, 2))}}
    groups = pruning.trace(
        lambda v, x: x @ v["a"]["kernel"] @ v["b"]["kernel"], variables, np.ones((1, 3))
    )
    keep = pruning.Keep({"a/kernel": [0]}, groups.layout)
    with pytest.raises(UserError, match="leaf kernel may be any of a/kernel, b/kernel"):
        pruning.prune(variables["a"], groups, keep)
