"""Exactness of Flax NNX models, and how a pruned one runs there."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ctl_jax import pruning


def at_given_widths(model: Any) -> Any:
    """A merged model whose layers compute with the widths of their parameters.

    NNX checks few shapes; only what depthwise convolutions and attention compute with is set.
    """
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, nnx.Conv) and layer.feature_group_count == layer.in_features:
            multiplier = layer.out_features // layer.in_features
            layer.in_features = layer.kernel.shape[-1] // multiplier
            layer.feature_group_count = layer.in_features
        if isinstance(layer, nnx.LinearGeneral):
            layer.out_features = layer.kernel.shape[len(layer.in_features) :]
        if isinstance(layer, nnx.MultiHeadAttention):
            layer.in_features = layer.query.kernel.shape[0]
    return model


def as_function(model: nnx.Module) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    """A function of (state, inputs), and the state with random leaves."""
    graph, state = nnx.split(model)
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/").split("/")[-2]
        if name == "kernel":
            value = rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
        elif name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = 0.3 * rng.normal(size=leaf.shape)
        return jnp.asarray(value, jnp.float32)

    state = jax.tree_util.tree_map_with_path(draw, state)
    return lambda state, x: at_given_widths(nnx.merge(graph, state))(x), state


class ConvNet(nnx.Module):
    """A stem, a residual block with a depthwise convolution, and a head."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        inner = 2 * width
        norm = {"use_running_average": True, "rngs": rngs}
        self.stem = nnx.Conv(3, width, (3, 3), use_bias=False, rngs=rngs)
        self.stem_norm = nnx.BatchNorm(width, **norm)
        self.expand = nnx.Conv(width, inner, (1, 1), use_bias=False, rngs=rngs)
        self.expand_norm = nnx.BatchNorm(inner, **norm)
        self.depthwise = nnx.Conv(inner, inner, (3, 3), feature_group_count=inner, rngs=rngs)
        self.project = nnx.Conv(inner, width, (1, 1), rngs=rngs)
        self.head = nnx.Linear(width, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem_norm(self.stem(x)))
        y = nnx.relu(self.expand_norm(self.expand(x)))
        y = self.project(nnx.relu(self.depthwise(y)))
        return self.head(nnx.relu(x + y).mean((1, 2)))


class Block(nnx.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.fc1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.fc2 = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(nnx.gelu(self.fc1(self.norm2(x))))


class Transformer(nnx.Module):
    """Of tokens that are given as vectors."""

    def __init__(self, width: int, heads: int, depth: int, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(6, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


@pytest.mark.parametrize("scope", pruning.SCOPES)
def test_convolutions(check_exact, scope):
    apply_fn, state = as_function(ConvNet(8, nnx.Rngs(0)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    groups = check_exact(apply_fn, state, x, scope=scope)
    assert {name: group.size for name, group in groups.items()} == {
        "stem/kernel/value": 8,
        "expand/kernel/value": 16,
    }
    keep = pruning.select(groups, pruning.score(groups, state), ratio=0.5, scope=scope)
    small = pruning.prune(state, groups, keep)
    width = 8 if scope == "filters" else 4
    assert small["depthwise"]["kernel"].shape == (3, 3, 1, 8)
    assert small["project"]["kernel"].shape == (1, 1, 8, width)
    assert small["head"]["kernel"].shape == (width, 5)


def test_transformer(check_exact):
    apply_fn, state = as_function(Transformer(16, 4, 2, nnx.Rngs(0)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 6)), jnp.float32)
    groups = check_exact(apply_fn, state, x, scope="channels")
    # Heads are cut as units.
    assert {name: groups[name].size for name in groups.in_scope("channels")} == {
        f"blocks/{i}/{name}/kernel/value": size
        for i in (0, 1)
        for name, size in (("attention/query", 4), ("fc1", 64))
    }


def test_transformer_with_its_stream():
    """In scope all LayerNorm normalises over fewer channels; all widths are halved."""
    apply_fn, state = as_function(Transformer(16, 4, 2, nnx.Rngs(0)))
    x = jnp.ones((2, 7, 6))
    groups = pruning.trace(apply_fn, state, x)
    keep = pruning.select(groups, pruning.score(groups, state), ratio=0.5, scope="all")
    small = pruning.prune(state, groups, keep)
    assert small["blocks"][0]["attention"]["query"]["kernel"].shape == (8, 2, 4)
    assert small["blocks"][1]["fc1"]["kernel"].shape == (8, 32)
    assert small["norm"]["scale"].shape == (8,)
    assert apply_fn(small, x).shape == (2, 5)


def test_pruned_model_as_an_object():
    """A pruned state merges into a model that trains as any other."""
    model = ConvNet(8, nnx.Rngs(0))
    graph, state = nnx.split(model)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    groups = pruning.trace(lambda state, x: at_given_widths(nnx.merge(graph, state))(x), state, x)
    keep = pruning.select(groups, pruning.score(groups, state), ratio=0.5, scope="channels")
    small = at_given_widths(nnx.merge(graph, pruning.prune(state, groups, keep)))
    small.train()
    gradients = nnx.grad(lambda model: jnp.square(model(x)).mean())(small)
    assert gradients["stem"]["kernel"].shape == (3, 3, 3, 4)
    assert small.stem_norm.mean.shape == (4,)
    assert model.stem.kernel.shape == (3, 3, 3, 8)  # the full model is as it was
