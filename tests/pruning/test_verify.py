"""Numbers of the program itself: what it splits by, and whether that follows its widths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import pruning
from ctl_jax.pruning._verify import tried_widths

X = jax.ShapeDtypeStruct((2, 5, 6), jnp.float32)
HEADS, WIDTH = 4, 3

VARIABLES = {
    "qkv": jax.ShapeDtypeStruct((6, 3 * HEADS * WIDTH), jnp.float32),
    "out": jax.ShapeDtypeStruct((HEADS * WIDTH, 7), jnp.float32),
}


def attention(split):
    """Attention whose queries, keys and values `split` makes of [batch, tokens, channels]."""

    def apply(v, x):
        q, k, values = (split(y) for y in jnp.split(x @ v["qkv"], 3, axis=-1))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, values)
        return y.reshape(*y.shape[:2], -1) @ v["out"]

    return apply


def test_heads_that_follow_the_width_are_cut():
    groups = pruning.trace(attention(lambda x: x.reshape(*x.shape[:2], -1, WIDTH)), VARIABLES, X)
    (group,) = groups.values()
    assert group.size == HEADS
    made, read = sorted(group.members, key=lambda member: member.path, reverse=True)
    assert made.positions.shape == (HEADS, 3 * WIDTH)
    assert read.positions.tolist() == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(HEADS)]


@pytest.mark.parametrize(
    "split",
    [
        # Run at other widths, these would silently give each head another width.
        lambda x: x.reshape(*x.shape[:2], HEADS, -1),
        lambda x: x.reshape(*x.shape[:2], HEADS, x.shape[-1] // HEADS),
        # And this would not run.
        lambda x: x.reshape(*x.shape[:2], HEADS, WIDTH),
    ],
)
def test_heads_of_a_fixed_number_are_not_cut(split):
    groups = pruning.trace(attention(split), VARIABLES, X)
    assert not groups
    assert "numbers that do not follow the width" in groups.explain("qkv")


@pytest.mark.parametrize("groups_of_norm", [2, 4])
def test_group_norm_loses_as_many_in_each_group(groups_of_norm):
    def apply(v, x):
        y = x @ v["a"]
        z = y.reshape(*y.shape[:2], groups_of_norm, -1)
        y = (z - z.mean((1, 3), keepdims=True)).reshape(y.shape)
        return jnp.tanh(y) @ v["b"]

    variables = {
        "a": jax.ShapeDtypeStruct((6, 12), jnp.float32),
        "b": jax.ShapeDtypeStruct((12, 7), jnp.float32),
    }
    groups = pruning.trace(apply, variables, X)
    (group,) = groups.values()
    assert (group.size, group.normalised) == (12 // groups_of_norm, "reduce_sum")
    assert groups.in_scope("channels") == ()
    # Channel j of the group is the j-th of each group of the norm.
    step = 12 // groups_of_norm
    assert group.members[0].positions[0].tolist() == list(range(0, 12, step))


def test_only_what_does_not_follow_is_frozen():
    """One layer takes halves of its width, another takes eight channels."""

    def apply(v, x):
        y = jnp.tanh(x @ v["a"])
        half = y.shape[-1] // 2
        y = jnp.tanh(y[..., :half] * y[..., half:]) @ v["b"]
        return (y[..., :4] * y[..., 4:]) @ v["c"]

    shapes = {"a": (6, 8), "b": (4, 8), "c": (4, 3)}
    variables = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in shapes.items()}
    groups = pruning.trace(apply, variables, X)
    assert {name: group.size for name, group in groups.items()} == {"a": 4}
    assert "slice by numbers that do not follow the width" in groups.frozen["b"][1]


def test_a_function_of_one_width_is_pruned_where_nothing_is_guessed():
    """It checks its shapes, so that it can not be traced at others; only its heads need that."""

    def apply(v, x):
        assert v["qkv"].shape == VARIABLES["qkv"].shape
        y = attention(lambda x: x.reshape(*x.shape[:2], -1, WIDTH))(v, x)
        return jnp.tanh(y @ v["up"]) @ v["down"]

    shapes = {"up": (7, 8), "down": (8, 3)}
    variables = VARIABLES | {
        key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in shapes.items()
    }
    groups = pruning.trace(apply, variables, X)
    assert set(groups) == {"up", "out"}


@pytest.mark.parametrize("layers", [1, 2, 16])
def test_the_function_is_traced_twice_where_nothing_is_guessed(layers):
    calls = []

    def apply(v, x):
        calls.append(None)
        for kernel in v[:-1]:
            x = jnp.tanh(x @ kernel)
        return x @ v[-1]

    widths = (6, *(16,) * layers, 3)
    variables = [jax.ShapeDtypeStruct(pair, jnp.float32) for pair in itertools.pairwise(widths)]
    groups = pruning.trace(apply, variables, X)
    assert len(groups) == layers
    assert len(calls) == 2  # at full widths, and at others
    scores = {name: np.arange(group.size) for name, group in groups.items()}
    pruning.select(groups, scores, ratio=0.5, scope="channels")
    assert len(calls) == 2
    for _ in range(3):
        pruning.select(groups, scores, ratio=0.5, scope="channels", check=True)
    assert len(calls) == 3  # at those that stay
    pruning.select(groups, scores, ratio=0.0, scope="channels", check=True)
    assert len(calls) == 3


@given(st.lists(st.integers(2, 300), min_size=1, max_size=30))
def test_widths_that_are_tried(sizes):
    named = {str(i): size for i, size in enumerate(sizes)}
    tried = tried_widths(named)
    assert tried.keys() == named.keys()
    for name, size in named.items():
        assert 2 <= tried[name] != size
        assert size < 24 or (size // 4 <= tried[name] < size / 2 and (size - tried[name]) % 2)
    for a, b in itertools.combinations(named, 2):
        if named[a] != named[b]:
            assert tried[a] != tried[b]


def test_widths_that_are_tried_keep_their_order():
    sizes = {"stem": 64, "one": 64, "two": 128, "narrow": 96, "three": 256, "head": 1000}
    tried = tried_widths(sizes)
    order = sorted(sizes, key=lambda name: sizes[name])
    assert [tried[name] for name in order] == sorted(tried.values())
    assert len(set(tried.values())) == len(sizes)
