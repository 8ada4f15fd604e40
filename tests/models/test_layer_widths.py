"""Every stock Linen layer, and modules with parameters of their own, run at given widths."""

import functools

import chex
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models

MAPS, TOKENS = (2, 6, 6, 5), (2, 7, 5)


class Own(nn.Module):
    """Parameters of its own in a compact method."""

    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width)(x)
        position = self.param("position", nn.initializers.ones, (1, *x.shape[1:]))
        scale = self.param("scale", nn.initializers.ones, (self.width,))
        return nn.Dense(2)((x + position) * scale.reshape(1, 1, -1))


class OwnInSetup(nn.Module):
    """Parameters of its own, and layers, in `setup`."""

    width: int

    def setup(self):
        self.first, self.second = nn.Dense(self.width), nn.Dense(2)
        self.scale = self.param("scale", nn.initializers.ones, (1, 1, self.width))

    def hidden(self, x):
        return self.first(x) * self.scale

    def __call__(self, x):
        return self.second(jnp.tanh(self.hidden(x)))


class Residual(nn.Module):
    """A block whose hidden units and stream may be of any width."""

    heads: int

    @nn.compact
    def __call__(self, x, _=None):
        attention = nn.MultiHeadDotProductAttention(self.heads, qkv_features=4 * self.heads)
        x = x + attention(nn.LayerNorm()(x))
        scale = self.param("scale", nn.initializers.ones, (1, 1, x.shape[-1]))
        return x + scale * nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(2 * self.heads)(x))), None


class Stack(nn.Module):
    """Blocks in a loop, each computed again for the gradient."""

    heads: int
    scan: bool
    remat: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.heads)(x)
        block = nn.remat(Residual) if self.remat else Residual
        if self.scan:
            loop = nn.scan(block, {"params": 0}, split_rngs={"params": True}, length=3)
            return loop(self.heads)(x, None)[0]
        return block(self.heads)(x)[0]


class Tied(nn.Module):
    """An embedding that is read out by itself."""

    width: int

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(9, self.width)
        return embed.attend(jnp.tanh(embed(ids)))


class Twice(nn.Module):
    """Layers called a second time, so with the same parameters."""

    heads: int

    @nn.compact
    def __call__(self, x):
        attention = nn.MultiHeadDotProductAttention(self.heads, qkv_features=4 * self.heads)
        conv = nn.Conv(x.shape[-1], (3,), feature_group_count=x.shape[-1])
        return conv(attention(conv(attention(x))))


class Several(nn.Module):
    """Layers one after another, with keyword arguments as users have them."""

    layers: tuple[nn.Module, ...]

    @nn.compact
    def __call__(self, x):
        for layer in self.layers:
            x = layer(inputs=x) if isinstance(layer, nn.Conv) else layer(x)
        return x


def seq(*layers):
    return Several(layers)


# Of each: a network of a width, and the shape of its inputs (None: token ids).
CASES = {
    "conv": (lambda w: seq(nn.Conv(w, (3, 3)), nn.Conv(4, (1, 1))), MAPS),
    "grouped conv": (
        lambda w: seq(nn.Dense(w), nn.Conv(w, (3, 3), feature_group_count=3), nn.Dense(2)),
        MAPS,
    ),
    "depthwise conv": (
        lambda w: seq(nn.Dense(w), nn.Conv(w, (3, 3), feature_group_count=w), nn.Dense(2)),
        MAPS,
    ),
    "depthwise conv with a multiplier": (
        lambda w: seq(nn.Dense(w), nn.Conv(2 * w, (3, 3), feature_group_count=w), nn.Dense(2)),
        MAPS,
    ),
    "conv transpose": (
        lambda w: seq(
            nn.ConvTranspose(w, (2, 2), (2, 2)),
            nn.ConvTranspose(2 * w, (2, 2), transpose_kernel=True),
            nn.Dense(2),
        ),
        MAPS,
    ),
    "conv local": (lambda w: seq(nn.ConvLocal(w, (2, 2)), nn.ConvLocal(2, (2, 2))), MAPS),
    "dense general": (
        lambda w: seq(nn.DenseGeneral((w, 2 * w)), nn.DenseGeneral(w, axis=(-2, -1))),
        TOKENS,
    ),
    "dense general per example": (lambda w: nn.DenseGeneral(w, batch_dims=(0,)), TOKENS),
    "einsum": (lambda w: seq(nn.Dense(w), nn.Einsum((w, 2, w), "bnc,cde->bnde")), TOKENS),
    "embed": (lambda w: seq(nn.Embed(9, w), nn.Dense(2)), None),
    "embed one": (lambda w: seq(nn.Embed(1, w), nn.Dense(2)), None),
    "tied embedding": (Tied, None),
    "norms": (
        lambda w: seq(
            nn.Dense(w),
            nn.BatchNorm(use_running_average=True),
            nn.LayerNorm(),
            nn.RMSNorm(),
            nn.InstanceNorm(),
            nn.GroupNorm(3),
            nn.Dense(2),
        ),
        MAPS,
    ),
    "weight norm": (lambda w: seq(nn.WeightNorm(nn.Dense(w)), nn.WeightNorm(nn.Dense(2))), MAPS),
    "heads": (
        lambda w: nn.MultiHeadDotProductAttention(w, qkv_features=4 * w, normalize_qk=True),
        TOKENS,
    ),
    "channels of attention": (
        lambda w: seq(
            nn.Dense(4 * w),
            nn.MultiHeadDotProductAttention(3, qkv_features=6, out_features=4 * w),
            nn.LayerNorm(),
            nn.Dense(2),
        ),
        TOKENS,
    ),
    "own parameters": (Own, TOKENS),
    "own parameters in setup": (OwnInSetup, TOKENS),
    "remat": (lambda w: Stack(w, scan=False, remat=True), TOKENS),
    "scan": (lambda w: Stack(w, scan=True, remat=False), TOKENS),
    "scan of remat": (lambda w: Stack(w, scan=True, remat=True), TOKENS),
    "shared layers": (Twice, TOKENS),
}


