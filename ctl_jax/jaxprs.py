"""Traversal of jaxprs: what an equation runs, the numbers of equations, and their interpretation.

Used by all that reads programs: the tracer of `pruning`, the criteria that look at activations, and
the FLOPs counter. So a number names the same equation to each of them, whatever rules they have.

Equations are numbered in the order of the program, those that an equation runs right after it.
"""

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

# Primitives that call a program with their operands, as if its equations stood there.
CALLS = frozenset([
    "call", "closed_call", "composite", "custom_jvp_call", "custom_vjp_call", "jit", "remat2",
])  # fmt: skip

# The parameters that hold what an equation runs, in this order: those of its primitive, or else the
# first of `_CALLED` that it has, or else all. Programs beside them, for derivatives, do not run:
# where they are wanted, JAX has put them into the program.
_HELD = {"while": ("body_jaxpr", "cond_jaxpr"), "cond": ("branches",)}
_CALLED = ("jaxpr", "call_jaxpr", "call", "callee", "fwd_jaxpr", "jaxprs")

Program = Jaxpr | ClosedJaxpr
Value = TypeVar("Value")
# Called with an equation's number, itself, and the values of its operands.
Look = Callable[[int, JaxprEqn, Sequence[Any]], None]

_NUMBERS: weakref.WeakKeyDictionary[Jaxpr, tuple[int, ...]] = weakref.WeakKeyDictionary()


def programs(eqn: JaxprEqn) -> list[ClosedJaxpr]:
    """The programs that an equation runs, in the order of their equations' numbers."""
    name, params = eqn.primitive.name, eqn.params
    keys: Iterable[str] = _HELD.get(name, params)
    for key in _CALLED:
        if key in params:
            keys = (key,)
            break
    found: list[ClosedJaxpr] = []
    for key in keys:
        held = params[key].solve if name == "custom_linear_solve" else params[key]
        for value in held if isinstance(held, tuple | list) else (held,):
            if isinstance(value, ClosedJaxpr):
                found.append(value)
            elif isinstance(value, Jaxpr):
                found.append(ClosedJaxpr(value, ()))
    return found


def opened(program: Program) -> Jaxpr:
    """A program without its constants."""
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def numbers(jaxpr: Jaxpr) -> tuple[int, ...]:
    """The number of each equation, from 0; and last how many there are with all that they run."""
    if (known := _NUMBERS.get(jaxpr)) is not None:
        return known
    found = [0]
    for eqn in jaxpr.eqns:
        found.append(found[-1] + 1 + sum(numbers(body.jaxpr)[-1] for body in programs(eqn)))
    return _NUMBERS.setdefault(jaxpr, tuple(found))


def places(eqn: JaxprEqn, number: int) -> Iterator[tuple[Jaxpr, int]]:
    """Of each program that an equation of this number runs, the number of its first equation."""
    first = number + 1
    for body in programs(eqn):
        yield body.jaxpr, first
        first += numbers(body.jaxpr)[-1]


def interpret(
    jaxpr: Jaxpr,
    consts: Sequence[Value],
    inputs: Sequence[Value],
    apply: Callable[[int, JaxprEqn, list[Value]], Sequence[Value]],
    literal: Callable[[Literal], Value],
    first: int = 0,
) -> list[Value]:
    """Runs a program equation by equation, on values of any kind.

    Args:
      jaxpr: the program.
      consts: one value for each of its constants.
      inputs: one for each of its inputs.
      apply: (number, equation, operands) -> results.
      literal: the value of a literal.
      first: the number of the first equation.

    Returns:
      The outputs.
    """
    env: dict[Var, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Var | Literal) -> Value:
        return literal(atom) if isinstance(atom, Literal) else env[atom]

    for number, eqn in zip(numbers(jaxpr), jaxpr.eqns, strict=False):
        results = apply(first + number, eqn, [read(atom) for atom in eqn.invars])
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def evaluate(
    function: Callable[..., Any], arguments: tuple[Any, ...], wanted: Collection[int], look: Look
) -> None:
    """Runs a function and looks at the operands of some equations.

    Args:
      function: of arrays.
      arguments: trees of arrays.
      wanted: numbers of equations that are to be seen. `CALLS` that hold one are entered, so that
        arrays which are handed through them are the same objects inside.
      look: called before each equation that is in nothing but calls that are entered.
    """

    def apply(number: int, eqn: JaxprEqn, operands: list[Any]) -> Sequence[Any]:
        look(number, eqn, operands)
        if eqn.primitive.name in CALLS:
            (body,) = programs(eqn)
            if any(number < i <= number + numbers(body.jaxpr)[-1] for i in wanted):
                return run(body, operands, number + 1)
        return _bind(eqn, operands)

    def run(program: ClosedJaxpr, inputs: Sequence[Any], first: int) -> list[Any]:
        return interpret(
            program.jaxpr, program.consts, inputs, apply, lambda literal: literal.val, first
        )

    run(jax.make_jaxpr(function)(*arguments), jax.tree.leaves(arguments), 0)


def _bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*functions, *operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def shape_of(atom: Var | Literal) -> tuple[int, ...]:
    """The shape of a variable or literal; that of a token is empty."""
    return getattr(atom.aval, "shape", ())
