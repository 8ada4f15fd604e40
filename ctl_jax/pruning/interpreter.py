"""An interpreter of programs that looks at the operands of some equations.

Equations are counted as the walk of the trace counts them, so that `Groups.readings` names them.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ctl_jax.pruning.walk import RULES

# What reads channels.
PRODUCTS = ("conv_general_dilated", "dot_general")
# Programs inside of an equation, in the order in which the rules of the trace walk them. A call has
# one of these; it is entered. Loops and branches are only counted.
_CALLED = ("jaxpr", "call_jaxpr")
_LOOPS = {"scan": ("jaxpr",), "while": ("body_jaxpr", "cond_jaxpr"), "cond": ("branches",)}

# Called with an equation's number, itself, and the values of its operands.
Look = Callable[[int, JaxprEqn, Sequence[Any]], None]


def evaluate(
    function: Callable[..., Any], arguments: tuple[Any, ...], wanted: Collection[int], look: Look
) -> None:
    """Runs a function, equation by equation.

    Args:
      function: of arrays.
      arguments: trees of arrays.
      wanted: numbers of equations that are to be seen. Calls that hold one are entered, so that
        arrays which are handed through them are the same objects inside.
      look: called before each equation outside of loops and of calls that are not entered.
    """
    program = jax.make_jaxpr(function)(*arguments)
    _run(program.jaxpr, program.consts, jax.tree.leaves(arguments), 0, wanted, look)


def _run(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    first: int,
    wanted: Collection[int],
    look: Look,
) -> list[Any]:
    """The outputs of `jaxpr`, whose equations are numbered from `first`."""
    env: dict[Var, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    number = first
    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        look(number, eqn, operands)
        start, number = number + 1, number + 1 + _inner(eqn)
        if _is_call(eqn) and any(start <= i < number for i in wanted):
            (body,) = _bodies(eqn)
            found = _run(body.jaxpr, body.consts, operands, start, wanted, look)
        else:
            found = _bind(eqn, operands)
        env.update(zip(eqn.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*functions, *operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _is_call(eqn: JaxprEqn) -> bool:
    return RULES.get(eqn.primitive.name) is RULES["jit"]


def _bodies(eqn: JaxprEqn) -> list[ClosedJaxpr]:
    """The programs inside of an equation."""
    keys = _CALLED if _is_call(eqn) else _LOOPS.get(eqn.primitive.name, ())
    bodies: list[ClosedJaxpr] = []
    for key in keys:
        found = eqn.params.get(key, ())
        bodies += [
            body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())
            for body in (found if isinstance(found, tuple) else (found,))
        ]
    return bodies


def _inner(eqn: JaxprEqn) -> int:
    """How many equations there are inside of one."""
    return sum(1 + _inner(inner) for body in _bodies(eqn) for inner in body.jaxpr.eqns)