def random_like(shapes, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, shapes)


def inputs_of(shape):
    if shape is None:
        return jnp.zeros((2, 7), jnp.int32).at[0, 1].set(4)
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def variables_of(module, x):
    return random_like(jax.eval_shape(module.init, jax.random.key(0), x))


def run(fn, variables, x):
    return jax.jit(fn)(variables, x)


@pytest.mark.parametrize("name", CASES)
def test_runs_at_the_widths_of_its_parameters(name):
    network, shape = CASES[name]
    full, narrow, x = network(6), network(3), inputs_of(shape)
    variables = variables_of(narrow, x)
    got = run(functools.partial(models.apply_pruned, full), variables, x)
    chex.assert_trees_all_close(got, run(narrow.apply, variables, x), rtol=1e-6)
    with pytest.raises((flax.errors.ScopeParamShapeError, TypeError, ValueError)):
        full.apply(variables, x)


@pytest.mark.parametrize("name", CASES)
def test_traces_what_flax_traces_at_full_width(name):
    network, shape = CASES[name]
    module, x = network(6), inputs_of(shape)
    variables = variables_of(module, x)
    ours = jax.make_jaxpr(functools.partial(models.apply_pruned, module))(variables, x)
    theirs = jax.make_jaxpr(module.apply)(variables, x)
    assert [str(eqn.primitive) for eqn in ours.eqns] == [str(eqn.primitive) for eqn in theirs.eqns]
    assert ours.out_avals == theirs.out_avals


@pytest.mark.parametrize("name", CASES)
def test_a_missing_parameter_is_flaxs_error(name):
    network, shape = CASES[name]
    module, x = network(6), inputs_of(shape)
    whole = variables_of(module, x)
    leaves, tree = jax.tree_util.tree_flatten_with_path(whole["params"])
    for missing, _ in leaves:
        *parents, last = (key.key for key in missing)
        params = tree.unflatten([leaf for _, leaf in leaves])
        functools.reduce(dict.__getitem__, parents, params).pop(last)
        variables = {**whole, "params": params}
        with pytest.raises(flax.errors.ScopeParamNotFoundError, match=last.replace("/", ".")):
            jax.eval_shape(functools.partial(models.apply_pruned, module), variables, x)


def test_no_parameters_at_all_is_flaxs_error():
    with pytest.raises(flax.errors.ScopeCollectionNotFound, match="kernel"):
        models.apply_pruned(nn.Dense(3), {}, jnp.ones((1, 2)))


def test_initialisers_are_not_traced():
    """Flax traces each of them for a shape to compare with: half of the time of a trace."""
    calls = []

    def kernel_init(key, shape, dtype):
        calls.append(shape)
        return jnp.ones(shape, dtype)

    module = seq(nn.Dense(4, kernel_init=kernel_init), nn.Conv(3, (1,), kernel_init=kernel_init))
    variables = module.init(jax.random.key(0), jnp.ones(TOKENS))
    calls.clear()
    jax.make_jaxpr(functools.partial(models.apply_pruned, module))(variables, jnp.ones(TOKENS))
    assert not calls


def test_other_methods_mutable_collections_and_rngs():
    x = inputs_of(TOKENS)
    variables = variables_of(OwnInSetup(3), x)
    hidden = models.apply_pruned(OwnInSetup(6), variables, x, method="hidden")
    assert hidden.shape == (2, 7, 3)
    network = lambda w: seq(nn.Dense(w), nn.Dropout(0.5, deterministic=False))  # noqa: E731
    variables = variables_of(network(3), x)
    rngs, mutable = {"dropout": jax.random.key(3)}, ["intermediates"]
    got, _ = models.apply_pruned(network(6), variables, x, rngs=rngs, mutable=mutable)
    chex.assert_trees_all_close(got, network(3).apply(variables, x, rngs=rngs), rtol=1e-6)


def test_boxed_parameters_run():
    def network(width):
        init = nn.with_partitioning(nn.initializers.ones, (None, None, "model"))
        return seq(nn.Dense(width), nn.Conv(width, (1,), kernel_init=init, feature_group_count=3))

    x = inputs_of(TOKENS)
    variables = jax.eval_shape(network(3).init, jax.random.key(0), x)
    boxed = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), variables)
    assert any(isinstance(leaf, nn.Partitioned) for leaf in boxed["params"]["layers_1"].values())
    got = models.apply_pruned(network(6), boxed, x)
    chex.assert_trees_all_close(got, network(3).apply(boxed, x), rtol=1e-6)
