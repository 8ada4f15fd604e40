"""Numbers that follow from a width: what has them stays whole, and everything else is exact."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ctl_jax import models, pruning
from ctl_jax.errors import UserError

WIDTHS = {"a": 16, "b": 12}
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)


def weights(**shapes: tuple[int, ...]) -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    return {
        name: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
        for name, shape in shapes.items()
    }


V = weights(a=(5, 16), b=(16, 12), head=(12, 3))


def two_layers(between: Callable[[jax.Array], Any]) -> Callable[..., jax.Array]:
    """`between` works on the channels of "a", and no more than that is wrong with the network."""

    def apply(v: Any, x: jax.Array) -> jax.Array:
        y = between(jnp.tanh(x @ v["a"]))
        return jnp.tanh(y @ v["b"]) @ v["head"]

    return apply


def masked(variables: Any, groups: pruning.Groups, keep: pruning.Keep) -> Any:
    """The full variables, with zeros where a kernel reads a channel that is dropped."""
    leaves = {name: np.array(leaf) for name, leaf in variables.items()}
    for name, group in groups.items():
        dropped = np.setdiff1d(np.arange(group.size), keep[name])
        for member in group.members:
            if member.role == "in":
                rows = np.moveaxis(leaves[member.path], member.axis, 0)
                rows[member.positions[dropped].ravel()] = 0
    return {name: jnp.asarray(leaf) for name, leaf in leaves.items()}


def check(apply: Callable[..., Any], variables: Any, ratio: float = 0.5) -> pruning.Groups:
    """Prunes, and compares with the full network without the channels that are dropped."""
    groups = pruning.trace(apply, variables, X)
    scores = pruning.score(groups, variables)
    keep = pruning.select(groups, scores, ratio=ratio, scope="channels")
    small = pruning.prune(variables, groups, keep)
    assert all(len(keep[name]) < groups[name].size for name in groups.in_scope("channels"))
    for name, reason in groups.left.items():
        assert any(name in note and reason in note for note in keep.notes)
        assert "\n" not in reason
        assert reason in groups.explain(name)
    expected = apply(masked(variables, groups, keep), X)
    chex.assert_trees_all_close(apply(small, X), expected, rtol=1e-4, atol=1e-5)
    return groups


def turns(y: jax.Array) -> jax.Array:
    return lax.fori_loop(0, y.shape[-1], lambda i, y: jnp.sin(y), y)


def until(y: jax.Array) -> jax.Array:
    stop = y.shape[-1]
    return lax.while_loop(lambda c: c[0] < stop, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, y))[1]


def branch(y: jax.Array) -> jax.Array:
    width = y.shape[-1]
    return lax.cond(y.sum() > 1e9, lambda y: y, lambda y: y / width, y)


@jax.custom_jvp
def custom(y: jax.Array) -> jax.Array:
    return y / y.shape[-1]


custom.defjvp(lambda primals, tangents: (custom(*primals), tangents[0]))


@jax.custom_vjp
def other_custom(y: jax.Array) -> jax.Array:
    return y / y.shape[-1]


other_custom.defvjp(lambda y: (other_custom(y), None), lambda _, g: (g,))

FOLLOWING: dict[str, Callable[[jax.Array], Any]] = {
    "1/sqrt": lambda y: y / jnp.sqrt(y.shape[-1]),
    "math.sqrt": lambda y: y * math.sqrt(y.shape[-1]),
    "numpy": lambda y: y * np.float32(y.shape[-1]),
    "log": lambda y: y * math.log(y.shape[-1]),
    "parts": lambda y: y / (y.shape[-1] // 4),
    "at most": lambda y: y * min(y.shape[-1], 8),
    "power": lambda y: y ** (y.shape[-1] // 4),
    "real power": lambda y: jnp.abs(y) ** (1 / y.shape[-1]),
    "even": lambda y: y * (2 if y.shape[-1] % 2 == 0 else 3),
    "divisible": lambda y: y * (2 if y.shape[-1] % 4 == 0 else 3),
    "clip": lambda y: jnp.clip(y, -1 / y.shape[-1], 1 / y.shape[-1]),
    "where": lambda y: jnp.where(y > 1 / y.shape[-1], y, 0),
    "full": lambda y: y * jnp.full(y.shape, 1 / y.shape[-1]),
    "counted": lambda y: y / jnp.ones_like(y).sum(-1, keepdims=True),
    "counted in a product": lambda y: y / (jnp.ones_like(y) @ jnp.ones((y.shape[-1], 1))),
    "counted from data": lambda y: (
        y * jnp.broadcast_to(y.max((0, 1)), (4, y.shape[-1])).sum(-1)[:, None]
    ),
    "iota": lambda y: y / (jnp.arange(y.shape[-1]).max() + 1),
    "added": lambda y: y + 1 / y.shape[-1],
    "jitted": jax.jit(lambda y: y / y.shape[-1]),
    "argument": lambda y: jax.jit(lambda y, n: y / n)(y, float(y.shape[-1])),
    "remat": jax.checkpoint(lambda y: y / y.shape[-1]),
    "custom_jvp": custom,
    "custom_vjp": other_custom,
    "turns": turns,
    "until": until,
    "branch": branch,
    "operations": lambda y: [y := jnp.sin(y) for _ in range(y.shape[-1] // 4)][-1],
    "other operations": lambda y: jnp.sin(y) if y.shape[-1] > 8 else jnp.cos(y),
    "temperature": lambda y: jax.nn.sigmoid(y / y.shape[-1]),
    "epsilon": lambda y: y / (jnp.abs(y) + 1e-3 * y.shape[-1]),
    "top": lambda y: y * lax.top_k(X[:, 0], min(4, y.shape[-1] // 4))[0].sum(),
    "spatial": lambda y: y * jnp.repeat(X[:1, :1], y.shape[-1], 0).sum(),
    "fixed random numbers": lambda y: y * jax.random.normal(jax.random.key(0), y.shape[-1:])[None],
    "refused": lambda y: y if y.shape[-1] == 16 else 1 / 0,
}


@pytest.mark.parametrize("kind", FOLLOWING)
def test_a_number_that_follows_from_a_width(kind):
    groups = check(two_layers(FOLLOWING[kind]), V)
    assert list(groups) == ["b"], groups.explain()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("1/sqrt", "the 4 of 'div' becomes 2.236068 at 5 of 16 channels"),
        ("turns", "length=16 of 'scan' becomes 5 at 5 of 16 channels"),
        ("counted from data", "'reduce_sum' over 16 positions becomes one over 5"),
        ("other operations", "'sin' becomes 'cos' (operation 3) at 5 of 16 channels"),
        ("refused", "the function does not run (ZeroDivisionError: division by zero)"),
    ],
)
def test_the_reason_names_the_number(kind, reason):
    groups = pruning.trace(two_layers(FOLLOWING[kind]), V, X)
    assert reason in groups.left["a"]


def mean_and_variance(y: jax.Array) -> jax.Array:
    return (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-3)


# Numbers that do not follow, or only as a mean over channels does.
HARMLESS: dict[str, Callable[[jax.Array], Any]] = {
    "constant": lambda y: y / 16,
    "layer norm": mean_and_variance,
    "unbiased": lambda y: y / y.std(-1, ddof=1, keepdims=True),
    "mean times a reciprocal": lambda y: y - y.sum(-1, keepdims=True) * (1 / y.shape[-1]),
    "over all": lambda y: y / jnp.abs(y).mean(),
    "at least": lambda y: y * max(y.shape[-1], 16),
    "zeros": lambda y: y + jnp.zeros(y.shape),
    "split and joined": lambda y: jnp.concatenate(jnp.split(y, 2, -1), -1),
    "compared": lambda y: y * float(y.shape[-1] > 2),
    "dropout": lambda y: y * jax.random.bernoulli(jax.random.key(0), 0.5, y.shape),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_number_that_does_not_follow(kind):
    groups = pruning.trace(two_layers(HARMLESS[kind]), V, X)
    assert list(groups) == ["a", "b"]
    assert not groups.left


@pytest.mark.parametrize("kind", ["constant", "at least", "zeros", "compared"])
def test_what_does_not_follow_is_exact(kind):
    assert len(check(two_layers(HARMLESS[kind]), V)) == 2


def test_random_numbers_of_a_given_key_are_as_good_as_any():
    def apply(v, x):
        key, x = x
        y = jnp.tanh(x @ v["a"])
        return (y * jax.random.normal(key, y.shape)) @ v["b"] @ v["head"]

    assert list(pruning.trace(apply, V, (jax.random.key(0), X))) == ["a", "b"]


def test_a_ratio_of_widths():
    """LoRA's rank in the denominator; and two widths that are equal, and so is their ratio to 1."""

    def lora(v, x):
        return jnp.tanh(x @ v["w"] + 16 / v["a"].shape[-1] * (x @ v["a"]) @ v["b"]) @ v["head"]

    v = weights(w=(5, 6), a=(5, 8), b=(8, 6), head=(6, 3))
    groups = check(lora, v)
    assert list(groups) == ["w"]
    assert list(groups.left) == ["a"]

    def ratio(v, x):
        y = jnp.tanh(x @ v["a"])
        z = jnp.tanh(y @ v["b"])
        return (z * y.shape[-1] / z.shape[-1]) @ v["head"]

    assert set(check(ratio, weights(a=(5, 8), b=(8, 8), head=(8, 3))).left) == {"a", "b"}


