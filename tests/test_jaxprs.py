"""What equations run, and that everybody means the same equation by a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.custom_derivatives import linear_call

from ctl_jax import jaxprs

X = jnp.arange(4.0)


@jax.custom_vjp
def by_vjp(x):
    return jnp.sin(x)


by_vjp.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


@jax.custom_jvp
def by_jvp(x):
    return jnp.sin(x)


by_jvp.defjvp(lambda x, t: (jnp.sin(*x), t[0]))

# Of a function of one equation, the primitives of what it runs.
HELD = {
    "jit": (jax.jit(jnp.sin), [["sin"]]),
    "checkpoint": (jax.checkpoint(jnp.sin), [["sin"]]),
    "custom_jvp": (by_jvp, [["sin"]]),
    "custom_vjp": (by_vjp, [["sin"]]),
    "composite": (lax.composite(jnp.sin, name="ctl.sin"), [["sin"]]),
    "scan": (lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), x, None, 3)[0], [["sin"]]),
    "while": (
        lambda x: lax.while_loop(lambda c: c[0] < 1, jnp.sin, x),
        [["sin"], ["slice", "squeeze", "lt"]],
    ),
    "linear_call": (lambda x: linear_call(jnp.multiply, lambda r, y: -y, x, x), [["mul"]]),
    "custom_linear_solve": (
        lambda x: lax.custom_linear_solve(lambda y: 2 * y, x, lambda _, b: jnp.sin(b)), [["sin"]],
    ),
    "no program": (jnp.sin, []),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_what_an_equation_runs(name):
    function, expected = HELD[name]
    (eqn,) = jax.make_jaxpr(function)(X).eqns
    found = [[e.primitive.name for e in body.jaxpr.eqns] for body in jaxprs.programs(eqn)]
    assert found == expected


def test_branches_are_programs_each():
    eqn = jax.make_jaxpr(lambda i, x: lax.switch(i, [jnp.sin, jnp.cos], x))(1, X).eqns[-1]
    names = [body.jaxpr.eqns[0].primitive.name for body in jaxprs.programs(eqn)]
    assert names == ["sin", "cos"]


def nested(x):
    x = lax.while_loop(lambda c: c[0] < 1, lambda c: jnp.cos(c) + c, jnp.sin(x))
    x = jax.jit(lambda x: jax.nn.relu(jnp.tanh(x)) * 2)(x)
    return x + 1


def numbered(jaxpr, first=0):
    """Number -> primitive, of all equations."""
    found = {}
    for number, eqn in zip(jaxprs.numbers(jaxpr), jaxpr.eqns, strict=False):
        found[first + number] = eqn.primitive.name
        for inner, start in jaxprs.places(eqn, first + number):
            found |= numbered(inner, start)
    return found


def test_numbers_follow_the_program():
    jaxpr = jax.make_jaxpr(nested)(X).jaxpr
    found = numbered(jaxpr)
    assert list(found) == list(range(jaxprs.numbers(jaxpr)[-1]))
    assert [*found.values()][:7] == ["sin", "while", "cos", "add", "slice", "squeeze", "lt"]


def test_numbers_of_a_program_that_is_too_large_to_walk():
    function = jnp.tanh
    for _ in range(99):
        function = jax.jit(lambda x, f=function: f(f(x)))
    assert jaxprs.numbers(jax.make_jaxpr(function)(X).jaxpr)[-1] == 2**100 - 1


@pytest.mark.parametrize("entered", [True, False])
def test_evaluation_shows_equations_by_their_numbers(entered):
    names = numbered(jax.make_jaxpr(nested)(X).jaxpr)
    (tanh,) = (number for number, name in names.items() if name == "tanh")
    seen = {}
    jaxprs.evaluate(
        nested, (X,), [tanh] if entered else [], lambda n, eqn, operands: seen.update({n: operands})
    )
    assert (tanh in seen) == entered
    shown = {names[number] for number in seen}
    assert shown >= {"sin", "while", "jit", "add"}
    assert "cos" not in shown  # in a loop
    np.testing.assert_array_equal(seen[0][0], X)


@pytest.mark.parametrize("function", [nested, by_vjp, by_jvp, HELD["composite"][0]])
def test_interpretation_gives_what_the_function_gives(function):
    program = jax.make_jaxpr(function)(X)
    found = []
    names = numbered(program.jaxpr)

    def apply(number, eqn, operands):
        assert eqn.primitive.name == names[number]
        found.append(number)
        return [jnp.zeros(var.aval.shape, var.aval.dtype) for var in eqn.outvars]

    (result,) = jaxprs.interpret(
        program.jaxpr, program.consts, [X], apply, lambda literal: literal.val
    )
    assert found == list(jaxprs.numbers(program.jaxpr)[:-1])
    assert result.shape == jax.eval_shape(function, X).shape
