"""Exactness of Equinox models, and how a pruned one runs there."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning

eqx = pytest.importorskip("equinox")


def at_given_widths(model: Any) -> Any:
    """A combined model whose layers compute with the widths of their arrays.

    Equinox keeps sizes as static fields; the few that layers compute or check with are set.
    `eqx.combine` made the layers again, so no other model changes.
    """
    kinds = eqx.nn.Conv | eqx.nn.LayerNorm | eqx.nn.MultiheadAttention
    for layer in jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(layer, eqx.nn.Conv) and layer.groups == layer.in_channels > 1:
            groups = layer.weight.shape[0] // (layer.out_channels // layer.in_channels)
            object.__setattr__(layer, "groups", groups)
        if isinstance(layer, eqx.nn.LayerNorm):
            object.__setattr__(layer, "shape", layer.weight.shape)
        if isinstance(layer, eqx.nn.MultiheadAttention):
            heads = layer.query_proj.weight.shape[0] // layer.qk_size
            object.__setattr__(layer, "num_heads", heads)
    return model


def randomised(tree: Any) -> Any:
    """All leaves random: nothing is zero, statistics and scales are not trivial."""
    rng = np.random.default_rng(0)

    def draw(leaf: jax.Array) -> jax.Array:
        if leaf.ndim < 2:  # also a BatchNorm's variance and counter
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        value = rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[0])
        return jnp.asarray(value, leaf.dtype)

    return jax.tree.map(draw, tree)


def as_function(model: Any) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    """A function of (arrays, batch), and the arrays of the model, random."""
    arrays, static = eqx.partition(model, eqx.is_array)

    def apply(arrays: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(at_given_widths(eqx.combine(arrays, static)))(x)

    return apply, randomised(arrays)


class ConvNet(eqx.Module):
    """A stem, a residual block with a depthwise convolution, a flattened head."""

    stem: Any
    expand: Any
    depthwise: Any
    project: Any
    pool: Any
    mlp: Any

    def __init__(self, width: int, key: jax.Array) -> None:
        keys = iter(jax.random.split(key, 5))
        inner = 2 * width
        self.stem = eqx.nn.Conv2d(3, width, 3, padding=1, key=next(keys))
        self.expand = eqx.nn.Conv2d(width, inner, 1, key=next(keys))
        self.depthwise = eqx.nn.Conv2d(inner, inner, 3, padding=1, groups=inner, key=next(keys))
        self.project = eqx.nn.Conv2d(inner, width, 1, key=next(keys))
        self.pool = eqx.nn.AvgPool2d(4, 4)
        self.mlp = eqx.nn.MLP(4 * width, 5, 12, 2, key=next(keys))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.stem(x))
        y = jax.nn.relu(self.depthwise(jax.nn.relu(self.expand(x))))
        x = jax.nn.relu(x + self.project(y))
        return self.mlp(self.pool(x).reshape(-1))


class NormNet(eqx.Module):
    """Two convolutions with BatchNorm between them; a stateful model."""

    conv1: Any
    norm: Any
    conv2: Any

    def __init__(self, key: jax.Array) -> None:
        first, second = jax.random.split(key)
        self.conv1 = eqx.nn.Conv2d(3, 8, 3, padding=1, use_bias=False, key=first)
        self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch")
        self.conv2 = eqx.nn.Conv2d(8, 5, 3, key=second)

    def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        x, state = self.norm(self.conv1(x), state)
        return self.conv2(jax.nn.relu(x)).mean((1, 2)), state


class Transformer(eqx.Module):
    """One pre-norm block over tokens [N, 6] and a head."""

    embed: Any
    norm1: Any
    attention: Any
    norm2: Any
    fc1: Any
    fc2: Any
    head: Any

    def __init__(self, width: int, heads: int, key: jax.Array) -> None:
        keys = iter(jax.random.split(key, 5))
        self.embed = eqx.nn.Linear(6, width, key=next(keys))
        self.norm1 = eqx.nn.LayerNorm(width)
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=next(keys))
        self.norm2 = eqx.nn.LayerNorm(width)
        self.fc1 = eqx.nn.Linear(width, 4 * width, key=next(keys))
        self.fc2 = eqx.nn.Linear(4 * width, width, key=next(keys))
        self.head = eqx.nn.Linear(width, 5, key=next(keys))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.vmap(self.embed)(x)
        y = jax.vmap(self.norm1)(x)
        x = x + self.attention(y, y, y)
        y = jax.nn.gelu(jax.vmap(self.fc1)(jax.vmap(self.norm2)(x)))
        x = x + jax.vmap(self.fc2)(y)
        return self.head(x.mean(0))


def cut(groups: pruning.Groups, variables: Any, scope: str) -> Any:
    keep = pruning.select(groups, pruning.score(groups, variables), ratio=0.5, scope=scope)
    return pruning.prune(variables, groups, keep)


@pytest.mark.parametrize("scope", pruning.SCOPES)
def test_convolutions(check_exact, scope):
    apply_fn, arrays = as_function(ConvNet(8, jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 8, 8)), jnp.float32)
    groups = check_exact(apply_fn, arrays, x, scope=scope)
    assert {name: group.size for name, group in groups.items()} == {
        "stem/weight": 8,
        "expand/weight": 16,
        "mlp/layers/0/weight": 12,
        "mlp/layers/1/weight": 12,
    }
    small = cut(groups, arrays, scope)
    width = 8 if scope == "filters" else 4
    assert small.depthwise.weight.shape == (8, 1, 3, 3)
    assert small.project.weight.shape == (width, 8, 1, 1)
    assert small.mlp.layers[0].weight.shape[1] == 4 * width  # four pixels a channel


def test_batch_norm_with_its_state(check_exact):
    model, state = eqx.nn.make_with_state(NormNet)(jax.random.key(0))
    arrays, static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_array)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        arrays, state = variables
        model = at_given_widths(eqx.combine(arrays, static))
        over_batch = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return over_batch(x, state)[0]

    variables = randomised((arrays, state))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 8, 8)), jnp.float32)
    groups = check_exact(apply, variables, x, gradients=False)  # the counter is an integer
    small, small_state = cut(groups, variables, "channels")
    assert small.norm.weight.shape == (4,)
    assert {leaf.shape for leaf in jax.tree.leaves(small_state)} == {(), (4,)}


def test_transformer(check_exact):
    apply_fn, arrays = as_function(Transformer(16, 4, jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 6)), jnp.float32)
    groups = check_exact(apply_fn, arrays, x, scope="channels")
    # Heads are cut as units.
    assert {name: groups[name].size for name in groups.in_scope("channels")} == {
        "attention/query_proj/weight": 4,
        "fc1/weight": 64,
    }
    # In scope all LayerNorm normalises over fewer channels.
    small = cut(groups, arrays, "all")
    assert small.attention.query_proj.weight.shape == (8, 8)
    assert small.norm1.weight.shape == (8,)
    assert apply_fn(small, x).shape == (2, 5)