def test_few_of_many_layers():
    """The others are pruned, and the search traces the function a few times, not once a layer."""
    names = [f"layer{i:02d}" for i in range(32)]
    calls = []

    def apply(v, x):
        calls.append(None)
        for name in names:
            x = jnp.tanh(x @ v[name])
            if name in ("layer05", "layer21"):
                x = x / x.shape[-1]
        return x @ v["out"]

    widths = (5, *(8 + i for i in range(32)), 3)
    pairs = itertools.pairwise(widths)
    v = weights(**dict(zip([*names, "out"], pairs, strict=True)))
    groups = check(apply, v)
    assert set(groups.left) == {"layer05", "layer21"}
    assert len(groups) == 30
    assert len(calls) < 40


def test_a_search_that_would_never_end_is_cut_short():
    def apply(v, x):
        for kernel in v[:-1]:
            x = jnp.tanh(x @ kernel) / x.shape[-1]
        return x @ v[-1]

    calls = []

    def counted(v, x):
        calls.append(None)
        return apply(v, x)

    v = [jax.ShapeDtypeStruct(pair, jnp.float32) for pair in itertools.pairwise([5] + [16] * 80)]
    groups = pruning.trace(counted, v, X)
    assert not groups
    assert len(calls) < 80


MONOTONE = [
    lambda c, k: c / k,
    lambda c, k: c // k,
    lambda c, k: min(c, k),
    lambda c, k: max(c, k),
    lambda c, k: float(c > k),
    lambda c, k: -(-c // k) * k,
    lambda c, k: k / c**0.5,
    lambda c, k: 2.0 if c % 2**k else 3.0,
]
ANY = [*MONOTONE, lambda c, k: c % k, lambda c, k: float(c == k), lambda c, k: math.gcd(c, k)]


@pytest.mark.parametrize(("factors", "check"), [(MONOTONE, False), (ANY, True)])
@settings(max_examples=30, deadline=None)
@given(data=st.data(), k=st.integers(1, 24), width=st.integers(2, 24), ratio=st.floats(0, 0.95))
def test_exact_or_not_cut(factors, check, data, k, width, ratio):
    """Whatever Python makes of a width: the pruned network is the one promised, or refused."""
    factor = data.draw(st.sampled_from(factors))

    def apply(v, x):
        y = jnp.tanh(x @ v["a"])
        return y @ v["head"] * factor(y.shape[-1], k)

    v = weights(a=(5, width), head=(width, 3))
    groups = pruning.trace(apply, v, X)
    scores = pruning.score(groups, v)
    try:
        keep = pruning.select(groups, scores, ratio=ratio, scope="channels", check=check)
    except UserError as error:
        assert "the function is another one" in str(error)  # noqa: PT017
        return
    expected = apply(masked(v, groups, keep), X)
    small = pruning.prune(v, groups, keep)
    chex.assert_trees_all_close(apply(small, X), expected, rtol=1e-4, atol=1e-5)


def shortcut(v: Any, x: jax.Array) -> jax.Array:
    """As many a network: a projection where the widths differ."""
    y = jnp.tanh(x @ v["a"])
    z = jnp.tanh(y @ v["b"])
    return (z + (y if y.shape == z.shape else y @ v["project"])) @ v["head"]


def test_widths_that_become_equal():
    v = weights(a=(5, 16), b=(16, 12), project=(16, 12), head=(12, 3))
    groups = pruning.trace(shortcut, v, X)
    assert list(groups) == ["a", "b"]
    scores = pruning.score(groups, v)
    pruning.select(groups, scores, ratio=0.5, scope="channels")
    with pytest.raises(UserError, match=r"another one, expected the same \('dot_general' becomes "):
        pruning.select(groups, scores, ratio=0.5, ratios={"b": 1 / 3}, scope="channels")


def exactly_7(y: jax.Array) -> jax.Array:
    return y * (2 if y.shape[-1] == 7 else 3)


@pytest.mark.parametrize(
    ("between", "ratio", "at_once"),
    [
        (lambda y: y * (2 if y.shape[-1] == 6 else 3), 10 / 16, True),  # as many as classes
        (lambda y: y * min(y.shape[-1], 4), 14 / 16, True),  # less than was tried
        (exactly_7, 9 / 16, False),
    ],
    ids=["an axis", "narrower", "exactly 7"],
)
def test_widths_unlike_those_that_were_tried(between, ratio, at_once):
    v = weights(a=(5, 16), b=(16, 11), head=(11, 6))
    groups = pruning.trace(two_layers(between), v, X)
    scores = pruning.score(groups, v)
    for check in (False, True):
        if check or at_once:
            with pytest.raises(UserError, match="the function is another one"):
                pruning.select(
                    groups, scores, ratio=0, ratios={"a": ratio}, scope="channels", check=check
                )


class Recurrent(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12, name="first")(x.reshape(2, 2, 5))
        return nn.Dense(3)(nn.RNN(self.cell(16))(x)[:, -1])


class Normalised(nn.Module):
    groups: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16, name="first")(x.reshape(2, 2, 5))
        return nn.Dense(3)(nn.relu(nn.GroupNorm(num_groups=self.groups)(x)).mean(1))


