"""Layers that count or scale by a width compute, once cut, what the full ones do without it."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models


class Attention(nn.Module):
    """Attention in a stream, its width of heads given or left to the stream."""

    qkv_features: int | None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(12, name="embed")(x)
        layer = nn.MultiHeadDotProductAttention(
            3, qkv_features=self.qkv_features, dropout_rate=0.5, name="attention"
        )
        return nn.Dense(2, name="head")(layer(x, deterministic=not train))


class Twice(nn.Module):
    """The same attention layer, called two times."""

    qkv_features: int | None

    @nn.compact
    def __call__(self, x):
        attention = nn.MultiHeadDotProductAttention(3, qkv_features=self.qkv_features)
        return attention(attention(x))


class Looped(nn.Module):
    """Attention layers in a loop, their widths of heads left to the stream."""

    @nn.compact
    def __call__(self, x):
        loop = nn.scan(
            lambda layer, x, _: (layer(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        return loop(nn.MultiHeadDotProductAttention(3, name="attention"), x, None)[0]


class Grouped(nn.Module):
    """GroupNorm of four groups, given by their number or by their size."""

    num_groups: int | None = None
    group_size: int | None = None

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16, name="first")(x)
        x = nn.GroupNorm(num_groups=self.num_groups, group_size=self.group_size, name="norm")(x)
        return nn.Dense(2, name="head")(x)


X = np.random.default_rng(0).normal(size=(2, 7, 12)).astype(np.float32)


def random_variables(module):
    shapes = jax.eval_shape(module.init, jax.random.key(0), X)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def change(variables, channels, edit):
    """`edit(leaf, axis, keep)` of the leaves whose path ends in a key of `channels`."""

    def one(path, leaf):
        name = "/".join(key.key for key in path)
        for suffix, axis, keep in channels:
            if name.endswith(suffix):
                leaf = edit(leaf, axis, keep)
        return leaf

    return jax.tree_util.tree_map_with_path(one, variables)


def cut(leaf, axis, keep):
    return np.take(leaf, keep, axis)


def mask(leaf, axis, keep):
    kept = np.isin(np.arange(leaf.shape[axis]), keep)
    return leaf * kept.reshape([-1 if i == axis % leaf.ndim else 1 for i in range(leaf.ndim)])


HEADS, WIDTH, VALUES, STREAM = [0, 2], [0, 1, 3], [1], [0, 1, 4, 6, 9, 10]

QUERY_KEY = [
    (f"{name}/{leaf}", -1, WIDTH) for name in ("query", "key") for leaf in ("kernel", "bias")
]
# Of each cut: what goes, and what of it must be zero in the full network instead.
CUTS = {
    "width of heads": (QUERY_KEY, QUERY_KEY),
    "width of values": (
        [("value/kernel", 2, VALUES), ("value/bias", 1, VALUES), ("out/kernel", 1, VALUES)],
        [("out/kernel", 1, VALUES)],
    ),
    "heads": (
        [(f"{n}/kernel", 1, HEADS) for n in ("query", "key", "value")]
        + [(f"{n}/bias", 0, HEADS) for n in ("query", "key", "value")]
        + [("out/kernel", 0, HEADS)],
        [("out/kernel", 0, HEADS)],
    ),
    "stream": (
        [("embed/kernel", 1, STREAM), ("embed/bias", 0, STREAM)]
        + [(f"{n}/kernel", 0, STREAM) for n in ("query", "key", "value")],
        [(f"{n}/kernel", 0, STREAM) for n in ("query", "key", "value")],
    ),
}
CUTS["all"] = tuple([each for cut in CUTS.values() for each in cut[i]] for i in (0, 1))


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("qkv_features", [None, 12])
def test_attention(name, qkv_features):
    module = Attention(qkv_features)
    variables = random_variables(module)
    gone, zero = CUTS[name]
    apply = jax.jit(functools.partial(models.apply_pruned, module))
    expected = jax.jit(module.apply)(change(variables, zero, mask), X)
    got = apply(change(variables, gone, cut), X)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - apply(variables, X)).max() > 1e-2


def test_attention_in_training():
    """The initialisation that tells the width of heads takes the call's arguments and keys."""
    module = Attention(None)
    variables = random_variables(module)
    rngs = {"dropout": jax.random.key(5)}
    apply = jax.jit(functools.partial(models.apply_pruned, module, train=True))
    expected = module.apply(change(variables, QUERY_KEY, mask), X, train=True, rngs=rngs)
    got = apply(change(variables, QUERY_KEY, cut), X, rngs=rngs)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [Twice(None), Twice(12), Looped()])
def test_attention_called_twice(module):
    variables = random_variables(module)
    expected = module.apply(change(variables, QUERY_KEY, mask), X)
    got = models.apply_pruned(module, change(variables, QUERY_KEY, cut), X)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-3)


def test_another_attention_function_scales_as_it_likes():
    calls = []

    def attention_fn(query, key, value):
        calls.append(query.shape)
        return value

    module = nn.MultiHeadDotProductAttention(3, qkv_features=12, attention_fn=attention_fn)
    variables = change(random_variables(module), QUERY_KEY, cut)
    calls.clear()
    assert models.apply_pruned(module, variables, X).shape == X.shape
    assert calls == [(2, 7, 3, 3)]


@pytest.mark.parametrize("groups", [{"num_groups": 4}, {"group_size": 4}])
def test_group_norm_keeps_its_number_of_groups(groups):
    """The statistics are those of the channels that stay: as in a network built with fewer."""
    module = Grouped(**groups)
    keep = np.concatenate([4 * group + np.array([0, 2]) for group in range(4)])
    members = [("first/kernel", 1, keep), ("first/bias", 0, keep), ("head/kernel", 0, keep)]
    members += [("norm/scale", 0, keep), ("norm/bias", 0, keep)]
    variables = random_variables(module)
    pruned = change(variables, members, cut)
    params = pruned["params"]
    x = X @ params["first"]["kernel"] + params["first"]["bias"].reshape(1, 1, -1)
    x = x.reshape(2, 7, 4, 2)
    mean, var = (fn(x, axis=(1, 3), keepdims=True) for fn in (np.mean, np.var))
    x = ((x - mean) / np.sqrt(var + 1e-6)).reshape(2, 7, 8)
    x = x * params["norm"]["scale"].reshape(1, 1, -1) + params["norm"]["bias"].reshape(1, 1, -1)
    expected = x @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, 1, -1)
    got = models.apply_pruned(module, pruned, jnp.asarray(X))
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4)
    unpruned = models.apply_pruned(module, variables, X)
    chex.assert_trees_all_close(unpruned, module.apply(variables, X), rtol=1e-6)
