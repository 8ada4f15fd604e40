"""Tracing reads shapes alone, is deterministic, and checks its input."""

import cProfile
import itertools
import pstats

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError


def mlp(v, x):
    for kernel in v["layers"][:-1]:
        x = jax.nn.relu(x @ kernel)
    return {"logits": x @ v["layers"][-1]}


def layers(*widths: int) -> dict[str, list[jax.ShapeDtypeStruct]]:
    pairs = itertools.pairwise(widths)
    return {"layers": [jax.ShapeDtypeStruct(pair, jnp.float32) for pair in pairs]}


X = jax.ShapeDtypeStruct((2, 3), jnp.float32)


def test_arrays_and_shapes_give_the_same_groups():
    shapes = layers(3, 8, 6, 2)
    # Not a number anywhere: nobody looks.
    arrays = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, np.float32), shapes)
    traces = [pruning.trace(mlp, shapes, X), pruning.trace(mlp, arrays, np.zeros((2, 3)))]
    assert traces[0].explain() == traces[1].explain()
    assert list(traces[0]) == ["layers/0", "layers/1"]


def test_jitted_functions_and_dtypes():
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), layers(3, 8, 6, 2))
    assert list(pruning.trace(jax.jit(mlp), shapes, X)) == ["layers/0", "layers/1"]


def test_weights_in_the_closure_are_constants():
    kernel = jnp.ones((3, 8))
    groups = pruning.trace(lambda v, x: (x @ kernel) @ v["head"], {"head": jnp.ones((8, 2))}, X)
    assert not groups
    assert groups.frozen["head"][0] == "constant of the program"


def test_new_statistics_as_outputs_freeze_their_channels():
    def apply(v, x):
        x = x @ v["a"]
        return (x - x.mean(0)[None]) @ v["b"], x.mean(0)

    variables = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 2))}
    assert pruning.trace(apply, variables, X).frozen["a"][1] == "output of the function"
    assert list(pruning.trace(lambda v, x: apply(v, x)[0], variables, X)) == ["a"]


@pytest.mark.parametrize("variables", [{}, [], None])
def test_no_variables(variables):
    with pytest.raises(UserError, match=r"variables is .* at least one array"):
        pruning.trace(lambda v, x: x, variables, X)


def test_two_leaves_of_one_path():
    twice = {"a": {"b": jnp.ones(2)}, "a/b": jnp.ones(2)}
    with pytest.raises(UserError, match="two leaves at 'a/b'"):
        pruning.trace(lambda v, x: x, twice, X)


def test_a_function_that_can_not_be_traced():
    def branches(v, x):
        return x @ v["a"] if x[0, 0] > 0 else x

    with pytest.raises(UserError, match=r"apply_fn can not be traced .* TracerBoolConversionError"):
        pruning.trace(branches, {"a": jnp.ones((3, 3))}, X)
    with pytest.raises(UserError, match=r"apply_fn can not be traced .* TypeError: .*dot_general"):
        pruning.trace(lambda v, x: x @ v["a"], {"a": jnp.ones((4, 3))}, X)
    with pytest.raises(UserError, match=r"apply_fn can not be traced .* KeyError: 'b'"):
        pruning.trace(lambda v, x: x @ v["b"], {"a": jnp.ones((4, 3))}, X)


def test_a_program_that_would_take_for_ever():
    """Functions that call one another twice: 2**20 equations, though only 20 are written down."""
    function = jnp.tanh
    for _ in range(20):
        function = jax.jit(lambda x, f=function: f(f(x)))

    with pytest.raises(UserError, match="more than 5000 equations"):
        pruning.trace(
            lambda v, x: function(x @ v["a"]), {"a": jnp.ones((3, 3))}, X, max_equations=5000
        )


def test_work_is_linear_in_depth():
    """Counted in function calls, which no other load on the machine disturbs."""

    def calls(depth: int) -> int:
        def net(v, x):
            x = x @ v["stem"]
            for kernel in v["layers"]:
                x = x + jax.nn.relu(x @ kernel)
            return x @ v["head"]

        variables = {
            "stem": jax.ShapeDtypeStruct((3, 8), jnp.float32),
            "layers": [jax.ShapeDtypeStruct((8, 8), jnp.float32)] * depth,
            "head": jax.ShapeDtypeStruct((8, 2), jnp.float32),
        }
        jax.make_jaxpr(net)(variables, X)  # cached by jax
        with cProfile.Profile() as profile:
            (group,) = pruning.trace(net, variables, X).values()
        assert len(group.members) == 2 * depth + 2
        return pstats.Stats(profile).total_calls

    assert calls(400) < 5 * calls(100)


def test_work_is_linear_in_reshaped_heads():
    """What the reshapes of one layer may mean is not decided again for each other layer."""

    def calls(depth: int) -> int:
        def net(v, x):
            for p in v:
                q, k, y = ((x @ kernel).reshape(*x.shape[:2], -1, 2) for kernel in p["qkv"])
                a = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
                y = jnp.einsum("bhqk,bkhd->bqhd", a, y)
                x = x + y.reshape(*y.shape[:2], -1) @ p["out"]
            return x.sum(1)

        kernel = jax.ShapeDtypeStruct((8, 8), jnp.float32)
        variables = [{"qkv": [kernel] * 3, "out": kernel}] * depth
        x = jax.ShapeDtypeStruct((2, 3, 8), jnp.float32)
        jax.make_jaxpr(net)(variables, x)  # cached by jax
        with cProfile.Profile() as profile:
            groups = pruning.trace(net, variables, x)
        assert [group.size for group in groups.values()] == [4] * depth
        return pstats.Stats(profile).total_calls

    assert calls(160) < 10 * calls(20)