class Own(nn.Module):
    """A module that computes with a field where it means the width."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(16)(nn.Dense(12, name="first")(x)))
        return nn.Dense(3)(x.reshape(len(x), 16, 1)[..., 0])


@pytest.mark.parametrize(
    ("net", "whole", "cut"),
    [
        *((Recurrent(cell), True, {"first": 12}) for cell in (
            nn.GRUCell, nn.LSTMCell, nn.SimpleCell, nn.MGUCell,
        )),
        (Recurrent(nn.OptimizedLSTMCell), False, {"first": 12}),  # concatenates its kernels
        (Normalised(16), False, {"first": 16}),
        (Normalised(1), False, {}),
        (Own(), True, {"first": 12}),
    ],
    ids=lambda value: getattr(getattr(value, "cell", value), "__name__", None),
)  # fmt: skip
def test_linen_layers_that_are_cut_run(net, whole, cut):
    """In every scope: what can not follow is left whole, and what is cut runs."""
    variables = net.init(jax.random.key(0), X)

    def apply(v, x):
        return models.apply_pruned(net, v, x)

    groups = pruning.trace(apply, variables, X)
    assert bool(groups.left) == whole
    inside = groups.in_scope("channels")
    for name, size in cut.items():
        assert groups[f"params/{name}/kernel"].size == size
        assert f"params/{name}/kernel" in inside
    for scope in ("channels", "all"):
        if groups.in_scope(scope):
            keep = pruning.select(groups, pruning.score(groups, variables), ratio=0.5, scope=scope)
            small = pruning.prune(variables, groups, keep)
            assert jax.eval_shape(apply, small, X) == jax.eval_shape(apply, variables, X)


def test_instance_normalisation_is_exact():
    net = Normalised(16)
    variables = net.init(jax.random.key(0), X)
    groups = pruning.trace(lambda v, x: models.apply_pruned(net, v, x), variables, X)
    keep = pruning.select(groups, pruning.score(groups, variables), ratio=0.5, scope="channels")
    small = pruning.prune(variables, groups, keep)
    head = variables["params"]["Dense_0"]["kernel"]
    dropped = np.setdiff1d(np.arange(16), keep["params/first/kernel"])
    full = {**variables["params"], "Dense_0": {**variables["params"]["Dense_0"]}}
    full["Dense_0"]["kernel"] = head.at[dropped].set(0)
    chex.assert_trees_all_close(
        models.apply_pruned(net, small, X), net.apply({"params": full}, X), rtol=1e-4, atol=1e-5
    )
